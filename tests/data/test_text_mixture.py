"""Texts by weight: shares as asked, each text in epochs of its own, batches a pure function of (seed, step)."""

import numpy as np
import pytest

from vitax.core.errors import UserError
from vitax.data.text import Text
from vitax.data.text_mixture import BLOCK, MixedOrder, TextMixture
from vitax.data.text_pipeline import TextPipeline
from vitax.data.tokenizers import Bytes
from vitax.specs.text import TextSpec

WINDOWS = {"plays": 40, "verse": 7, "law": 23}
WEIGHTS = {"plays": 5, "verse": 3.5, "law": 1.5}
T = 8


@pytest.fixture
def sources(tmp_path):
    for name, windows in WINDOWS.items():
        (tmp_path / f"{name}.txt").write_text(name[0] * (windows * T - 1))
    return {name: Text(str(tmp_path / f"{name}.txt"), Bytes(), T) for name in WINDOWS}


def pipeline(source, **options):
    return TextPipeline(source, **{"vocab_size": 257, "batch_size": 10, "seed": 3, **options})


def of_source(index):
    return np.searchsorted(np.cumsum(list(WINDOWS.values())), index, side="right")


def test_every_stretch_has_the_shares_and_every_text_its_epochs(sources):
    mixture = TextMixture(sources, WEIGHTS)
    assert mixture.slots == {"plays": 5000, "verse": 3500, "law": 1500}
    index = np.concatenate([pipeline(mixture).batch(n)["index"] for n in range(1200)])
    assert len(index) > BLOCK  # the pattern starts again
    which = of_source(index)
    first = 0
    for number, (name, windows) in enumerate(WINDOWS.items()):
        seen = np.cumsum(which == number)
        expected = np.arange(1, len(index) + 1) * WEIGHTS[name] / 10
        assert np.abs(seen - expected).max() < 1.5
        mine = index[which == number] - first
        whole = mine[: len(mine) // windows * windows].reshape(-1, windows)
        np.testing.assert_array_equal(np.sort(whole, 1), np.broadcast_to(np.arange(windows), whole.shape))
        assert (whole[0] != whole[1]).any()
        first += windows


def test_batches_are_a_function_of_seed_and_step(sources):
    mixture = TextMixture(sources, WEIGHTS)
    ahead = pipeline(mixture).iterate(2)
    for n in (2, 3):
        made = next(ahead)
        for name, value in pipeline(TextMixture(sources, WEIGHTS)).batch(n).items():
            np.testing.assert_array_equal(made[name], value)
    ahead.close()
    parts = [pipeline(mixture, process_index=i, process_count=2).batch(1) for i in range(2)]
    for name, value in pipeline(mixture).batch(1).items():
        np.testing.assert_array_equal(np.concatenate([p[name] for p in parts]), value)
    assert (pipeline(mixture, seed=4).batch(0)["index"] != pipeline(mixture).batch(0)["index"]).any()
    batch = pipeline(mixture).batch(0)
    letters = np.array([ord(name[0]) for name in WINDOWS])[of_source(batch["index"])]
    np.testing.assert_array_equal(batch["tokens"][:, -1], letters)


def test_an_evaluation_holds_every_window_once(sources):
    mixture = TextMixture(sources, WEIGHTS)
    index = np.concatenate([b["index"][b["mask"]] for b in pipeline(mixture).eval_batches()])
    np.testing.assert_array_equal(index, np.arange(sum(WINDOWS.values())))


def test_without_weights_every_text_comes_once_an_epoch(sources):
    mixture = TextMixture(sources)
    total = sum(WINDOWS.values())
    index = np.concatenate([pipeline(mixture).batch(n)["index"] for n in range(total)])
    seen = np.bincount(of_source(index)) / len(index)
    np.testing.assert_allclose(seen, np.array(list(WINDOWS.values())) / total, atol=2e-3)
    assert mixture.fingerprint() != TextMixture(sources, WEIGHTS).fingerprint()


def test_it_is_opened_by_a_recipe_and_what_is_wrong_is_said(sources):
    inner = {name: {"kind": "text", "path": source.path} for name, source in sources.items()}
    source = {"kind": "text_mixture", "sources": inner, "weights": WEIGHTS}
    spec = TextSpec(source, num_examples=sum(WINDOWS.values()), length=T)
    spec.check("data")
    assert spec.build_source().fingerprint() == TextMixture(sources, WEIGHTS).fingerprint()
    for changed, message in (
        (source | {"weights": {"plays": 1}}, "weights of plays, but the sources are plays, verse, law"),
        (source | {"weights": WEIGHTS | {"law": 0}}, r"weights.law=0; expected a number above 0"),
        (source | {"weights": WEIGHTS | {"law": 1e-9}}, "the share of law is below one window in 10,000"),
        (source | {"sources": {}, "weights": {}}, "no sources"),
    ):
        with pytest.raises(UserError, match=message):
            TextSpec(changed, sum(WINDOWS.values()), T).pipeline(0)
    inner["law"]["paht"] = inner["law"].pop("path")
    with pytest.raises(UserError, match=r'data.source.sources.law.paht: unknown field. Did you mean "path"'):
        spec.check("data")


def test_texts_of_one_length_go_in_orders_of_their_own_in_every_run():
    orders = []
    for seed in (0, 1):
        mixed = MixedOrder([1, 1], [40, 40], seed=seed, shuffle=True)
        index = mixed(np.arange(80))
        orders += [tuple(index[index < 40]), tuple(index[index >= 40] - 40)]
    assert all(sorted(one) == list(range(40)) for one in orders)
    assert len(set(orders)) == 4
