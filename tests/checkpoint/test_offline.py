import hashlib
import json

import numpy as np
import pytest

from tests.checkpoint.conftest import state_at
from vitax.checkpoint import digest, offline, seal, store
from vitax.core import tree


def test_arrays_are_those_that_were_saved(run, monkeypatch):
    monkeypatch.setattr(offline, "GROUP_BYTES", 1000)  # several groups
    found = dict(offline.arrays(run / "checkpoints", 2))
    want = dict(tree.named_leaves(state_at(2)))
    assert found.keys() == want.keys()
    for name, array in found.items():
        np.testing.assert_array_equal(array, np.asarray(want[name]), err_msg=name)
    assert offline.problems(run / "checkpoints", 2) == []


def test_some_arrays_can_be_read_alone(run):
    assert [name for name, _ in offline.arrays(run / "checkpoints", 1, ["params/bias"])] == ["params/bias"]


def test_one_bit_flipped_in_any_file_is_named(run, flip):
    folder = run / "checkpoints" / "2"
    for path in [p for p in folder.rglob("*") if p.is_file() and p.stat().st_size]:
        good = path.read_bytes()
        flip(path, 8 * (len(good) // 2))
        found = offline.problems(run / "checkpoints", 2)
        assert any(path.name in line for line in found), (path, found)
        path.write_bytes(good)
    assert offline.problems(run / "checkpoints", 2) == []


def test_a_wrong_array_is_named_where_no_seal_tells(run):
    folder = run / "checkpoints" / "2"
    (folder / seal.NAME).unlink()
    path = folder / "_CHECKPOINT_METADATA"
    custom = json.loads(path.read_text())
    payload = json.loads(custom["custom_metadata"]["payload"])
    payload["digests"]["params/bias"] = payload["digests"]["params/bias"][:-1] + "?"
    text = json.dumps(payload)
    custom["custom_metadata"] = {"payload": text, "sha256": hashlib.sha256(text.encode()).hexdigest()}
    path.write_text(json.dumps(custom))
    assert offline.problems(run / "checkpoints", 2) == ["array params/bias is not what was written"]
    with pytest.raises(store.Damaged, match="params/bias"):
        list(offline.arrays(run / "checkpoints", 2))


def test_all_that_is_damaged_is_named(run, largest, flip):
    folder = run / "checkpoints" / "2"
    flip(folder / "state" / "_sharding")
    data = largest(folder)
    data.write_bytes(data.read_bytes()[: data.stat().st_size // 2])
    found = offline.problems(run / "checkpoints", 2)
    assert sum(line.startswith("file ") for line in found) == 2
    assert any(line.startswith("array params/") and "unreadable" in line for line in found)


def test_shape_of_a_digest():
    assert digest.shape_of("bfloat16[3,4] 0123456789abcdef") == ((3, 4), np.dtype("bfloat16"))
    assert digest.shape_of("int32[] 0123456789abcdef") == ((), np.dtype("int32"))
