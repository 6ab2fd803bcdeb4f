"""``vitax predict`` of texts: what each head gives, and what is refused."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from tests.checkpoint.test_text_files import golden, write
from tests.conftest import tiny_config
from tests.published import nested
from vitax import predict_text, recipe
from vitax import run as vitax_run
from vitax.__main__ import main
from vitax.construct import construct
from vitax.models.table import MODELS
from vitax.text_model import TextModel
from vitax.weights import reading, writing

# Of the 19 ids of the golden models.
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklm", "##x")
PAD, CLS, SEP, MASK = 0, 2, 3, 4


def ids(text):
    return [WORDS.index(word) for word in text.split()]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Head -> a checkpoint with it."""
    root, made = tmp_path_factory.mktemp("text"), {}
    for head in ("pretraining", "classification", "span", "model"):
        more = {"id2label": {"0": "bad", "1": "fair", "2": "good"}} if head == "classification" else {}
        folder = Path(write(root / head, f"bert_hf_{head}", **more))
        (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
        made[head] = str(folder)
    return made


def outputs(folder, tokens, types=None):
    """The model on one unpadded sequence."""
    found = reading.load(folder)
    model = construct(MODELS, found.recipe["model"], "model")
    types = np.zeros((1, len(tokens)), int) if types is None else np.array([types])
    apply = jax.jit(model.apply, compiler_options={"xla_backend_optimization_level": 0})
    return apply({"params": nested(found.params)}, np.array([tokens]), token_types=types)


def run(capsys, folder, *words):
    assert main(["predict", "--checkpoint", folder, "--json", *words]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys, folder, *words):
    assert main(["predict", "--checkpoint", folder, *words]) == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_masks_are_filled(folders, capsys):
    texts = ["a [MASK] b", "[MASK] c d [MASK] e"]
    rows = run(capsys, folders["pretraining"], "--text", texts[0], "--text", texts[1], "--topk", "3")
    assert [row["text"] for row in rows] == texts
    for row, words, places in zip(rows, ("a [MASK] b", "[MASK] c d [MASK] e"), ([2], [1, 4])):
        likely = jax.nn.softmax(outputs(folders["pretraining"], [CLS, *ids(words), SEP]).logits[0])
        assert len(row["masks"]) == len(places)
        for mask, place in zip(row["masks"], places):
            best = np.argsort(-likely[place])[:3]
            assert [guess["index"] for guess in mask["topk"]] == best.tolist()
            assert [guess["token"] for guess in mask["topk"]] == [WORDS[i] for i in best]
            np.testing.assert_allclose([g["probability"] for g in mask["topk"]], likely[place][best], rtol=1e-4)


def test_texts_and_pairs_are_classified(folders, capsys):
    folder = folders["classification"]
    rows = run(capsys, folder, "--text", "a b", "--text", "c", "--pair", "d e", "--pair", "f", "--topk", "9")
    want = jax.nn.softmax(outputs(folder, [CLS, *ids("a b"), SEP, *ids("d e"), SEP], [0] * 4 + [1] * 3).logits[0])
    assert (rows[0]["text"], rows[0]["pair"], len(rows)) == ("a b", "d e", 2)
    found = {guess["label"]: guess["probability"] for guess in rows[0]["topk"]}
    np.testing.assert_allclose([found[name] for name in ("bad", "fair", "good")], want, rtol=1e-4)
    assert sum(found.values()) == pytest.approx(1)
    (single,) = run(capsys, folder, "--text", "a b", "--topk", "1")
    assert (len(single["topk"]), "pair" in single) == (1, False)


def test_one_output_is_a_value(tmp_path, capsys):
    def cut(weights):
        return weights | {name: weights[name][:1] for name in ("classifier.weight", "classifier.bias")}

    folder = write(tmp_path, "bert_hf_classification", cut)
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    (row,) = run(capsys, folder, "--text", "a b")
    want = outputs(folder, [CLS, *ids("a b"), SEP]).logits[0, 0]
    assert row == {"text": "a b", "value": pytest.approx(float(want), rel=1e-4)}


def test_questions_are_answered(folders, capsys, tmp_path):
    folder, passage = folders["span"], "B  c d, e."
    (row,) = run(capsys, folder, "--question", "a", "--passage", passage, "--topk", "2")
    # The commas are unknown words: [CLS] a [SEP] b c d , e . would be one token too long.
    model = TextModel.load(folder)
    assert model.context == 9
    for guess in row["topk"]:
        assert passage[guess["start"] : guess["end"]] == guess["answer"]
    (tmp_path / "passage.txt").write_text(passage)
    (same,) = run(capsys, folder, "--question", "a", "--passage", str(tmp_path / "passage.txt"), "--topk", "2")
    assert same == row
    # A passage that fits is one window: the span is what the logits say.
    (short,) = run(capsys, folder, "--question", "a", "--passage", "b c d e", "--topk", "1")
    logits = outputs(folder, [CLS, *ids("a"), SEP, *ids("b c d e"), SEP], [0] * 3 + [1] * 5).logits[0, 3:7]
    scores = np.where(np.tri(4).T, logits[:, :1] + logits[:, 1], -np.inf)
    first, last = np.unravel_index(scores.argmax(), (4, 4))
    assert short["topk"][0]["answer"] == "b c d e"[2 * first : 2 * last + 1]


def test_embeddings_do_not_depend_on_what_is_beside_them(folders, tmp_path, capsys):
    folder, texts = folders["model"], ("a b c d e f", "g", "h i")
    out = tmp_path / "out.npz"
    words = [word for text in texts for word in ("--text", text)]
    rows = run(capsys, folder, *words, "--features", str(out))
    with np.load(out) as file:
        named, features = tuple(file["texts"]), file["features"]
    assert named == texts
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, rtol=1e-5)
    for text, have in zip(texts, features):
        mean = outputs(folder, [CLS, *ids(text), SEP]).features[0].mean(0)
        np.testing.assert_allclose(have, mean / np.linalg.norm(mean), atol=1e-5)
    best = int(np.argmax((features @ features[0])[1:])) + 1
    assert rows[0]["topk"][0] == {
        "text": texts[best],
        "index": best,
        "similarity": pytest.approx(float(features[0] @ features[best]), abs=1e-6),
    }


