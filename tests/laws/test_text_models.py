"""Runs on text: started again they go on bit for bit; on any mesh they train and decode alike."""

import jax
import numpy as np
import pytest

from tests.test_recipes import shrink
from vitax import config_files, recipe, run
from vitax.core.errors import EXIT_DONE
from vitax.generate.beam import BeamSearch
from vitax.generate.decoding import Decoder, padded
from vitax.generate.on_mesh import model_of
from vitax.generate.sampling import Sampling
from vitax.parallel.mesh import MeshSpec, build_mesh
from vitax.train.workdir import read_json, read_rows

EIGHT = MeshSpec(data=2, fsdp=2, tensor=2)
RECIPES = {"gpt": "gpt_shakespeare", "transformer": "transformer_bible", "bert": "bert_bible:pretrain"}


def small(name, **changes):
    """A shrunk recipe; dropout stays on."""
    config = config_files.load(RECIPES[name]).copy_and_resolve_references()
    for path, value in changes.items():
        config_files.override(config, path.replace("__", "."), value)
    return shrink(config)


def trained(checked, workdir, steps):
    config = dict(checked.config) | {"duration": {"steps": steps}, "log": {"every": {"steps": 1}}, "evaluators": {}}
    config["schedule"] = {"kind": "constant"}
    return run.train(recipe.build(config), workdir)


def losses(workdir):
    return [row["train/loss"] for row in read_rows(workdir / "metrics.jsonl") if "train/loss" in row]


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("transformer", "bert")]


@pytest.mark.parametrize("name", ["gpt", *SLOW])
def test_a_run_that_is_started_again_goes_on_bit_for_bit(name, tmp_path):
    checked = small(name)
    assert trained(checked, tmp_path / "straight", 4) == EXIT_DONE
    assert trained(checked, tmp_path / "again", 2) == EXIT_DONE
    assert trained(checked, tmp_path / "again", 4) == EXIT_DONE
    straight = losses(tmp_path / "straight")
    assert len(straight) == 4
    assert losses(tmp_path / "again") == straight


def test_a_run_goes_on_in_the_middle_of_a_ramp(tmp_path):
    checked = small("gpt")
    config = dict(checked.config)
    config["data"] = {**config["data"], "batch_ramp": {"start": 2, "examples": 15}}
    ramped = recipe.build(config)
    assert ramped.data.ramp.length(8) == 3
    assert trained(ramped, tmp_path / "straight", 4) == EXIT_DONE
    assert trained(ramped, tmp_path / "again", 2) == EXIT_DONE
    assert trained(ramped, tmp_path / "again", 4) == EXIT_DONE
    assert losses(tmp_path / "again") == losses(tmp_path / "straight")
    ledger = read_json(tmp_path / "again" / "ledger.json")
    assert ledger["examples"] == 15 + 8
    assert ledger["model_flops"] == pytest.approx(3 * 23 * ramped.forward_flops_per_example)


def variables_on(checked, mesh):
    program = checked.program(build_mesh(mesh, jax.devices()[: 8 if mesh is EIGHT else 1]))
    state = program.init(0)
    # Away from the start, where the end is as likely as anything.
    return program, {"params": jax.tree.map(lambda p: p * 3.0, state.params)}


def check_whole(mesh, *results):
    """Every process has all of what the host looks at."""
    for x in results:
        assert x.sharding.mesh == mesh
        assert x.sharding.is_fully_replicated


def test_decoding_is_the_same_on_any_mesh():
    checked = small("gpt")
    prompts = [[256, 70, 71], [256], [256, 1, 2, 3, 4]]
    texts = []
    for mesh in (MeshSpec(data=1), EIGHT):
        program, variables = variables_on(checked, mesh)
        model = model_of(program, 256)
        decoder = Decoder(model)
        greedy = decoder(variables, prompts, 12, Sampling(temperature=0.0))
        drawn = decoder(variables, prompts, 12, Sampling(top_k=20), 5)
        texts.append((greedy, drawn))
    assert texts[0] == texts[1]
    tokens, lengths = padded(model, prompts)
    state = decoder.start(variables, tokens, lengths, lengths, jax.random.key(0), slots=32)
    for _ in range(2):
        check_whole(program.mesh, state.step, state.made, state.counts, state.done)
        state = decoder.advance(variables, state, Sampling(), np.int32(2))


def test_translating_is_the_same_on_any_mesh():
    checked = small("transformer")
    source = np.arange(30, dtype=np.int32).reshape(3, 10) + 40, np.arange(10) < np.array([[10], [6], [3]])
    texts = []
    for mesh in (MeshSpec(data=1), EIGHT):
        program, variables = variables_on(checked, mesh)
        model = model_of(program, 0)
        search = BeamSearch(model, 2)
        texts.append([best.tokens for best in search(variables, [[0]] * 3, 8, source=source)])
    assert texts[0] == texts[1]
    tokens, lengths = padded(model, [[0]] * 3)
    options = {"limits": lengths + 7, "alpha": np.float32(0.6), "source": source, "min_tokens": np.int32(0)}
    check_whole(program.mesh, *search.compiled(variables, tokens, lengths, slots=16, **options))
    assert max(map(len, texts[0])) == 8
