"""Text in windows: every token once, documents marked, batches a pure function of (seed, step)."""

import gzip
import json
import re

import numpy as np
import pytest

from tests.tokenizer_files import write_bpe
from vitax import tokenizer_training
from vitax.core.errors import UserError
from vitax.core.ramp import Ramp
from vitax.data import token_cache
from vitax.data.documents import TextDocuments
from vitax.data.text import EmbeddedText, JSONLines, Text
from vitax.data.text_pipeline import TextPipeline
from vitax.data.tokenizers import BPE, Bytes
from vitax.specs.text import TextSpec

DOCUMENTS = [b"first text", "zw\u00f6lf".encode(), b"the third, a longer one"]
T = 8


@pytest.fixture
def source(tmp_path):
    (tmp_path / "a.txt").write_bytes(DOCUMENTS[0])
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(b"---".join(DOCUMENTS[1:])))
    (tmp_path / "ignored.png").write_bytes(b"no text")
    return Text(str(tmp_path), Bytes(), T, separator="---")


def pipeline(source, **options):
    return TextPipeline(source, **{"vocab_size": 257, "batch_size": 4, "seed": 3, **options})


def test_bytes_and_back():
    text = "zw\u00f6lf \U0001f600".encode()
    assert Bytes().decode(Bytes().encode(text)) == text
    assert Bytes().decode([256, 97, 256]) == b"a"
    assert Bytes().token_bytes.sum() == 256


def test_every_token_is_predicted_once_and_knows_its_document(source):
    mark = [256]
    stream = [t for d in DOCUMENTS for t in [*mark, *d]] + mark
    windows = source.gather(np.arange(len(source)))
    real = windows["segment_ids"] > 0
    np.testing.assert_array_equal(windows["tokens"][real], stream[:-1])
    np.testing.assert_array_equal(windows["targets"][real], stream[1:])
    assert not windows["tokens"][~real].any()
    # A document begins at its mark: segments change there, and only there.
    for tokens, segments in zip(windows["tokens"], windows["segment_ids"]):
        for t in range(1, T):
            if segments[t]:
                assert (segments[t] != segments[t - 1]) == (tokens[t] == 256)


def test_json_lines_are_the_same_documents(source, tmp_path):
    whole = source.stream
    folder = tmp_path / "lines"
    folder.mkdir()
    rows = [json.dumps({"id": i, "body": text.decode()}) for i, text in enumerate(DOCUMENTS)]
    (folder / "a.jsonl").write_text(rows[0] + "\n\n")
    (folder / "b.jsonl.gz").write_bytes(gzip.compress("\n".join(rows[1:]).encode()))
    (folder / "c.txt").write_text("not of it")
    lines = JSONLines(str(folder), Bytes(), T, "body")
    np.testing.assert_array_equal(lines.stream, whole)
    assert len(JSONLines(str(folder / "a.jsonl"), Bytes(), T, "body").stream) == len(DOCUMENTS[0]) + 2
    assert len(Text(str(folder), Bytes(), T).stream) == len("not of it") + 2
    for text, message in (
        ('{"body": 1}', 'line 1: field "body" is int; expected text'),
        ('{"bodi": "x"}', 'line 1: has no field "body". Did you mean "bodi"'),
        ('\n["x"]', "line 2: expected an object"),
        ('{"body": ', "line 1: is not JSON"),
        ('{"body": "\\ud800"}', 'line 1: field "body" holds half a character'),
    ):
        (folder / "a.jsonl").write_text(text)
        with pytest.raises(UserError, match=re.escape(message)):
            _ = JSONLines(str(folder), Bytes(), T, "body").stream
    (folder / "a.jsonl.gz").write_bytes(gzip.compress(b"{}")[:-3])
    with pytest.raises(UserError, match="a.jsonl.gz: not a whole gzip file"):
        _ = JSONLines(str(folder / "a.jsonl.gz"), Bytes(), T, "body").stream


