"""GPT-1, pre-trained on BooksCorpus.

Paper: Radford et al., "Improving Language Understanding by Generative Pre-Training" (2018), section 4.1.
Data: BooksCorpus, about 7,000 books, one a .txt file: name the folder in data.source.path. The
  paper does not count its tokens; 985M words at an assumed 1.2 tokens a word make the stated
  windows, and with them 100 epochs cost what the authors give. Set data.num_examples to yours.
Tokenizer: the paper's has 40,478 ids of lower-cased text; `bpe` is byte-level as GPT-2's. Train one
  of that size with `vitax tokenizer train`, and name it in data.tokenizer.path.
Not in the paper but in its code: gradients clipped at norm 1.
Expected: perplexity 18.4 a token on BooksCorpus (section 4.1; held-out text is not specified).
Cost: 0.96 petaflop/s-days (the authors' announcement), which is 39 TPUv3-core-days at 40% of the peak.
Command: vitax train --config gpt1 --workdir DIR
"""

from ml_collections import ConfigDict

from vitax.config_files import parse_variant
from vitax.core.errors import pick
from vitax.models import gpt_sizes

SIZES = {"117M": "GPT-1"}
VARIANTS = tuple(SIZES)
SIZE = gpt_sizes.SIZES["GPT-1"]
WINDOWS = round(985e6 * 1.2) // SIZE.context


def get_config(variant: str = "117M") -> ConfigDict:
    """``117M``, the one size there is."""
    model = gpt_sizes.fields(pick(SIZES, parse_variant(variant, "model", model="117M")["model"], "model of gpt1"))
    return ConfigDict(
        {
            "paper": {
                "paper": SIZE.source,
                "row": "GPT-1 (117M)",
                "expected": {"perplexity on BooksCorpus": 18.4},
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
                "source": {"kind": "text", "path": "bookscorpus"},
                "tokenizer": {"kind": "bpe", "path": "bookscorpus-bpe"},
                "num_examples": WINDOWS,
                "length": SIZE.context,
                "vocab_size": SIZE.vocab_size,
                "batch_size": SIZE.batch_tokens // SIZE.context,
            },
            # "All non bias or gain weights" decay: kernels and both embeddings.
            "optimizer": {
                "kind": "adamw",
                "lr": SIZE.lr,
                "weight_decay": 0.01,
                "decay_mask": (r"(^|/)kernel$", "embedding$"),
                "clip_norm": 1.0,
            },
            "schedule": {"kind": "cosine", "warmup": {"steps": 2000}},
            "duration": {"epochs": 100},
            "checkpoint": {"every": {"steps": 10_000}},
            "log": {"every": {"steps": 100}},
            "seed": 0,
        }
    )
