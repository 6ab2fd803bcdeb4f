"""Files of GPT and BERT as Hugging Face has them: parity through the loading path, both ways, and what is refused.

Weights and outputs come from scripts/make_gpt_golden.py and scripts/make_bert_golden.py,
where torch computes in float64.
"""

import functools
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import linen as nn

from scripts import seeded_weights
from tests import documents
from tests.conftest import tiny_config
from tests.published import TOLERANCE, error, nested
from tests.timm_weights import load, section
from vitax import infer, recipe, run, zoo
from vitax.__main__ import main
from vitax.checkpoint import convert, files
from vitax.checkpoint.names import gpt
from vitax.construct import construct
from vitax.core import tree
from vitax.core.errors import UserError
from vitax.data.tokenizers import files as tokenizer_files
from vitax.models.gpt import GPT
from vitax.models.table import MODELS
from vitax.weights import reading, writing

GOLDEN = Path(__file__).parents[1] / "golden"
HEADS = {
    "bert_hf_pretraining": "pretraining",
    "bert_hf_model": "none",
    "bert_hf_classification": "classification",
    "bert_hf_span": "span",
}
QUICK = {"xla_backend_optimization_level": 0}
NAMES = ("gpt_hf_gpt1", "gpt_hf_gpt2", *HEADS)
MODEL_TYPES = {"gpt_hf_gpt1": "openai-gpt", "gpt_hf_gpt2": "gpt2"}


@functools.cache
def golden(name):
    held = load(GOLDEN / f"{name}.npz")
    config = json.loads(str(held["config"]))
    if name in MODEL_TYPES:
        config |= {"model_type": MODEL_TYPES[name]}
    return held, config, section(held, "weight/")


def write(folder, name, change=None, **config):
    """The file of a golden model, its arrays changed by ``change``, with its config.json."""
    _, stated, weights = golden(name)
    folder.mkdir(parents=True, exist_ok=True)
    seeded_weights.write(folder / "model.safetensors", change(dict(weights)) if change else weights)
    (folder / "config.json").write_text(json.dumps(stated | config))
    return str(folder)


def outputs(found, name):
    held, _, _ = golden(name)
    model = construct(MODELS, found.recipe["model"], "model")
    inputs = {"segment_ids": held["mask"], "token_types": held["types"]} if name in HEADS else {}
    apply = jax.jit(model.apply, compiler_options=QUICK)
    output = apply({"params": nested(found.params)}, held["tokens"], **inputs)
    named = {"logits": output.logits, "features": output.features, **output.intermediates}
    if HEADS.get(name) == "span":
        named |= {"start": output.logits[..., 0], "end": output.logits[..., 1]}
    return named


def check_outputs(found, name):
    held, _, _ = golden(name)
    have = outputs(found, name)
    for key, want in (section(held, "output/") or {"logits": held["logits"]}).items():
        real = held[f"direction/{key}"] != 0 if f"direction/{key}" in held else 1.0
        assert error(have[key] * real, want * real) <= TOLERANCE, key


@pytest.mark.parametrize("name", NAMES)
def test_outputs_equal_those_of_transformers(name, tmp_path):
    found = reading.load(write(tmp_path, name)).whole()
    assert found.unexpected == ()
    check_outputs(found, name)
    assert found.recipe["model"].get("head") == HEADS.get(name)


# As the first files on the hub have it.
def old_gpt2(weights):
    bare = {name.removeprefix("transformer."): x for name, x in weights.items()}
    masks = {f"h.{i}.attn.bias": np.ones((1, 1, 9, 9), np.float32) for i in range(2)}
    return bare | masks | {"lm_head.weight": bare["wte.weight"]}


def old_bert(weights):
    words = {".weight": ".gamma", ".bias": ".beta"}
    named = {
        next((n.replace(new, old) for new, old in words.items() if n.endswith(f"LayerNorm{new}")), n): x
        for n, x in weights.items()
    }
    return named | {
        "bert.embeddings.position_ids": np.arange(9)[None],
        "cls.predictions.decoder.weight": named["bert.embeddings.word_embeddings.weight"],
        "cls.predictions.decoder.bias": named["cls.predictions.bias"],
    }