def test_the_place_of_what_is_not_utf_8_is_said(tmp_path):
    tokenizer = write_bpe(tmp_path)
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text("one---two")
    (tmp_path / "text" / "b.txt").write_bytes(b"three---f\xfcr")
    for separator, place in ((None, r"b\.txt"), ("---", r"b\.txt, document 2")):
        with pytest.raises(UserError, match=rf"{place}: text: not UTF-8 \(byte 0xfc"):
            _ = Text(str(tmp_path / "text"), tokenizer, T, separator).stream
    with pytest.raises(UserError, match=r"b\.txt, document 1: text: not UTF-8"):
        _ = TextDocuments(str(tmp_path / "text"), tokenizer, T).corpus
    with pytest.raises(UserError, match=r"b\.txt: not UTF-8"):
        list(tokenizer_training.of_paths([str(tmp_path / "text")]))


def test_ids_stay_in_memory_where_the_disk_fills(tmp_path, monkeypatch, caplog):
    def parts():
        yield np.arange(5, dtype=np.uint16)
        yield np.arange(3, dtype=np.uint16)

    class Full:
        def __init__(self, file):
            self.file, self.name = file, file.name

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.file.close()

        def write(self, content):
            raise OSError(28, "No space left on device")

    opened = token_cache.tempfile.NamedTemporaryFile
    monkeypatch.setattr(token_cache.tempfile, "NamedTemporaryFile", lambda **options: Full(opened(**options)))
    ids = token_cache.kept(tmp_path, "key", np.dtype(np.uint16), parts)
    assert ids.tolist() == [0, 1, 2, 3, 4, 0, 1, 2]
    assert list(tmp_path.iterdir()) == []
    assert "cannot be written" in caplog.text


def test_splits_are_of_documents(source):
    first = Text(source.path, Bytes(), T, "---", "[:1]")
    assert bytes(first.stream[1:-1].astype(np.uint8)) == DOCUMENTS[0]
    rest = Text(source.path, Bytes(), T, "---", "[1:]")
    assert len(first.stream) + len(rest.stream) == len(source.stream) + 1
    assert first.fingerprint() != rest.fingerprint()


def test_batches_are_a_function_of_seed_and_step(source):
    whole = pipeline(source)
    ahead = whole.iterate(2)
    for n in (2, 3):
        made = next(ahead)
        for name, value in pipeline(source).batch(n).items():
            np.testing.assert_array_equal(made[name], value)
    ahead.close()
    parts = [pipeline(source, process_index=i, process_count=2).batch(1) for i in range(2)]
    for name, value in whole.batch(1).items():
        np.testing.assert_array_equal(np.concatenate([p[name] for p in parts]), value)
    assert (pipeline(source, seed=4).batch(0)["index"] != whole.batch(0)["index"]).any()


def test_an_epoch_and_an_evaluation_hold_every_window_once(source):
    n = len(source)
    assert n % 4
    batches = [pipeline(source).batch(i) for i in range(n)]
    assert np.bincount(np.concatenate([b["index"] for b in batches])).tolist() == [4] * n
    evaluated = list(pipeline(source).eval_batches())
    index = np.concatenate([b["index"][b["mask"]] for b in evaluated])
    np.testing.assert_array_equal(index, np.arange(n))
    last = evaluated[-1]
    assert not last["segment_ids"][~last["mask"]].any()


def test_the_embedded_plays_are_whole():
    text = EmbeddedText(Bytes(), 128, split="[-1:]")
    assert bytes(text.stream[1:12].astype(np.uint8)) == b"THE TEMPEST"
    assert (EmbeddedText(Bytes(), 128).stream == 256).sum() == 6 + 1


def test_what_is_wrong_with_text_is_said(source, tmp_path):
    with pytest.raises(UserError, match=r"data.vocab_size: 200, but there are token ids up to 256"):
        pipeline(source, vocab_size=200)
    with pytest.raises(UserError, match="no such file or folder. Expected .txt or .gz"):
        len(Text(str(tmp_path / "absent"), Bytes(), T))
    (tmp_path / "b.txt.gz").write_bytes(b"no gzip")
    with pytest.raises(UserError, match=r"b.txt.gz: not a whole gzip file"):
        len(Text(str(tmp_path), Bytes(), T))
    with pytest.raises(UserError, match="is not a regular expression"):
        len(Text(str(tmp_path / "a.txt"), Bytes(), T, separator="("))
    spec = TextSpec({"kind": "embedded_text"}, num_examples=7, length=128)
    with pytest.raises(UserError, match=r"the source holds 5157 windows of 128 tokens. Set --config.data.num_examples"):
        spec.build_source()
    with pytest.raises(UserError, match=r"data.vocab_size: 100, but the tokenizer has 257 ids"):
        TextSpec({"kind": "embedded_text"}, 1, 8, vocab_size=100).build_source()
    with pytest.raises(UserError, match=r'data.source.paht: unknown field. Did you mean "path"'):
        TextSpec({"kind": "text", "paht": "x"}, 1, 8).check("data")