def test_texts_that_are_cut_are_counted(folders, capsys):
    long = "a b c d e f g h i"
    assert main(["predict", "--checkpoint", folders["classification"], "--text", "a", "--text", long]) == 0
    assert "1 of 2 texts are longer than 9 tokens, and were cut." in capsys.readouterr().err


def test_weights_that_vitax_wrote_bring_their_tokenizer(folders, tmp_path, capsys):
    source = tmp_path / "source"
    shutil.copytree(folders["pretraining"], source)
    own = tmp_path / "own.npz"
    writing.run(str(source), own, "vitax")
    shutil.rmtree(source)
    words = ("--text", "a [MASK] b")
    assert run(capsys, str(own), *words) == run(capsys, folders["pretraining"], *words)


def test_rows_for_a_person(folders, capsys, tmp_path):
    out = tmp_path / "rows.jsonl"
    words = ["predict", "--checkpoint", folders["classification"], "--text", "a", "--pair", "b"]
    assert main([*words, "--topk", "1", "--output", str(out)]) == 0
    (row,) = map(json.loads, out.read_text().splitlines())
    best = row["topk"][0]
    assert predict_text.lines([row]) == [f"a | b: {best['label']} {best['probability']:.3f}"]
    guess = {"token": "x", "probability": 0.25}
    assert predict_text.lines([{"text": "t", "masks": [{"topk": [guess]}] * 2}]) == ["t: x 0.250 / x 0.250"]
    assert predict_text.lines([{"text": "t", "value": 1.5}]) == ["t: 1.5000"]