@pytest.mark.parametrize(("name", "change"), [("gpt_hf_gpt2", old_gpt2), ("bert_hf_pretraining", old_bert)])
def test_old_files_hold_the_same(name, change, tmp_path):
    want = reading.load(write(tmp_path / "new", name)).whole()
    have = reading.load(write(tmp_path / "old", name, change)).whole()
    assert have.recipe["model"] == want.recipe["model"]
    assert have.unexpected == ()
    assert have.params.keys() == want.params.keys()
    for key, value in want.params.items():
        np.testing.assert_array_equal(have.params[key], value)
    assert any("left out: " in line and "again" in line for line in have.lines)


def test_heads_come_of_what_is_there(tmp_path):
    def without(*prefixes):
        return lambda weights: {n: x for n, x in weights.items() if not n.startswith(prefixes)}

    masked = reading.load(write(tmp_path / "1", "bert_hf_pretraining", without("cls.seq"))).whole()
    assert masked.recipe["model"]["head"] == "mlm"
    assert "left out: pooler, which the head mlm does not read" in masked.lines
    bare = reading.load(write(tmp_path / "2", "bert_hf_pretraining", without("cls."))).whole()
    assert bare.recipe["model"]["head"] == "none"
    found = reading.load(write(tmp_path / "3", "bert_hf_classification", id2label={"0": "a", "1": "b", "2": "c"}))
    assert (found.class_names, found.recipe["model"]["num_classes"]) == (("a", "b", "c"), 3)


def test_numerics_and_heads_without_a_config(tmp_path):
    for name, eps in (("gpt_hf_gpt2", 1e-5), ("bert_hf_model", 1e-12)):
        folder = Path(write(tmp_path / name, name))
        (folder / "config.json").unlink()
        with pytest.raises(UserError, match=r"number of heads is not in the file.*put its config.json beside it"):
            reading.load(str(folder))
        (folder / "config.json").write_text(json.dumps({"n_head": 2, "num_attention_heads": 2}))
        assert reading.load(str(folder)).recipe["model"]["norm_eps"] == eps


