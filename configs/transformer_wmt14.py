"""The Transformer from English to German on WMT14, base and big.

Paper: Vaswani et al., "Attention Is All You Need", arXiv:1706.03762, sections 5 and 6, table 2.
Data: TFDS `wmt14_translate/de-en`, prepared as ArrayRecord, 4.5 million pairs, which are held in
  memory (about 5 GiB a host); newstest2013 to develop on (TFDS' validation), newstest2014 to test.
  The stated rows follow from about 29 tokens a sentence; set data.num_examples to yours.
Tokenizer: a BPE of both languages with 37,000 entries:
  vitax tokenizer train --config transformer_wmt14 --kind bpe --vocab-size 37000 --out wmt14.json
In the paper: the architecture, Adam's constants, the schedule (its peak is
  width^-0.5 x warm-up^-0.5), label smoothing, about 25,000 tokens of either side a step, the
  steps; then the mean of the last 5 (base) or 20 (big) checkpoints, 10 minutes apart:
  vitax ckpt export DIR mean.safetensors --last 5, and vitax eval --checkpoint mean.safetensors.
Differs: rows of 256 packed tokens in place of batches of like lengths; sacrebleu in place of
  the paper's tokenised BLEU, which is about half a point higher.
Expected: BLEU on newstest2014 (table 2), in `paper.expected`.
Cost: 1.0e18 (base) and 9.9e18 (big) model FLOPs, 0.5 and 4.7 TPUv3-core-days at 40% of the peak. The
  paper prints 3.3e18 and 2.3e19: hours of 8 P100 times an assumed 9.5 TFLOP/s each.
Command: vitax train --config transformer_wmt14:base --workdir DIR
"""

from ml_collections import ConfigDict

from vitax.config_files import parse_variant
from vitax.models import transformer_sizes

VARIANTS = ("base", "big")
LENGTH, TOKENS = 256, 25_000
PAIRS, TOKENS_A_SENTENCE = 4_508_785, 29
WARMUP = 4_000


def get_config(variant: str = "base") -> ConfigDict:
    """``base`` or ``big``."""
    name = parse_variant(variant, "model", model="base")["model"]
    model = transformer_sizes.fields(name)
    size = transformer_sizes.SIZES[name]

    def source(records: str) -> dict[str, str]:
        languages = {"source_feature": "en", "target_feature": "de"}
        return {"kind": "tfds_pairs", "name": "wmt14_translate/de-en", "records": records, **languages}

    return ConfigDict(
        {
            "paper": {
                "paper": "arXiv:1706.03762",
                "row": f"Table 2, Transformer ({name}), EN-DE",
                "expected": {"newstest2014 BLEU": size.bleu},
                "core_days": None,
            },
            "model": {
                "kind": "transformer",
                **{k: v for k, v in model.items() if k not in ("vocab_size", "context")},
                "dropout": size.dropout,
            },
            "objective": {"kind": "translation", "label_smoothing": 0.1},
            "data": {
                "source": source("train"),
                "num_examples": round(PAIRS * TOKENS_A_SENTENCE / LENGTH),
                "length": LENGTH,
                "tokenizer": {"kind": "bpe", "path": "wmt14.json"},
                "vocab_size": model["vocab_size"],
                "batch_size": round(TOKENS / LENGTH / 8) * 8,
            },
            "evaluators": {
                "dev": {
                    "kind": "language",
                    "every": {"steps": 2_000},
                    "data": {"source": source("validation"), "num_examples": 340},
                },
                "test": {
                    "kind": "bleu",
                    "every": {"fraction": 0.25},
                    "data": {"source": source("test"), "num_examples": 340},
                },
            },
            "optimizer": {
                "kind": "adamw",
                "lr": size.width**-0.5 * WARMUP**-0.5,
                "b2": 0.98,
                "eps": 1e-9,
                "weight_decay": 0.0,
            },
            "schedule": {"kind": "rsqrt", "timescale": WARMUP, "warmup": {"steps": WARMUP}},
            "duration": {"steps": size.steps},
            "checkpoint": {"every": {"steps": 1_500}, "keep": size.averaged},
            "log": {"every": {"steps": 100}},
            "seed": 0,
        }
    )
