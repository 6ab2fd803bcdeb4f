"""GPT-3 in its eight sizes.

Paper: Brown et al., arXiv:2005.14165, section 2, Table 2.1 and appendix B.
Data: Common Crawl (filtered), WebText2, two book corpora and Wikipedia, sampled by weights for 300
  billion tokens; none was released. Name a folder of .txt or .gz files in data.source.path; the
  stated windows are one pass over 300 billion tokens. Ids are mapped from disk (600 GB); a file is
  read whole, JSON lines (source kind `json_lines`) one at a time.
Tokenizer: GPT-2's own encoder.json and vocab.bpe; name their folder in data.tokenizer.path.
In the paper: Adam 0.9, 0.95, 1e-8, clip 1, weight decay 0.1, a warm-up over 375M tokens, cosine
  to 10% at 260B tokens, 300B tokens in all, windows of 2048.
  The batch grows from 32k tokens linearly over the first 4 to 12 billion.
Other than the paper: attention is dense in every layer (there it is sparse in every other); the
  batch is the nearest number of windows that divides over a slice (1M tokens are 512 windows,
  3.2M are 1536); while it grows, steps cost what whole ones do (1 to 4% of the run). Two rows
  of Table 2.1 are corrected, see `gpt_sizes`.
Not in the paper: what decays (here kernels and embeddings); 125M with dropout 0; which size
  grows its batch for how long (here 4, 8, 8 and 12 billion tokens for 0.5M to 3.2M a step).
Expected: zero-shot LAMBADA perplexity and accuracy (Table H.1), in `paper.expected`.
Cost: petaflop/s-days of Table D.1 in `paper.row`; 175B 3,640, which is 148,000 TPUv3-core-days at
  40% of the peak.
Command: vitax plan --config gpt3:175B --topology v5p:16x16x24 --fast
"""

from ml_collections import ConfigDict

from vitax.config_files import parse_variant
from vitax.core.errors import pick
from vitax.models import gpt_sizes

# LAMBADA perplexity and accuracy in percent (Table H.1); petaflop/s-days (Table D.1).
PRINTED = {
    "125M": (18.6, 42.7, 2.60),
    "350M": (9.09, 54.3, 7.42),
    "760M": (6.53, 60.4, 15.8),
    "1.3B": (5.44, 63.6, 27.5),
    "2.7B": (4.60, 67.1, 55.2),
    "6.7B": (4.00, 70.3, 139),
    "13B": (3.56, 72.5, 268),
    "175B": (3.00, 76.2, 3640),
}
VARIANTS = tuple(PRINTED)
WINDOWS = {500_000: 256, 1_000_000: 512, 2_000_000: 1024, 3_200_000: 1536}
# Tokens over which the batch grows, by its size, and where it starts.
RAMP = {500_000: 4_000_000_000, 1_000_000: 8_000_000_000, 2_000_000: 8_000_000_000, 3_200_000: 12_000_000_000}
RAMP_START = 32_768
TOKENS, WARMUP, DECAY = 300_000_000_000, 375_000_000, 260_000_000_000
# What shards a step so that it fits on a slice; `vitax plan --search` finds others.
SMALL = ("125M", "350M", "760M")


def get_config(variant: str = "125M") -> ConfigDict:
    """A size of Table 2.1: ``125M`` to ``175B``."""
    name = parse_variant(variant, "model", model="125M")["model"]
    perplexity, accuracy, days = pick(PRINTED, name, "model of gpt3")
    size, model = gpt_sizes.SIZES[f"GPT-3-{name}"], gpt_sizes.fields(f"GPT-3-{name}")
    tensor = 8 if name == "175B" else 1
    return ConfigDict(
        {
            "paper": {
                "paper": gpt_sizes.GPT3,
                "row": f"{name}, {days} petaflop/s-days",
                "expected": {"LAMBADA perplexity": perplexity, "LAMBADA accuracy": accuracy},
                "core_days": None,
            },
            "model": {"kind": "gpt", **{k: v for k, v in model.items() if k not in ("vocab_size", "context")}},
            "objective": {"kind": "language_model"},
            "data": {
                "source": {"kind": "text", "path": "gpt3-text"},
                "tokenizer": {"kind": "bpe", "path": "gpt2"},
                "num_examples": TOKENS // size.context,
                "length": size.context,
                "vocab_size": size.vocab_size,
                "batch_size": WINDOWS[size.batch_tokens],
                "batch_ramp": {
                    "start": RAMP_START // size.context,
                    "examples": RAMP[size.batch_tokens] // size.context,
                },
            },
            "optimizer": {
                "kind": "adamw",
                "lr": size.lr,
                "weight_decay": 0.1,
                "decay_mask": (r"(^|/)kernel$", "embedding$"),
                "b2": 0.95,
                "clip_norm": 1.0,
            },
            "schedule": {
                "kind": "cosine",
                "warmup": {"examples": WARMUP // size.context},
                "until": {"examples": DECAY // size.context},
                "end": 0.1,
            },
            "duration": {"examples": TOKENS // size.context},
            "mesh": {"data": -1} if name in SMALL else {"data": 1, "fsdp": -1, "tensor": tensor},
            "accumulate": 3 if name == "175B" else 1,
            "remat": "full",
            # A loop over the blocks: the time to compile does not grow with their number.
            "unroll": name in SMALL,
            "checkpoint": {"every": {"steps": 1_000}},
            "log": {"every": {"steps": 50}},
            "seed": 0,
        }
    )
