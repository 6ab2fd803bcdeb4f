"""Labelled texts: read as they stand, cut where they are too long, the same on any number of hosts."""

import gzip
import json

import numpy as np
import pytest

from tests.pieces import Pieces
from vitax.core.errors import UserError
from vitax.data import bible
from vitax.data.glue import GLUE, TfdsLabelledText
from vitax.data.labelled_text import TextTable, VersePairs, shared, words_of
from vitax.data.labelled_text_pipeline import LabelledTextPipeline, encoded, padded
from vitax.specs.labelled_text import LabelledTextSpec

ROWS = [("good film", "no"), ("bad, a film", "yes"), ('is "it" not', "no"), ("the and", "yes"), ("to be", "no")]
CLS, SEP = 2, 3


def csv_file(folder):
    quoted = ['"{}",{}'.format(text.replace('"', '""'), label) for text, label in ROWS]
    (folder / "t.csv").write_text("\n".join(["text,label", *quoted]) + "\n", encoding="utf-8-sig")
    return str(folder / "t.csv")


def pipeline(source, **options):
    return LabelledTextPipeline(
        source,
        **{
            "vocab_size": 99,
            "length": 8,
            "tokenizer": Pieces(),
            "num_classes": 2,
            "batch_size": 2,
            "seed": 3,
            **options,
        },
    )


def test_tables_hold_the_same_whatever_their_format(tmp_path):
    (tmp_path / "t.tsv").write_text("\n".join(["label\tsentence", *(f"{b}\t{a}" for a, b in ROWS)]))
    lines = "\n".join(json.dumps({"text": a, "label": b}) for a, b in ROWS)
    (tmp_path / "t.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    sources = [
        TextTable(csv_file(tmp_path), 2),
        TextTable(str(tmp_path / "t.tsv"), 2, text="sentence"),
        TextTable(str(tmp_path / "t.jsonl.gz"), 2),
    ]
    for source in sources:
        assert [source.texts(i) for i in range(len(source))] == [(a.encode(),) for a, _ in ROWS]
        assert source.class_names == ("no", "yes")
        assert source.labels.tolist() == [0, 1, 0, 1, 0]
        assert source.fingerprint() == sources[0].fingerprint()
    part = TextTable(csv_file(tmp_path), 2, split="[3:]")
    assert (len(part), part.texts(0), part.labels.tolist()) == (2, (b"the and",), [1, 0])
    assert part.fingerprint() != sources[0].fingerprint()
    assert TextTable(csv_file(tmp_path), 2, classes=("yes", "no")).labels.tolist() == [1, 0, 1, 0, 1]


def test_a_regression_has_numbers(tmp_path):
    (tmp_path / "n.csv").write_text("a,b,score\nx,y,4.5\nz,w,0\n")
    source = TextTable(str(tmp_path / "n.csv"), 1, text="a", pair="b", label="score")
    assert (source.texts(1), source.class_names) == ((b"z", b"w"), None)
    batch = pipeline(source, shuffle=False).batch(0)
    assert batch["label"].dtype == np.float32
    assert batch["label"].tolist() == [4.5, 0.0]


def test_two_texts_are_laid_out_and_the_longer_gives_way():
    t = Pieces()
    rows = [encoded(t, (b"the a", b"good film"), 8), encoded(t, (b"the",), 8), encoded(t, (b"the " * 9, b"a"), 8)]
    made = padded(t, rows, 8)
    the, a, good, film = (int(t.encode(w)[0]) for w in (b"the", b"a", b"good", b"film"))
    assert made["tokens"].tolist() == [
        [CLS, the, a, SEP, good, film, SEP, 0],
        [CLS, the, SEP, 0, 0, 0, 0, 0],
        [CLS, the, the, the, the, SEP, a, SEP],
    ]
    assert made["token_types"].tolist() == [[0, 0, 0, 0, 1, 1, 1, 0], [0] * 8, [0] * 6 + [1, 1]]
    assert made["segment_ids"].sum(1).tolist() == [7, 3, 8]
    assert [len(x) for x in encoded(t, (b"the " * 9, b"a " * 9), 8)] == [3, 2]
    assert [len(x) for x in encoded(t, (b"a", b"the " * 9), 8)] == [1, 4]
    assert len(encoded(t, (b"the " * 9,), 8)[0]) == 6


