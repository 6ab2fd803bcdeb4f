"""Files of text: gzipped whatever their name, damaged ones named, by every source alike."""

import gzip

import pytest

from tests.pieces import Pieces
from tests.questions import squad
from vitax.core.errors import UserError
from vitax.data import bible
from vitax.data.documents import TextDocuments
from vitax.data.labelled_text import TextTable
from vitax.data.pairs import Parallel
from vitax.data.prompts import PromptCompletion
from vitax.data.squad import Squad
from vitax.data.text import JSONLines, Text
from vitax.data.tokenizers import Bytes

VERSES = ("verse\n" * int(bible.verses_of_chapters().sum())).encode()
# name of a file -> what it holds, and a reader of it.
READERS = {
    "text.txt": (b"to be", lambda path: Text(path, Bytes(), 8).stream),
    "lines.jsonl": (b'{"text": "to be"}\n', lambda path: JSONLines(path, Bytes(), 8).stream),
    "documents.txt": (b"to be\n", lambda path: TextDocuments(path, Pieces(), 8).corpus.stream),
    "pairs.txt": (b"to be\n", lambda path: Parallel(path, path, Bytes(), 8).rows.source),
    "prompts.jsonl": (b'{"prompt": "a", "completion": "b"}\n', lambda path: PromptCompletion(path, Bytes(), 8)[0]),
    "table.csv": (b"text,label\na,0\n", lambda path: TextTable(path, 1).texts(0)),
    "squad.json": (squad("a", ("q", "b", [])).encode(), lambda path: Squad(path, Pieces(), 8).questions),
    "bible.txt": (VERSES, lambda path: bible.read(path, "web")),
}


@pytest.mark.parametrize("name", READERS)
def test_gzip_is_told_by_its_content_and_damage_by_its_file(name, tmp_path):
    content, read = READERS[name]
    file = tmp_path / name
    file.write_bytes(content)
    plain = str(read(str(file)))
    file.write_bytes(gzip.compress(content))
    assert str(read(str(file))) == plain
    whole = gzip.compress(content)
    for damaged in (whole[:-5], whole[:12] + b"\xff\xff\xff" + whole[15:]):
        file.write_bytes(damaged)
        with pytest.raises(UserError, match=rf"{name}: not a whole gzip file"):
            read(str(file))
