"""Every command in the documentation: parsed, and run where that takes seconds.

``HOW`` says for each how it is tested; a command that is not in it fails. Commands run in
one process and in a folder of their own, which holds what a reader has by then: small
finished runs, images, settings.
"""

import dataclasses
import re
import shutil

import pytest

from tests import documents, families, images
from tests.documents import ROOT
from vitax import arguments, config_files, doctor, recipe
from vitax.__main__ import main
from vitax.launch import settings

# Lays over every training: a few small steps.
SMALL = (
    *("duration.steps=2", "log.every.steps=1", "data.batch_size=16"),
    *("model.depth=1", "model.width=16", "model.mlp_dim=16", "model.num_heads=2"),
)
VAL = tuple(f"evaluators.val.data.{f}" for f in ("source.split=test[:20%]", "num_examples=200", "batch_size=200"))
QUICK = (*SMALL, *VAL)


def config(*overrides):
    return [f"--config.{o}" for o in overrides]


@dataclasses.dataclass(frozen=True)
class Run:
    """Run for real, with these words at the end; ``instead`` replaces words first."""

    more: tuple[str, ...] = ()
    instead: tuple[tuple[str, str], ...] = ()


@dataclasses.dataclass(frozen=True)
class Parsed:
    """Parsed by the command line's own parser, and its recipe built; not run because of ``why``."""

    why: str


@dataclasses.dataclass(frozen=True)
class Outside:
    """No command of vitax: what it names must exist."""


TFDS = Parsed("wants data that TFDS prepared")
COMPILES = Parsed("tests/test_plan.py compiles and searches")
HOW = (
    (r"vitax train .* --config.mesh.data=2 .*", Parsed("tests/laws/test_topologies.py trains on this mesh")),
    (r"vitax train --config quickstart:(pretrain|finetune|scratch) .*", Run(tuple(config(*QUICK)))),
    (r"vitax train --config configs/patch_bag.py .*", Parsed("the recipe of test_docs_model.py")),
    (r"vitax train --config mine.json .*", Run(tuple(config("duration.steps=2", "data.batch_size=16")))),
    (r"vitax train --config (configs/)?vit_.*", TFDS),
    (r"vitax train --config gpt_shakespeare:data=.*", Parsed("wants the collected works")),
    (r"vitax train --config gpt2:.*", Parsed("tests/checkpoint/test_text_files.py runs it on a small GPT-2")),
    (r"vitax train --config bert_squad:.*", Parsed("wants SQuAD's files and published weights")),
    (r"vitax train --config bert_bible:.*", Parsed("tests/test_recipes.py trains it; tests/objectives/ too")),
    (r"vitax tokenizer train --config .*", Parsed("tests/test_tokenizer_training.py")),
    (r"vitax tokenizer train my_text .*", Run()),
    (r"vitax tokenizer export .*", Parsed("tests/test_carried_tokenizers.py")),
    (
        r"vitax .*(transformer_bible|runs/bible|--config transformer_wmt14).*",
        Parsed("tests/generate/test_translation.py"),
    ),
    (r"vitax .*(DATA|runs/captions|mean.safetensors).*", Parsed("wants a folder of translations")),
    (
        r"vitax (train --config gpt|(eval|generate) --checkpoint runs/gpt).*",
        Parsed("tests/generate/test_generation.py"),
    ),
    (r"vitax (train --config|pseudo-label --config) noisy_student_fashion:.*", Parsed("tests/test_pseudo_label.py")),
    (r"vitax finetune .* --checkpoint weights/.*", Parsed("wants weights from the index: tests/test_real_weights.py")),
    (r"vitax compare runs/real .*", Parsed("compares the two runs before it")),
    (
        r"vitax (finetune|predict) .*(BiT-M-R50x1.npz|efficientnet-b0).*",
        Parsed("tests/test_families.py has such files"),
    ),
    (r"vitax fetch .*", Parsed("wants a network; tests/test_fetch.py serves files")),
    (r"vitax finetune .* --dry-run.*", Run()),
    (r"vitax finetune .*", Run(tuple(config("duration.steps=2", "data.batch_size=16")))),
    (r"vitax predict .*--(text|question) .*", Parsed("tests/test_predict_text.py has such checkpoints")),
    (
        r"vitax (generate --checkpoint gpt2/|convert runs/gpt) .*",
        Parsed("tests/checkpoint/test_text_files.py has such files"),
    ),
    (r"vitax predict .*", Run()),
    (r"vitax eval .*", Run()),
    (r"vitax cost --paper", Parsed("tests/test_paper.py prints these tables")),
    (r"vitax (recipes|compare|cost|doctor)( .*)?", Run()),
    (r"vitax models 'ViT-\*'", Run(instead=(("ViT-*", "ViT-Ti*"),))),
    (r"vitax report .*", Run()),
    (r"vitax plan .* --fast", Run()),
    (r"vitax plan .*", COMPILES),
    (r"vitax launch .* --dry-run", Run()),
    (r"vitax launch .*", Run(("--dry-run",))),  # tests/launch/ starts processes and stand-ins
    (r"vitax ckpt cp .* gs://.*", Parsed("wants a bucket; tests/checkpoint/test_transfer.py has a stand-in")),
    (r"vitax ckpt .*", Run()),
    (r"vitax convert .*", Run()),
    (r"(make|source|pip|python|git|sed|\.venv/bin/pytest) .*", Outside()),
)