def test_long_text_is_tokenised_once_and_never_stale(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("VITAX_TOKENS", str(tmp_path / "kept"))
    monkeypatch.setattr("vitax.data.text.KEPT_BYTES", 10)
    (tmp_path / "a.txt").write_text("the cat---the hat---a bat")
    made = write_bpe(tmp_path)

    def stream(tokenizer=made, split=""):
        return Text(str(tmp_path / "a.txt"), tokenizer, T, "---", split).stream

    first = stream()
    assert isinstance(first, np.memmap)
    mark = made.end_of_document
    parts = [[mark, *made.encode(text)] for text in (b"the cat", b"the hat", b"a bat")]
    np.testing.assert_array_equal(first, [i for part in parts for i in part] + [mark])
    [file] = (tmp_path / "kept").iterdir()
    with monkeypatch.context() as patch:  # the second time nothing is tokenised
        encode = BPE.encode
        patch.setattr(BPE, "encode", lambda self, text: encode(self, text[:0]))
        np.testing.assert_array_equal(stream(), first)
    # Other text, another split and another tokenizer are other files.
    np.testing.assert_array_equal(stream(split="[1:]"), [i for part in parts[1:] for i in part] + [mark])
    (tmp_path / "a.txt").write_text("the cat---the rat---a bat")
    assert (stream() != first).any()
    other = BPE(str(tmp_path), end="the")
    assert stream(other)[0] == other.end_of_document != mark
    assert len(list((tmp_path / "kept").iterdir())) == 4
    # A damaged one is made again.
    (tmp_path / "a.txt").write_text("the cat---the hat---a bat")
    raw = bytearray(file.read_bytes())
    for damaged in (bytes([raw[0] ^ 1]) + raw[1:], raw[:-2], b""):
        file.write_bytes(damaged)
        np.testing.assert_array_equal(stream(), parts[0] + parts[1] + parts[2] + [mark])
    assert caplog.text.count("is damaged; the text is tokenised again") == 3


def test_tokenising_that_fails_leaves_nothing(tmp_path):
    def make():
        yield np.zeros(3, np.uint16)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        token_cache.kept(tmp_path, "key", np.dtype(np.uint16), make)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_done_without(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    ids = np.arange(3, dtype=np.uint16)
    made = token_cache.kept(tmp_path / "file" / "below", "key", ids.dtype, lambda: iter([ids, ids]))
    np.testing.assert_array_equal(made, [*ids, *ids])
    assert "VITAX_TOKENS names another" in caplog.text


def test_batches_that_grow_lose_no_window(source):
    options = {"ramp": Ramp(start=1, examples=10), "shuffle": False}
    grown = pipeline(source, **options)
    taken = [batch["index"][batch["mask"]] for batch in map(grown.batch, range(12))]
    assert [len(t) for t in taken[:2]] == [1, 2]
    assert len(taken[-1]) == 4
    joined = np.concatenate(taken)
    np.testing.assert_array_equal(joined, np.arange(len(joined)) % len(source))
    halves = [pipeline(source, **options, process_index=i, process_count=2).batch(3) for i in (0, 1)]
    for name, values in grown.batch(3).items():
        np.testing.assert_array_equal(np.concatenate([half[name] for half in halves]), values)
    with pytest.raises(UserError, match=r"data.batch_ramp.start: 9, but batches grow to 8 \(data.batch_size\)"):
        TextSpec({"kind": "embedded_text"}, 7, 128, batch_size=8, batch_ramp={"start": 9, "examples": 4}).check("data")