@pytest.mark.parametrize(
    ("head", "words", "message"),
    [
        ("pretraining", ["--text", "a b"], '--text "a b": holds no [MASK]; write it where a word is missing.'),
        ("pretraining", ["--text", "a b c d e f g [MASK]"], "1 tokens more than fit into 9."),
        ("pretraining", ["--question", "a", "--passage", "b"], 'its head is "pretraining"; expected --text'),
        ("pretraining", ["--text", "a [MASK]", "--pair", "b"], "expected --text 'words and a [MASK].'"),
        ("model", ["--text", "a"], 'its head is "none"; expected --text TEXT --features FILE.npz.'),
        ("span", ["--text", "a"], 'its head is "span"; expected --question TEXT --passage TEXT|FILE.'),
        ("span", ["--question", "a"], "--question and --passage go together."),
        ("span", ["--question", "a b c d e f", "--passage", "b"], "6 tokens leave no room for a passage in 9"),
        ("classification", ["--text", "a", "--text", "b", "--pair", "c"], "2 --text and 1 --pair; give one --pair to"),
        ("classification", ["--text", "a", "image.png"], "--text and --question go without image files"),
        ("classification", ["--text", "a", "--format", "csv"], "go without image files, --attention and --format csv"),
        ("classification", [], "nothing to look at: give image files, or --text or --question"),
    ],
)
def test_what_does_not_fit_is_refused(folders, capsys, head, words, message):
    assert message in refused(capsys, folders[head], *words)


def test_other_checkpoints_are_refused(folders, capsys, tmp_path):
    gpt = write(tmp_path / "gpt", "gpt_hf_gpt2")
    assert "this gpt takes a prompt (vitax generate --prompt TEXT)" in refused(capsys, gpt, "--text", "a")
    bare = write(tmp_path / "bare", "bert_hf_pretraining")
    assert "Expected a folder with tokenizer.json, or vocab.txt" in refused(capsys, bare, "--text", "a [MASK]")
    (tmp_path / "bare" / "vocab.txt").write_text("\n".join([*WORDS, "n"]) + "\n")
    message = refused(capsys, bare, "--text", "a [MASK]")
    assert "the model has 19 token ids, its tokenizer 20: it is another's." in message
    assert golden("bert_hf_pretraining")[1]["vocab_size"] == 19


@pytest.mark.slow
def test_a_workdir_predicts_with_the_tokenizer_and_the_classes_that_it_carries(tmp_path, capsys):
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    rows = [f"{text},{label}" for text, label in (("a b", "no"), ("c", "yes"), ("d e", "no"), ("f", "yes"))] * 2
    (tmp_path / "table.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    data = {"source": {"kind": "text_table", "path": str(tmp_path / "table.csv")}, "num_examples": 8, "length": 8}
    config = tiny_config(
        model={"kind": "bert", "width": 16, "depth": 1, "mlp_dim": 16, "num_heads": 2},
        objective={"kind": "text_classification"},
        data=data | {"vocab_size": 19, "batch_size": 8, "tokenizer": {"kind": "wordpiece", "path": str(tmp_path)}},
        evaluators={},
        duration={"steps": 1},
    )
    assert vitax_run.train(recipe.build(config), tmp_path / "run") == 0
    capsys.readouterr()
    (tmp_path / "vocab.txt").unlink()
    rows = run(capsys, str(tmp_path / "run"), "--text", "a b c d e f g h i", "--text", "c")
    assert [{guess["label"] for guess in row["topk"]} for row in rows] == [{"no", "yes"}] * 2


def test_verbs_of_images_refuse_models_of_text(folders, capsys, tmp_path):
    for name in ("a/1", "b/2"):
        (tmp_path / name).parent.mkdir()
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / f"{name}.png")
    checkpoint = folders["classification"]
    assert "vitax predict --text fills" in refused(capsys, checkpoint, str(tmp_path))
    assert "gives embeddings alone" in refused(capsys, folders["model"], str(tmp_path))
    words = ["finetune", "--checkpoint", checkpoint, "--data", str(tmp_path), "--workdir", str(tmp_path / "run")]
    assert main(words) == 2
    assert f"--config.init_from.checkpoint={checkpoint}" in capsys.readouterr().err
