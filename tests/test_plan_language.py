"""Plans of language models: logits and vocabulary are counted, and nothing is ever allocated."""

import pytest

from tests.conftest import tiny_config
from vitax import estimate, plan, plan_search, plan_text, recipe
from vitax.cost.topology import Topology


def sharded(made, topology):
    sizes = estimate.spec_of(made, topology).sizes(topology.num_devices)
    return made.program(estimate.abstract_mesh(sizes), "tpu")


def test_the_logits_of_a_device_are_its_share_of_batch_and_vocabulary():
    topology = Topology.parse("v4:2x2x2")
    # 50,257 does not divide and stays whole; 50,304 does.
    for stated, here in ((50_257, 50_257), (50_304, 12_576)):
        mesh = ["--config.mesh.data=2", "--config.mesh.tensor=4", f"--config.data.vocab_size={stated}"]
        made = recipe.load("gpt2:small", [*mesh, "--config.data.batch_size=16"])
        found = estimate.vocabulary_of(made, sharded(made, topology), 1)
        assert (found.targets, found.tokens, found.width, found.itemsize) == (8 * 1024, here, 768, 2)
        assert found.chunks == {50_257: 8, 12_576: 2}[here]
    half = estimate.vocabulary_of(made, sharded(made, topology), 2)
    assert half.targets == found.targets // 2
    images = recipe.load("vit_jft:B/16")
    assert estimate.vocabulary_of(images, sharded(images, Topology.parse("v3:2x2")), 1) is None


def test_a_larger_vocabulary_needs_more_memory_and_more_flops():
    found = {}
    for vocab in (257, 50_257):
        overrides = [f"--config.data.vocab_size={vocab}", "--config.data.batch_size=64"]
        overrides += ["--config.model.attention_dropout=0", "--config.remat=full"]
        found[vocab] = plan.plan(recipe.load("gpt2:small", overrides), Topology.parse("v3:2x2"), fast=True)
    small, large = found[257], found[50_257]
    more = 50_000 * 768
    assert large["hbm_split_bytes"]["parameters"] - small["hbm_split_bytes"]["parameters"] == 4 * more
    assert large["hbm_split_bytes"]["temporaries"] > small["hbm_split_bytes"]["temporaries"]
    assert large["model_flops_per_step"] - small["model_flops_per_step"] == 6 * more * 64 * 1024


@pytest.mark.parametrize(
    ("overrides", "compiled"), [((), 3.79), (("--config.remat=full", "--config.unroll=False"), 2.34)]
)
def test_the_arithmetic_is_within_a_fifth_of_the_compiler(overrides, compiled):
    # GiB a core by libtpu 0.0.52; the table in docs/accounting.md has more.
    found = plan.plan(recipe.load("gpt2:small", list(overrides)), Topology.parse("v3:8x8"), fast=True)
    assert found["hbm_bytes_per_core"] / 2**30 == pytest.approx(compiled, rel=0.2)


def test_logits_in_chunks_are_made_once_more():
    for batch, again in ((64, 2 * 50_257 * 768 * 64 * 1024), (8, 0)):
        made = recipe.load("gpt2:small", [f"--config.data.batch_size={batch}"])
        found = plan.plan(made, Topology.parse("v3:2x2"), fast=True)
        assert 8 * found["flops_per_core"] - found["model_flops_per_step"] == again


def test_gpt3_175b_fits_on_a_slice_that_exists():
    made = recipe.load("gpt3:175B")
    found = plan.plan(made, Topology.parse("v4:8x16x16"), fast=True)
    assert found["fits"]
    assert found["mesh"] == {"fsdp": 256, "tensor": 8}
    # 174.6e9 parameters x 6 x 300e9 tokens, attention and logits on top.
    per_window = found["model_flops_per_step"] / made.data.batch_size
    assert per_window * made.total_examples == pytest.approx(3.14e23, rel=0.03)
    # 4% more, as rows that do not count yet are computed too.
    assert found["tpu_v3_core_days"] == pytest.approx(1.56e5, rel=0.03)
    assert plan_text.lines(found)


def test_search_finds_a_setting_that_fits():
    shallow = ["--config.model.depth=4", "--config.data.batch_size=2048"]
    found = plan_search.search(recipe.load("gpt2:XL", shallow), Topology.parse("v3:4x4"), fast=True)
    assert recipe.load("gpt2:XL", [*shallow, *found["best"]]).mesh_spec.sizes(32)
    # 64 windows of 1024 a core without remat do not fit.
    assert found["pruned"] > 0