def test_batches_are_a_function_of_seed_and_step(tmp_path):
    source = TextTable(csv_file(tmp_path), 2)
    whole = pipeline(source)
    ahead = whole.iterate(1)
    for n in (1, 2):
        made = next(ahead)
        for name, value in pipeline(source).batch(n).items():
            np.testing.assert_array_equal(made[name], value)
    ahead.close()
    parts = [pipeline(source, process_index=i, process_count=2).batch(1) for i in range(2)]
    for name, value in whole.batch(1).items():
        np.testing.assert_array_equal(np.concatenate([p[name] for p in parts]), value)
    evaluated = list(pipeline(source).eval_batches())
    assert np.concatenate([b["index"][b["mask"]] for b in evaluated]).tolist() == list(range(5))
    assert not evaluated[-1]["segment_ids"][~evaluated[-1]["mask"]].any()


def alike(pair):
    return shared(*(words_of(text.decode()) for text in pair))


def test_verse_pairs_are_the_same_verse_or_one_nearby():
    source = VersePairs()
    assert len(source) == 3_779
    assert abs(source.labels.mean() - 0.5) < 0.03
    train, test = VersePairs(part="train"), VersePairs(part="test")
    assert len(train) + len(test) == len(source)
    same = [source.texts(i) for i in np.flatnonzero(source.labels)]
    assert same[0][0].startswith(b"The book of the generation of Jesus Christ")
    assert same[0][1].startswith(b"The book of the generation of Jesus Christ")

    # A wrong one is the most alike of those nearby, and still less alike than the right one.
    verses = bible.read("", "web")
    pairs = [source.texts(i) for i in range(25)]  # Matthew 1
    assert 0 < source.labels[:25].sum() < 25
    for i, (pair, label) in enumerate(zip(pairs, source.labels)):
        if label:
            assert pair[1].decode() == verses[bible.MATTHEW][i]
            continue
        found = verses[bible.MATTHEW].index(pair[1].decode())
        assert 0 < abs(found - i) <= source.distance
        assert alike(pair) == max(
            alike((pair[0], verses[bible.MATTHEW][j].encode())) for j in range(max(i - 8, 0), min(i + 9, 25)) if j != i
        )
    means = [np.mean([alike(source.texts(i)) for i in np.flatnonzero(source.labels == k)]) for k in (0, 1)]
    assert means[1] > 2 * means[0]
    few = VersePairs(part="train", limit=100)
    assert few.labels.sum() == 50
    assert few.fingerprint() != train.fingerprint()
    fewer = VersePairs(part="train", limit=60)
    assert [few.texts(i) for i in range(60)] == [fewer.texts(i) for i in range(60)]


def test_the_tasks_of_glue_know_their_texts():
    assert TfdsLabelledText(2, "glue/sst2").prepared.features == ("sentence", "label")
    assert TfdsLabelledText(2, "glue/qqp").prepared.features == ("question1", "question2", "label")
    assert TfdsLabelledText(2, "glue/mrpc:2.0.0").prepared.features == ("sentence1", "sentence2", "label")
    assert TfdsLabelledText(2, "imdb_reviews").prepared.features == ("text", "label")
    assert TfdsLabelledText(2, "glue/sst2", text_keys=("other",)).prepared.features == ("other", "label")
    assert GLUE["stsb"].num_classes == 1


