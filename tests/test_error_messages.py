"""What vitax says to each mistake of docs/errors.md, and how early: literally, and in one process."""

import configparser
from pathlib import Path

import jax
import pytest

from scripts import make_error_docs
from tests import user_errors
from tests.conftest import tiny_config
from vitax import config_files, recipe, run
from vitax.construct import fields_of
from vitax.core import elsewhere
from vitax.core.errors import UserError
from vitax.specs.images import DataSpec

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def printed():
    return make_error_docs.printed()


@pytest.mark.parametrize("row", user_errors.ROWS, ids=lambda row: row.title)
def test_a_mistake_is_named_before_work_begins(row, printed):
    got = printed[row.title]
    assert got["code"] == 2, got["message"]
    assert "Traceback" not in got["message"]
    assert got["found"] == row.found


# What each message must hold: where, what was given, what is expected, how to mend it.
HOLDS = {
    "Unknown verb": ('"trian"', 'Did you mean "train"?', "Verbs: train, finetune"),
    "Unknown recipe": ("--config quickstar", 'Did you mean "quickstart"?', "Known: "),
    "Unknown variant (tag)": ('"B/15"', 'Did you mean "B/16"', "Valid: B/16, B/32, L/16, L/32."),
    "Unknown key of a variant": ('"epoch"', 'Did you mean "epochs"?', "Valid: model, epochs."),
    "Unknown flag": ("--learning-rate", "Did you mean --config.optimizer.lr?"),
    "Unknown flag of a verb without a recipe": ("--jsno", 'Did you mean "--json"?'),
    "Missing flag, given under the name of another program": ("required: --workdir", 'Did you mean "--workdir"?'),
    "Odd value of a flag": ("--seeds 0", "at least 1"),
    "Flag that is no number": ("--topk all", "a whole number"),
    "Share out of range": ("--val-fraction 20", "between 0 and 1, such as 0.1"),
    "Unknown model": ("vit_base_patch16_224x", 'Did you mean "ViT-B/16"', "There are: ViT-Ti/16"),
    "Unknown field": ("optimizer.learning_rate", 'Did you mean "lr"?', "Valid: b1, b2"),
    "Field out of range": ("data.batch_size", "at least 1", "got 0"),
    "Data folder missing": ("photo ", "looked from /home/me", 'Did you mean "photos"?', "cat/  1.jpg", "CSV"),
    "Data folder missing, in a recipe": ("folder photo ", "/home/me", 'Did you mean "photos"?', "cat/  1.jpg"),
    "Prepared data set missing": ("no folder tfds", "/home/me", "download_and_prepare()"),
    "Checkpoint missing": ("--checkpoint runs/pretrian", "/home/me/runs/pretrian", 'Did you mean "pretrain"?'),
    "Step of a checkpoint missing": ("no step 500", "469, 938", "runs/pretrain@469"),
    "Checkpoint to start from missing": ("init_from.checkpoint runs/pretrian", 'Did you mean "pretrain"?'),
    "Image size": ("photos/cat/1.png", "40x40", "28x28", '{"kind": "resize"}', "image_size=(40, 40)"),
    "Channels first (NCHW), in the data": ("3x28x28", "channels first (NCHW)", "transpose(0, 2, 3, 1)"),
    "Channels first (NCHW), in Python": ("(8, 3, 224, 224)", "channels first", "transpose(0, 2, 3, 1)"),
    "Label not below num_classes": ("example 2 of labels.idx", "label 7", "num_classes=5"),
    "More class folders than num_classes": ("data.num_classes", "states 1", "2 classes (cat, dog)", "num_classes=2"),
    "Token ids not below vocab_size": ("data.vocab_size: 200", "257 ids", "Set --config.data.vocab_size=257"),
    "Tokenizer missing": ("data.tokenizer.path: bpe.json: no such file or folder", "encoder.json with vocab.bpe"),
    "Tokenizer of another kind": ("wordpiece.json", "of type 'WordPiece', expected 'BPE'"),
    "Prompt that is too long": ("pairs.jsonl, line 1: 28 tokens", "data.length is 8", "data.source.skip_long=True"),
    "Label -1": ("test/2.png", "label -1", "0 to num_classes - 1"),
    "Package missing: plan": ("libtpu", "'.[plan]'"),
    "Package missing: interop": ("safetensors", "'.[interop]'"),
    "Package missing: gcs": ("gs://bucket/run", "gcsfs", "'.[gcs]'"),
    "Package missing: cuda": ("JAX_PLATFORMS=cuda", "'.[cuda]'"),
}


@pytest.mark.parametrize("title", HOLDS)
def test_a_message_says_where_what_and_how_to_mend_it(title, printed):
    for text in HOLDS[title]:
        assert text in printed[title]["message"]


def test_the_page_holds_the_literal_messages(printed):
    page = (ROOT / "docs" / "errors.md").read_text()
    assert page == make_error_docs.page(printed), "run python -m scripts.make_error_docs"


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_a_missing_platform_names_its_extra(platform, monkeypatch):
    def missing():
        raise RuntimeError(f"Unable to initialize backend '{platform}'")

    monkeypatch.setattr(jax, "devices", missing)
    monkeypatch.setenv("JAX_PLATFORMS", platform)
    with pytest.raises(UserError, match=rf"JAX_PLATFORMS={platform}.*Unable to initialize.*'\.\[{platform}\]'"):
        run.start_devices()


def test_every_extra_that_a_user_needs_names_itself():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    tested = {title.removeprefix("Package missing: ") for title in HOLDS if title.startswith("Package missing: ")}
    for_development = {"test", "colab"}  # no verb needs them
    assert set(setup["options.extras_require"]) == tested | {"tpu"} | for_development


def test_names_of_other_programs_lead_to_fields_and_options_that_exist():
    config = tiny_config()
    built = recipe.build(config)
    parts = {
        "model": fields_of(recipe.MODELS["vit"]),
        "objective": fields_of(recipe.OBJECTIVES["classification"]),
        "data": fields_of(DataSpec),
        "optimizer": fields_of(type(built.optimizer)),
        "schedule": fields_of(type(built.schedule)),
        "checkpoint": fields_of(recipe.CheckpointSpec),
        "log": fields_of(recipe.LogSpec),
        "init_from": fields_of(recipe.InitFrom),
    }
    for path in elsewhere.FIELDS.values():
        part, _, rest = path.partition(".")
        assert part in recipe.TOP_LEVEL
        field, _, unit = rest.partition(".")
        if part in parts:
            assert field == "kind" or field in parts[part], path
        assert (unit or (part == "duration" and field) or "steps") in config_files.UNITS
    known = {"--workdir", "--data", "--checkpoint"}
    assert set(elsewhere.OPTIONS.values()) <= known


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("vit_base_patch16_224.augreg_in21k", "ViT-B/16"),
        ("google/vit-huge-patch14-224-in21k", "ViT-H/14"),
        ("vit_tiny_patch16_224", "ViT-Ti/16"),
        ("vit_so400m_patch14_siglip_224", "ViT-So400m/14"),
        ("resnet50", "resnet50"),
    ],
)
def test_models_by_the_names_of_others(name, ours):
    assert elsewhere.model(name) == ours