def test_bert_is_planned_with_the_logits_of_its_masked_tokens():
    made = recipe.build(
        tiny_config(
            model={"kind": "bert", "width": 1024, "depth": 24, "mlp_dim": 4096, "num_heads": 16},
            objective={"kind": "masked_language_model"},
            data={
                "source": {"kind": "documents", "path": "nowhere"},
                "tokenizer": {"kind": "wordpiece", "path": "nowhere"},
                "vocab_size": 30_522,
                "num_examples": 1000,
                "length": 512,
                "max_predictions": 76,
                "batch_size": 256,
            },
            evaluators=None,
        )
    )
    topology = Topology.parse("v3:4x4")
    logits = estimate.vocabulary_of(made, sharded(made, topology), 1)
    assert (logits.targets, logits.tokens, logits.chunks) == (8 * 76, 30_522, 1)
    found = plan.plan(made, topology, fast=True)
    # 24 blocks over 512 tokens, logits over 76 of them.
    blocks = 24 * 512 * (24 * 1024**2 + 4 * 512 * 1024)
    assert found["model_flops_per_step"] == pytest.approx(3 * 256 * (blocks + 2 * 76 * 30_522 * 1024), rel=0.01)


def test_splash_keeps_no_scores_and_its_model_costs_the_same():
    found = {}
    for kernel in ("xla", "splash"):
        made = recipe.load("gpt3:125M", [f"--config.model.attention_kernel={kernel}", "--config.remat=none"])
        found[kernel] = plan.plan(made, Topology.parse("v5e:4x4"), fast=True)
    xla, splash = (found[kernel]["hbm_split_bytes"]["activations"] for kernel in ("xla", "splash"))
    # 12 heads of 64 in 12 blocks, 256 windows of 2,048 over 16 cores, bfloat16: scores, and lanes that are half filled.
    scores, lanes = 2 * 12 * 2048 * 2048, 2 * 4 * 12 * 2048 * 64
    assert xla - splash == 256 // 16 * 12 * (scores - lanes) / found["xla"]["accumulate"]
    assert found["splash"]["model_flops_per_step"] == found["xla"]["model_flops_per_step"]


def test_a_sequence_shorter_than_the_context_is_what_is_planned():
    topology = Topology.parse("v3:4x4")
    phases = [recipe.load(f"bert_pretrain:base,phase={n}") for n in (1, 2)]
    assert [estimate.stack_of(made, sharded(made, topology)).tokens for made in phases] == [128, 512]
    short, long = (plan.plan(made, topology, fast=True)["hbm_split_bytes"]["activations"] for made in phases)
    assert short < long / 3


def test_a_remat_runs_blocks_again_and_no_logits():
    topology = Topology.parse("v3:4x4")
    made = recipe.load("gpt2:small", ["--config.remat=full"])
    program = sharded(made, topology)
    stack = estimate.stack_of(made, program)
    forward = made.forward_flops_per_example * made.data.batch_size / program.mesh.size
    head = 2 * made.data.batch_size * 1024 * 50_257 * 768 / program.mesh.size
    again = estimate.executed_flops(made, program, stack, 1) - 3 * forward
    cut = estimate.vocabulary_of(made, program, 1).again_flops()
    assert again == pytest.approx(forward - head + cut, rel=1e-6)


def test_two_stacks_are_planned():
    made = recipe.load("transformer_wmt14:base")
    topology = Topology.parse("v3:2x2")
    found = plan.plan(made, topology, fast=True)
    # Products of 6 + 6 blocks over 256 tokens of either side, and the logits.
    width, length = 512, 256
    attention, scores, mlp = 8 * width**2, 4 * length * width, 16 * width**2
    blocks = 6 * (attention + scores + mlp) + 6 * (2 * attention + 2 * scores + mlp)
    forward = length * (blocks + 2 * 37_000 * width)
    assert found["model_flops_per_step"] == pytest.approx(3 * 96 * forward, rel=0.001)
    assert found["fits"]
    kept = estimate.stack_of(made, sharded(made, topology)).kept_bytes()
    assert estimate.stack_of(made, sharded(made, topology), remat="full").kept_bytes() < kept / 3
