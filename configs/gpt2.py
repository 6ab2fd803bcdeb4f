"""GPT-2 in its four sizes, pre-trained on WebText or a remake of it.

Paper: Radford et al., "Language Models are Unsupervised Multitask Learners" (2019), section 2 and Table 2.
Data: WebText, 40 GB of 8 million pages, was not released; OpenWebText is the usual stand-in. One
  page a .txt (or .gz) file, or several with data.source.separator: name the folder in
  data.source.path. 5% are held out, as in the paper. An assumed 4.2 bytes a token make the
  stated windows; set data.num_examples to yours. Ids are mapped from disk, 19 GB of them; a .txt
  file is read whole, JSON lines (source kind `json_lines`) one at a time.
Tokenizer: GPT-2's own encoder.json and vocab.bpe; name their folder in data.tokenizer.path.
In the paper: the architecture, 1024 tokens, 512 windows a step, 50,257 ids, residual
  layers scaled by their number.
Not in the paper: rates ("manually tuned"), decay, warm-up, length. Those here are GPT-3's for the
  size that is nearest, and 300 billion tokens (about 33 epochs); dropout 0.1 is that of the code.
Expected: zero-shot perplexity on WikiText-2 and LAMBADA (Table 3), in `paper.expected`.
Cost: not published. XL is 3.1e21 FLOPs, 1,450 TPUv3-core-days at 40% of the peak.
Command: vitax train --config gpt2:XL --workdir DIR
"""

from ml_collections import ConfigDict

from vitax.config_files import parse_variant
from vitax.core.errors import pick
from vitax.models import gpt_sizes

VARIANTS = ("small", "medium", "large", "XL")
# Peak rates of GPT-3's 125M, 350M, 760M and 1.3B.
RATES = {"small": 6e-4, "medium": 3e-4, "large": 2.5e-4, "XL": 2e-4}
# Table 3: perplexity on WikiText-2 and LAMBADA.
TABLE_3 = {"small": (29.41, 35.13), "medium": (22.76, 15.60), "large": (19.93, 10.87), "XL": (18.34, 8.63)}
TOKENS = 300_000_000_000
BYTES, BYTES_A_TOKEN = 40_000_000_000, 4.2


def get_config(variant: str = "small") -> ConfigDict:
    """``small``, ``medium``, ``large`` or ``XL``."""
    name = parse_variant(variant, "model", model="small")["model"]
    rate = pick(RATES, name, "model of gpt2")
    size, model = gpt_sizes.SIZES[f"GPT-2-{name}"], gpt_sizes.fields(f"GPT-2-{name}")
    windows = round(BYTES / BYTES_A_TOKEN / size.context)
    held_out = windows // 20
    source = {"kind": "text", "path": "openwebtext"}
    large = name in ("large", "XL")
    return ConfigDict(
        {
            "paper": {
                "paper": gpt_sizes.GPT2,
                "row": f"Table 2, {name}",
                "expected": dict(zip(("WikiText-2 perplexity", "LAMBADA perplexity"), TABLE_3[name])),
                "core_days": None,
            },
            "model": {
                "kind": "gpt",
                **{k: v for k, v in model.items() if k not in ("vocab_size", "context")},
                "dropout": 0.1,
                "attention_dropout": 0.1,
            },
            "objective": {"kind": "language_model"},
            "data": {
                "source": source | {"split": "[:95%]"},
                "tokenizer": {"kind": "bpe", "path": "gpt2"},
                "num_examples": windows - held_out,
                "length": size.context,
                "vocab_size": size.vocab_size,
                "batch_size": size.batch_tokens // size.context,
            },
            "evaluators": {
                "val": {
                    "kind": "language",
                    "every": {"steps": 10_000},
                    "data": {"source": source | {"split": "[95%:]"}, "num_examples": held_out},
                }
            },
            "optimizer": {
                "kind": "adamw",
                "lr": rate,
                "weight_decay": 0.1,
                "decay_mask": (r"(^|/)kernel$", "embedding$"),
                "b2": 0.95,
                "clip_norm": 1.0,
            },
            "schedule": {
                "kind": "cosine",
                "warmup": {"examples": 375_000_000 // size.context},
                "end": 0.1,
            },
            "duration": {"examples": TOKENS // size.context},
            # With these the step of each size fits on v3:8x8; `vitax plan --search` finds others.
            # A width of 1600 divides over 64 devices and not over 128.
            "mesh": {"data": -1, "fsdp": 16} if large else {"data": -1},
            "remat": "full" if large else "none",
            # A loop over the blocks: the time to compile does not grow with their number.
            "unroll": not large,
            "checkpoint": {"every": {"steps": 5_000}},
            "log": {"every": {"steps": 100}},
            "seed": 0,
        }
    )
