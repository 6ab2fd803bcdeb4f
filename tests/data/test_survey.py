"""Which files can be used, and which are the same."""

import os

import pytest

from tests.images import of_every_kind, write
from vitax.core.errors import UserError
from vitax.data import survey as surveys
from vitax.data.image_files import decode_image
from vitax.data.survey import check, survey, twins

FILES = of_every_kind()


@pytest.mark.parametrize("name", FILES)
def test_every_kind_passes_and_truncated_ones_do_not(name):
    check(FILES[name])
    for cut in (FILES[name][: len(FILES[name]) // 2], b"GIF89a", b""):
        with pytest.raises(UserError, match="not a readable image"):
            check(cut)
        with pytest.raises(UserError):
            decode_image(cut)  # the check is as strict as training, no more and no less


def test_bad_files_are_named_with_the_reason(tmp_path):
    bad = {"cut.jpg": FILES["rgb.jpg"][:300], "empty.png": b"", "text.webp": b"hello"}
    write(tmp_path, FILES | bad)
    names = sorted(FILES | bad | {"absent.png": b""})
    told = []
    found = survey(tmp_path, names, told.append)
    assert [name for name, _ in found.unreadable] == ["absent.png", "cut.jpg", "empty.png", "text.webp"]
    reasons = dict(found.unreadable)
    assert reasons["absent.png"] == "cannot be read (No such file or directory)"
    assert reasons["empty.png"] == "empty file"
    assert "68656c6c" in reasons["text.webp"]
    assert told == [len(names)]
    assert found.digests.keys() == set(names) - {"absent.png"}


def test_twins_are_found_by_content(tmp_path):
    write(tmp_path, {"a.png": FILES["rgb.png"], "b.png": FILES["rgba.png"], "c.jpg": FILES["rgb.png"]})
    found = survey(tmp_path, ["a.png", "b.png", "c.jpg"])
    assert twins(found.digests.items()) == [["a.png", "c.jpg"]]


def test_every_file_is_opened_once(tmp_path, monkeypatch):
    write(tmp_path, FILES)
    opened = []
    original = surveys.check_file
    monkeypatch.setattr(surveys, "check_file", lambda path: opened.append(os.path.basename(path)) or original(path))
    survey(tmp_path, sorted(FILES), threads=3)
    assert sorted(opened) == sorted(FILES)