COMMANDS = {
    re.sub(r"^(?:[A-Z_]+=\S+ )+", "", " ".join(w if re.fullmatch(r"[^\s*\[]+", w) else f"'{w}'" for w in words)): words
    for path in documents.WRITTEN
    for words in documents.commands(path)
}


def how(command):
    return next((kind for pattern, kind in HOW if re.fullmatch(pattern, command)), None)


def once(commands):
    """The first of those that differ in the name of a workdir alone."""
    return list({re.sub(r"runs/\w+", "runs/DIR", c): c for c in reversed(commands)}.values())[::-1]


def plain(words):
    """Without variables in front and redirection behind."""
    while re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    return words[: words.index(">")] if ">" in words else words


def test_there_are_commands_and_each_has_an_entry():
    assert len(COMMANDS) > 40
    assert not [c for c in COMMANDS if how(c) is None], "add them to HOW"


def test_every_entry_is_used():
    used = {id(how(command)) for command in COMMANDS}
    assert not [pattern for pattern, kind in HOW if id(kind) not in used]


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("vitax ")])
def test_it_parses_and_its_recipe_builds(command):
    words = plain(COMMANDS[command])[1:]
    args, rest = arguments.parser().parse_known_args(words)
    assert all(w.startswith("--config.") for w in rest), rest
    spec = getattr(args, "config", None) or getattr(args, "explain", None)
    if args.verb == "launch" and args.settings is None:
        spec = settings.read(args, rest).config
    if spec and not spec.endswith(("mine.json", "patch_bag.py")):  # these two are made on the way
        if any("objective.teacher" in word for word in rest):  # building reads the teacher's workdir
            assert config_files.load(spec, rest)
        else:
            assert recipe.load(spec, rest).total_steps > 0
    elif args.verb == "finetune":
        config_files.parse_overrides(rest)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """A folder with what a reader has by then, from one small training and one small fine-tuning."""
    folder = tmp_path_factory.mktemp("docs")
    patch = pytest.MonkeyPatch()
    patch.chdir(folder)
    documents.on_one_device(patch)
    images.shapes(folder / "my_images", 12)
    shutil.copytree(folder / "my_images" / "bars", folder / "photos")
    shutil.copytree(folder / "my_images" / "blob", folder / "more" / "below")
    shutil.copy(folder / "photos" / "000.png", folder / "photo.jpg")
    lines = [f"{p.relative_to(folder)},{p.parent.name}" for p in sorted((folder / "my_images").rglob("*.png"))]
    (folder / "labels.csv").write_text("\n".join(lines))
    for name, golden in (("ViT-B_16.npz", "google_vit_jax/ViT-B_16.npz"), ("siglip.npz", "google_siglip/siglip.npz")):
        shutil.copy(ROOT / "tests" / "golden" / "published" / golden, folder / name)
    shutil.copytree(ROOT / "tests" / "golden" / "published" / "hf_dinov2", folder / "dinov2-base")
    shutil.copy(families.write("bit_google", folder / "bit"), folder / "BiT-M-R50x1.npz")
    families.write("efficientnet_timm_tf", folder / "efficientnet-b0")
    for label in range(5):
        shutil.copytree(folder / "photos", folder / "imagenet" / "val" / f"n{label}")
    (folder / "my_text").mkdir()
    shutil.copy(ROOT / "docs" / "language_models.md", folder / "my_text" / "a.txt")
    (folder / "launch.toml").write_text(documents.blocks(ROOT / "docs" / "pods.md", "toml")[0])
    train = ["train", "--config", "quickstart:pretrain", "--workdir", "runs/pretrain", *config(*QUICK)]
    assert main(train) == 0
    for name in ("finetune", "scratch"):
        shutil.copytree("runs/pretrain", f"runs/{name}")
    mine = ["finetune", "--data", "my_images", "--checkpoint", "runs/pretrain"]
    assert main([*mine, "--workdir", "runs/mine", *config("duration.steps=2", "data.batch_size=16")]) == 0
    (folder / "mine.json").write_text((folder / "runs" / "mine" / "recipe.json").read_text())
    patch.undo()
    return folder