def test_texts_come_from_a_prepared_data_set(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")

    class TinyTexts(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            label = tfds.features.ClassLabel(names=["other", "same"])
            features = {"sentence1": tfds.features.Text(), "sentence2": tfds.features.Text(), "label": label}
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for i in range(5):
                yield i, {"sentence1": f"a{i}", "sentence2": f"b{i}", "label": i % 2}

    builder = TinyTexts(data_dir=tmp_path, file_format="array_record")
    builder.download_and_prepare()
    source = TfdsLabelledText(2, split="train[1:]", data_dir=builder.data_path, text_keys=("sentence1", "sentence2"))
    texts = sorted(source.texts(i) for i in range(len(source)))
    assert len(texts) == 4
    assert all(a[:1] + b[:1] == b"ab" and a[1:] == b[1:] for a, b in texts)
    assert [int(source.texts(i)[0][1:]) % 2 for i in range(4)] == source.labels.tolist()
    assert source.class_names == ("other", "same")
    with pytest.raises(UserError, match='no feature "text".*Set text_keys and label_key'):
        len(TfdsLabelledText(2, data_dir=builder.data_path))


def test_texts_keep_the_breaks_that_are_no_ends_of_lines(tmp_path):
    texts = ["a\u2028b", "c\x85d", "e\x1cf", "g"]
    (tmp_path / "t.csv").write_text("".join(["text,label\n", *(f"{t},x\n" for t in texts)]), newline="")
    (tmp_path / "q.csv").write_text('text,label\r\n"a\r\nb",x\r\n', newline="")
    lines = "".join(json.dumps({"text": t, "label": "x"}, ensure_ascii=False) + "\n" for t in texts)
    (tmp_path / "t.jsonl").write_text(lines, newline="")
    for name in ("t.csv", "t.jsonl"):
        source = TextTable(str(tmp_path / name), 1)
        assert [source.texts(i)[0].decode() for i in range(len(source))] == texts
    assert TextTable(str(tmp_path / "q.csv"), 1).texts(0) == (b"a\r\nb",)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", b"text,label\na,x\nb\n", r"t.csv, row 2: has no label \(column \"label\"\)"),
        ("t.csv", b"text,label\na,x\nb,\n", r"t.csv, row 2: has no label"),
        ("t.csv", b"label,text\nx,a\nx\n", r't.csv, row 2: field "text" is NoneType; expected text'),
        ("t.csv", b"text,label\nf\xfcr,x\n", r"t.csv: not UTF-8 text"),
        ("t.csv", b"text,label\n" + b"a" * 200_000 + b",x\n", r"t.csv: cannot be read as a table behind row 0"),
        ("t.csv.gz", gzip.compress(b"text,label\na,x\n")[:-9], r"t.csv.gz: not a whole gzip file"),
        ("t.jsonl", b'{"text": "a", "label": 0}\n{"text": "b"}\n', r"t.jsonl, line 2: has no label"),
        ("t.jsonl", b'{"text": "a", "label": 0}\n{"label": 1}\n', r't.jsonl, line 2: has no field "text"'),
        ("t.jsonl", b'{"text": "a", "label": 0}\n{"text": ', r"t.jsonl, line 2: is not JSON"),
        ("t.jsonl.gz", gzip.compress(b'{"text": "a", "label": 0}\n')[:-9], r"t.jsonl.gz: not a whole gzip file"),
    ],
)
def test_where_a_table_is_wrong_is_said(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        len(TextTable(str(tmp_path / name), 2))


def test_labels_that_are_no_class_are_refused(tmp_path):
    class Unlabelled(TextTable):
        labels = np.array([0, 1, -1, 0, 1])

    with pytest.raises(UserError, match=r"t.csv, row 3 has label -1; expected 0 to 1 \(data.num_classes\)"):
        pipeline(Unlabelled(csv_file(tmp_path), 2)).check()
    Unlabelled.labels = np.array([0, 2, 1, 0, 1])
    with pytest.raises(UserError, match="row 2 has label 2"):
        pipeline(Unlabelled(csv_file(tmp_path), 2)).check()
    Unlabelled.labels = np.array([0, 1, np.nan, 0, 1])
    with pytest.raises(UserError, match="row 3 has label nan; expected a finite number"):
        pipeline(Unlabelled(csv_file(tmp_path), 1), num_classes=1).check()
    pipeline(TextTable(csv_file(tmp_path), 2)).check()


def test_lengths_and_vocabularies_without_room_are_refused(tmp_path):
    spec = {"source": {"kind": "verse_pairs"}, "num_examples": 1, "tokenizer": {"kind": "bytes"}}
    with pytest.raises(UserError, match=r"data.length: 2; \[CLS\] A \[SEP\] has at least 3 tokens"):
        LabelledTextSpec(**spec, length=2).check("data")
    with pytest.raises(UserError, match="data.length: 4; an example with its marks has at least 5 tokens"):
        pipeline(VersePairs(limit=2), length=4).check()
    with pytest.raises(UserError, match=r"data.vocab_size: 9, but there are token ids up to \d+"):
        pipeline(TextTable(csv_file(tmp_path), 2), vocab_size=9)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text": "texd"}, 'data.source.text: .* has no column "texd". Did you mean "text"'),
        ({"classes": ("no", "maybe")}, r"t.csv, row 2: label 'yes'; expected one of no, maybe"),
        ({"num_classes": 1}, r"row 1: label 'no'; expected a number \(num_classes is 1\)"),
        ({"path": "absent.csv"}, "no such file. Expected .csv, .tsv or .jsonl"),
    ],
)
def test_what_is_wrong_with_a_table_is_said(tmp_path, changes, message):
    source = TextTable(**{"path": csv_file(tmp_path), "num_classes": 2, **changes})
    with pytest.raises(UserError, match=message):
        _ = source.labels
