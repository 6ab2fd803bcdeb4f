"""The recipes of GPT-1, GPT-2 and GPT-3 against their papers, written down here once more."""

import pytest

from vitax import config_files, recipe
from vitax.core.errors import UserError

# GPT-3, Table 2.1: depth, width, heads, batch in tokens, rate; Table D.1: petaflop/s-days.
TABLE_2_1 = {
    "125M": (12, 768, 12, 0.5e6, 6e-4, 2.60),
    "350M": (24, 1024, 16, 0.5e6, 3e-4, 7.42),
    "760M": (24, 1536, 16, 0.5e6, 2.5e-4, 15.8),
    "1.3B": (24, 2048, 16, 1e6, 2e-4, 27.5),
    "2.7B": (32, 2560, 32, 1e6, 1.6e-4, 55.2),
    "6.7B": (32, 4096, 32, 2e6, 1.2e-4, 139),
    "13B": (40, 5120, 40, 2e6, 1e-4, 268),
    "175B": (96, 12288, 96, 3.2e6, 0.6e-4, 3640),
}


@pytest.mark.parametrize("name", TABLE_2_1)
def test_gpt3_carries_table_2_1_and_appendix_b(name):
    depth, width, heads, batch_tokens, rate, days = TABLE_2_1[name]
    made = recipe.load(f"gpt3:{name}")
    c = made.config
    model = c["model"]
    assert (model["depth"], model["width"], model["num_heads"], model["mlp_dim"]) == (depth, width, heads, 4 * width)
    assert (made.data.length, made.data.vocab_size) == (2048, 50_257)
    assert made.data.batch_size * 2048 == pytest.approx(batch_tokens, rel=0.05)
    adam = made.optimizer
    assert (adam.lr, adam.b1, adam.b2, adam.eps) == (rate, 0.9, 0.95, 1e-8)
    assert (adam.clip_norm, adam.weight_decay) == (1.0, 0.1)
    assert made.total_examples * 2048 == pytest.approx(300e9, rel=1e-4)
    # From 32k tokens on, over the first 4 to 12 billion.
    ramp, size = made.data.ramp, made.data.batch_size
    assert ramp.start * 2048 == 32_768
    assert 4e9 <= ramp.examples * 2048 <= 12e9 + 1
    # A warm-up of 375M tokens, a tenth of the peak from 260B tokens on.
    at = {tokens: float(made.learning_rate(round(ramp.steps(tokens / 2048, size)))) for tokens in (3.75e8, 2.7e11)}
    assert at[3.75e8] == pytest.approx(rate, rel=1e-3)
    assert at[2.7e11] == pytest.approx(rate / 10, rel=1e-6)
    # The paper counts 6 FLOPs a parameter and token; ours adds attention and the logits.
    ours = 3 * made.forward_flops_per_example * made.total_examples / 8.64e19
    assert 1.0 < ours / days < (1.03 if name == "175B" else 1.6)


@pytest.mark.parametrize(
    ("variant", "depth", "width", "heads", "perplexity"),
    [
        ("small", 12, 768, 12, 29.41),
        ("medium", 24, 1024, 16, 22.76),
        ("large", 36, 1280, 20, 19.93),
        ("XL", 48, 1600, 25, 18.34),
    ],
)
def test_gpt2_carries_table_2(variant, depth, width, heads, perplexity):
    made = recipe.load(f"gpt2:{variant}")
    model = made.config["model"]
    assert (model["depth"], model["width"], model["num_heads"], model["mlp_dim"]) == (depth, width, heads, 4 * width)
    assert (made.data.length, made.data.batch_size, made.data.vocab_size) == (1024, 512, 50_257)
    assert made.config["paper"]["expected"]["WikiText-2 perplexity"] == perplexity
    assert made.model().norm == "pre"
    assert made.model().scaled_residual


def test_gpt1_carries_section_4_1():
    made = recipe.load("gpt1")
    adam, model = made.optimizer, made.model()
    assert (model.depth, model.width, model.num_heads, model.mlp_dim, model.norm) == (12, 768, 12, 3072, "post")
    assert (model.dropout, model.attention_dropout, model.scaled_residual) == (0.1, 0.1, False)
    assert (made.data.length, made.data.batch_size, made.data.vocab_size) == (512, 64, 40_478)
    assert (adam.lr, adam.weight_decay, adam.b2, made.config["duration"]) == (2.5e-4, 0.01, 0.999, {"epochs": 100})
    decays = {rule.name for rule in adam.describe(made.abstract_params) if rule.decays}
    assert {"embedding", "pos_embedding", "encoder/block_00/mlp/in/kernel"} <= decays
    assert not any(name.endswith(("bias", "scale")) for name in decays)
    # The authors' 0.96 petaflop/s-days.
    ours = 3 * made.forward_flops_per_example * made.total_examples / 8.64e19
    assert ours == pytest.approx(0.96, rel=0.2)


def test_a_wrong_size_names_the_nearest():
    with pytest.raises(UserError, match='"XXL".*Did you mean "XL"'):
        config_files.load("gpt2:XXL")