@pytest.mark.parametrize(
    ("name", "change", "config", "message"),
    [
        ("bert_hf_model", None, {"model_type": "roberta"}, 'model_type "roberta".*computes otherwise'),
        ("bert_hf_model", None, {"hidden_act": "relu"}, "hidden_act: relu in config.json; vitax has gelu alone"),
        (
            "bert_hf_classification",
            None,
            {"architectures": ["BertForTokenClassification"]},
            "architectures: BertForTokenClassification in config.json; of models with a classifier vitax has",
        ),
        (
            "bert_hf_classification",
            None,
            {"problem_type": "multi_label_classification"},
            "classes of which a text has one",
        ),
        ("bert_hf_classification", None, {"problem_type": "regression"}, "regression of one value alone"),
        ("gpt_hf_gpt2", None, {"activation_function": "relu"}, "vitax has gelu_new or gelu_pytorch_tanh alone"),
        ("gpt_hf_gpt2", None, {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx: True"),
        (
            "gpt_hf_gpt2",
            lambda w: w | {"lm_head.weight": w["transformer.wte.weight"] + 1},
            {},
            "lm_head.weight is not transformer.wte.weight again",
        ),
    ],
)
def test_what_would_compute_otherwise_is_refused(name, change, config, message, tmp_path):
    with pytest.raises(UserError, match=message):
        reading.load(write(tmp_path, name, change, **config))


@pytest.mark.parametrize("name", NAMES)
def test_an_export_is_the_file_it_came_from(name, tmp_path):
    pytest.importorskip("safetensors", reason="the extra `interop` is not installed")
    source = write(tmp_path / "source", name)
    row = writing.run(source, tmp_path / "out", "hf")
    assert any("tokenizer: left out" in line for line in row["lines"])
    have, (_, stated, want) = files.read(str(tmp_path / "out")), golden(name)
    assert have.arrays.keys() == want.keys()
    for key, value in want.items():
        np.testing.assert_array_equal(have.arrays[key], value, err_msg=key)
    for key in stated.keys() & have.config.keys():
        assert have.config[key] == stated[key], key
    # Our own format and back.
    writing.run(source, tmp_path / "own.safetensors", "vitax")
    writing.run(str(tmp_path / "own.safetensors"), tmp_path / "again", "hf")
    assert (tmp_path / "again/model.safetensors").read_bytes() == (tmp_path / "out/model.safetensors").read_bytes()


def test_a_tokenizer_goes_along(tmp_path):
    pytest.importorskip("safetensors", reason="the extra `interop` is not installed")
    source = Path(write(tmp_path / "source", "bert_hf_pretraining"))
    assert any("no tokenizer beside it" in line for line in reading.load(str(source)).lines)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmn"]
    (source / "vocab.txt").write_text("\n".join(words) + "\n")
    (source / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    found = reading.load(str(source))
    assert "text: tokenizer vocab.txt" in found.lines
    assert found.recipe["data"]["tokenizer"] == {"kind": "wordpiece", "path": str(source), "lowercase": False}
    writing.run(str(source), tmp_path / "out", "hf")
    assert (tmp_path / "out/vocab.txt").read_bytes() == (source / "vocab.txt").read_bytes()
    assert reading.load(str(tmp_path / "out")).recipe["data"]["tokenizer"]["lowercase"] is False


def test_a_tokenizer_that_is_not_byte_level_is_said_not_read(tmp_path):
    source = Path(write(tmp_path / "source", "gpt_hf_gpt1"))
    (source / "vocab.json").write_text('{"a": 0, "b</w>": 1, "ab</w>": 2}')
    (source / "merges.txt").write_text("#version: 0.2\na b</w>\n")
    assert any("merges.txt marks ends of words by </w>" in line for line in reading.load(str(source)).lines)


def test_shorter_contexts_take_the_first_positions(tmp_path):
    found = reading.load(write(tmp_path, "bert_hf_model"))
    fit = found.fit(None, None).table()
    table = found.params["embedding/position"]
    np.testing.assert_array_equal(fit["embedding/position"](table, (4, 16)), table[:4])
    assert fit["embedding/position"](table, (12, 16)).shape == (9, 16)


def test_create_model_takes_them_by_name(tmp_path, monkeypatch):
    source = write(tmp_path, "bert_hf_pretraining")
    tiny = dict(reading.load(source).recipe["model"])
    monkeypatch.setattr("vitax.models.table.published", lambda: {"BERT-base": tiny})
    monkeypatch.setattr("vitax.zoo.names", lambda: {"BERT-base": zoo.Named("BERT-base", None, {})})
    pooler = reading.load(source).params["pooler/kernel"]
    model, variables = zoo.create_model("BERT-base", checkpoint=source, head="classification", num_classes=2)
    np.testing.assert_array_equal(variables["params"]["pooler"]["kernel"], pooler)
    assert variables["params"]["head"]["kernel"].shape == (16, 2)
    assert model.apply(variables, golden("bert_hf_pretraining")[0]["tokens"]).logits.shape == (3, 2)


def test_a_published_gpt_is_a_checkpoint_to_generate_from(tmp_path):
    source = Path(write(tmp_path, "gpt_hf_gpt2"))
    recipe, _, state, metadata = infer.load(str(source))
    assert (recipe.data.tokenizer, metadata["weights"]) == ({"kind": "bpe", "path": str(source)}, "Hugging Face GPT-2")
    np.testing.assert_array_equal(state.params["embedding"], golden("gpt_hf_gpt2")[2]["transformer.wte.weight"])


@pytest.mark.torch
def test_transformers_loads_what_is_exported(tmp_path):
    for package in ("torch", "transformers"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"needs scripts/requirements-parity.txt: {package}")
    words = []
    for name in NAMES:
        writing.run(write(tmp_path / name, name), tmp_path / f"{name}_hf", "hf")
        words += [tmp_path / f"{name}_hf", GOLDEN / f"{name}.npz"]
    subprocess.run([sys.executable, str(GOLDEN.parents[1] / "scripts" / "check_text_export.py"), *words], check=True)


@pytest.fixture(scope="module")
def small_gpt2(tmp_path_factory):
    """A GPT-2 over bytes with its tokenizer, as Hugging Face lays it out: (folder, module, params)."""
    folder = tmp_path_factory.mktemp("gpt2")
    model = GPT(width=16, depth=2, mlp_dim=64, num_heads=2, vocab_size=257, context=24)
    params = nn.meta.unbox(jax.jit(model.init)(jax.random.key(0), np.zeros((1, 2), np.int32)))["params"]
    # Far from ties, and from saying each token again.
    params = tree.map_named(lambda name, x: 9 * x if name.endswith("kernel") else x, params)
    theirs = convert.to_theirs(gpt.gpt2_table(), dict(tree.named_leaves(params)), {"num_heads": 2})
    seeded_weights.write(folder / "model.safetensors", {n: np.asarray(x) for n, x in theirs.arrays.items()})
    (folder / "config.json").write_text('{"model_type": "gpt2", "n_head": 2}')
    letters = dict(tokenizer_files.byte_letters())
    (folder / "vocab.json").write_text(json.dumps(letters | {"<|endoftext|>": 256}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return folder, model, params


def test_create_model_keeps_a_head(tmp_path, monkeypatch, capsys):
    source = write(tmp_path, "bert_hf_span")
    found = reading.load(source)
    monkeypatch.setattr("vitax.models.table.published", lambda: {"BERT-base": dict(found.recipe["model"])})
    monkeypatch.setattr("vitax.zoo.names", lambda: {"BERT-base": zoo.Named("BERT-base", None, {})})
    _, variables = zoo.create_model("BERT-base", checkpoint=source)
    for name, value in tree.named_leaves(variables["params"]):
        np.testing.assert_array_equal(value, found.params[name], err_msg=name)
    said = capsys.readouterr().err
    assert f"placed {len(found.params)} parameters as they are" in said
    assert "resampled" not in said


def test_a_published_gpt_continues_a_prompt(small_gpt2, capsys):
    folder, model, params = small_gpt2
    words = ["--prompt", "To b\u00e9", "--temperature", "0", "--max-tokens", "6", "--json"]
    assert main(["generate", "--checkpoint", str(folder), *words]) == 0
    made = json.loads(capsys.readouterr().out)
    tokens = [256, *"To b\u00e9".encode()]
    apply = jax.jit(lambda x: model.apply({"params": params}, x).logits, compiler_options=QUICK)
    for _ in range(made["tokens"]):
        # Padded behind, which a causal model does not see.
        tokens.append(int(apply(np.array([tokens + [0] * (16 - len(tokens))]))[0, len(tokens) - 1].argmax()))
    assert made["tokens"] > 0
    assert made["text"] == bytes(tokens[7:]).decode(errors="replace")


def test_a_bert_continues_nothing(tmp_path, capsys):
    assert main(["generate", "--checkpoint", write(tmp_path, "bert_hf_pretraining"), "--prompt", "a"]) == 2
    assert 'a model of kind "bert" gives no text; vitax predict' in capsys.readouterr().err


def test_a_published_classifier_is_evaluated(tmp_path, capsys):
    folder = Path(write(tmp_path / "model", "bert_hf_classification", id2label={"0": "x", "1": "y", "2": "z"}))
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmn"]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    texts = ["a b", "c", "d e f", "g h"]
    predicted = []
    assert main(["predict", "--checkpoint", str(folder), "--json", *(w for t in texts for w in ("--text", t))]) == 0
    for row in json.loads(capsys.readouterr().out):
        predicted.append(row["topk"][0]["label"])
    rows = [f"{text},{label}" for text, label in zip(texts, [*predicted[:3], "x" if predicted[3] != "x" else "y"])]
    (tmp_path / "table.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    data = "--config.evaluators.val.data"
    options = {"source.kind": "text_table", "source.path": tmp_path / "table.csv", "num_examples": 4}
    options |= {"source.classes": '("x","y","z")'}
    command = ["eval", "--checkpoint", str(folder), "--json", "--config.evaluators.val.kind=text_classification"]
    assert main([*command, *(f"{data}.{k}={v}" for k, v in options.items())]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"]["val/accuracy"] == 0.75


def test_a_run_starts_from_a_published_gpt_of_a_longer_context(small_gpt2, tmp_path):
    folder, _, params = small_gpt2
    (tmp_path / "text.txt").write_text("to be or not to be " * 9)
    tokenizer = {"kind": "bpe", "path": str(folder)}
    data = {"source": {"kind": "text", "path": str(tmp_path / "text.txt")}, "num_examples": 11, "length": 16}
    plain = tiny_config(
        model={"kind": "gpt", "width": 16, "depth": 2, "mlp_dim": 64, "num_heads": 2},
        objective={"kind": "language_model"},
        data=data | {"tokenizer": tokenizer, "batch_size": 8},
        evaluators={},
        init_from={"checkpoint": str(folder)},
    )
    built = recipe.build(plain)
    state = run.initial_state(built, built.program(), tmp_path)
    np.testing.assert_array_equal(state.params["pos_embedding"], params["pos_embedding"][:16])
    np.testing.assert_array_equal(state.params["embedding"], params["embedding"])


def test_the_documented_start_from_gpt2_works(small_gpt2, tmp_path, monkeypatch):
    folder, _, params = small_gpt2
    documents.on_one_device(monkeypatch)
    (tmp_path / "text.txt").write_text("to be or not to be " * 9)
    page = documents.ROOT / "docs" / "published_weights.md"
    [stated] = [words[1:] for words in documents.commands(page) if "gpt2:small" in words]
    places = {"gpt2/": str(folder), "my_text": str(tmp_path / "text.txt"), "runs/tuned": str(tmp_path / "run")}
    words = []
    for word in stated:
        name, equals, value = word.rpartition("=")
        words.append(f"{name}{equals}{places.get(value, value)}")
    small = ("width=16", "depth=2", "mlp_dim=64", "num_heads=2")
    words += [f"--config.model.{s}" for s in small]
    words += [f"--config.data.{s}" for s in ("vocab_size=257", "length=16", "num_examples=11")]
    assert main([*words, "--config.duration={'steps': 1}", "--config.schedule.warmup=None"]) == 0
    told = json.loads((tmp_path / "run" / "warm_start.json").read_text())
    assert len(told["placed"]) + len(told["resampled"]) == len(tree.named_leaves(params))


def test_a_classifier_starts_from_a_published_bert(tmp_path):
    source = write(tmp_path / "bert", "bert_hf_pretraining")
    (tmp_path / "table.csv").write_text("text,label\na,no\nb,yes\n")
    data = {"source": {"kind": "text_table", "path": str(tmp_path / "table.csv")}, "num_examples": 2, "length": 6}
    plain = tiny_config(
        model={"kind": "bert", "width": 16, "depth": 2, "mlp_dim": 24, "num_heads": 2},
        objective={"kind": "text_classification"},
        data=data | {"vocab_size": 19, "batch_size": 8, "tokenizer": {"kind": "wordpiece", "path": "none"}},
        evaluators={},
        init_from={"checkpoint": source},
    )
    built = recipe.build(plain)
    state = run.initial_state(built, built.program(), tmp_path)
    held = reading.load(source).params
    for name, value in tree.named_leaves(state.params):
        if name == "embedding/position":
            np.testing.assert_array_equal(value, held[name][:6])
        elif not name.startswith("head/"):
            np.testing.assert_array_equal(value, held[name], err_msg=name)
    placed = json.loads((tmp_path / "warm_start.json").read_text())
    assert [line.partition(" ")[0] for line in placed["reset"]] == ["head/bias", "head/kernel"]
    assert {name.partition("/")[0] for name in placed["ignored"]} == {"mlm", "next_sentence"}