@pytest.mark.parametrize("command", once([c for c in COMMANDS if isinstance(how(c), Run)]))
def test_it_runs(command, prepared, tmp_path, monkeypatch, capsys):
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    documents.on_one_device(monkeypatch)
    kind, words = how(command), plain(COMMANDS[command])[1:]
    for old, new in kind.instead:
        words = [new if w == old else w for w in words]
    words += kind.more
    makes = words[0] in ("train", "finetune") and "--workdir" in words
    if makes:
        shutil.rmtree(words[words.index("--workdir") + 1], ignore_errors=True)
    code = main(words)
    out, err = capsys.readouterr()
    assert code == 0, err
    if makes:
        assert "state digest=" in out
    if makes and COMMANDS[command] in documents.commands(ROOT / "docs" / "resume.md"):
        assert main(words) == 0
        assert "Resumed at step 2" in capsys.readouterr().err
    for option in ("--output", "--features", "--attention"):
        if option in words:
            assert (tmp_path / words[words.index(option) + 1]).stat().st_size > 0


@pytest.mark.parametrize("command", [c for c in COMMANDS if isinstance(how(c), Outside)])
def test_what_other_programs_are_given_exists(command):
    program, *words = plain(COMMANDS[command])
    if program == "make":
        assert re.search(rf"^{words[0]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for word in words:
        if match := re.fullmatch(r"\.\[(\w+)\]", word):
            assert match[1] in doctor.EXTRAS
            assert re.search(rf"^{match[1]} =", (ROOT / "setup.cfg").read_text(), re.MULTILINE)
        elif re.match(r"(tests|scripts|benchmarks|vitax|constraints)\b", word):
            assert (ROOT / word).exists(), word
    if program == "sed":  # the break that CONTRIBUTING shows must still find its line
        old, target = words[1].split("/")[1], ROOT / words[2]
        assert old in target.read_text()


@pytest.mark.parametrize("path", documents.FILES, ids=lambda p: p.name)
def test_links_lead_somewhere(path):
    text = re.sub(r"^```.*?^```$|`[^`\n]*`", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text() if path.parent == documents.REFERENCE else text):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        there = (path.parent / name).resolve() if name else path
        assert there.exists(), target
        assert ROOT in there.parents, target
        if anchor:
            assert anchor in documents.anchors(there), target


def test_every_page_is_linked_from_the_readme():
    text = (ROOT / "README.md").read_text()
    for path in documents.FILES[1:]:
        assert f"]({path.relative_to(ROOT)})" in text, path


def test_the_readme_is_one_screen_and_images_are_small():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 70
    pictures = list((ROOT / "docs" / "images").iterdir())
    everything = "".join(p.read_text() for p in documents.WRITTEN)
    for picture in pictures:
        assert picture.stat().st_size < 150_000, picture
        assert f"images/{picture.name}" in everything, picture


def test_files_that_the_documentation_names_exist():
    pattern = r"`((?:vitax|tests|scripts|benchmarks|configs|launch|colabs|docs)/[\w./*-]*)`"
    for path in documents.WRITTEN:
        for name in re.findall(pattern, path.read_text()):
            if name not in ("vitax/models/patch_bag.py", "tests/models/test_patch_bag.py", "configs/patch_bag.py"):
                assert any(True for _ in ROOT.glob(name.rstrip("/"))), f"{path.name}: {name}"
