"""Fine-tunes a small GPT on prompts and their completions, of which it learns the completions.

Paper: Radford et al., "Improving Language Understanding by Generative Pre-Training" (2018):
  fine-tuning for three epochs in batches of 32, with a linear decay after a short warm-up. The
  learning rate is higher than its 6.25e-5, as the model is 100 times smaller.
Data: JSON lines with the fields `prompt` and `completion` (`--config.data.source.prompt=NAME`
  where they are called otherwise); the last tenth of them, of five at least, is held out.
Expected: nothing, it is your data.
Cost: well under 0.001 TPUv3-core-days.
Command: vitax train --config gpt_finetune:data=pairs.jsonl,checkpoint=runs/gpt --workdir DIR
  where runs/gpt is a run of gpt_shakespeare, and with `tokenizer=bpe.json` one of that tokenizer.
"""

from ml_collections import ConfigDict

from vitax.config_files import parse_variant

VARIANTS = ("data=pairs.jsonl,checkpoint=runs/gpt", "data=pairs.jsonl,checkpoint=runs/gpt,tokenizer=bpe.json")


def get_config(variant: str = "") -> ConfigDict:
    """``data=FILE,checkpoint=DIR``, and ``tokenizer=FILE`` where the checkpoint has one."""
    choice = parse_variant(variant, "data", data="pairs.jsonl", checkpoint="runs/gpt", tokenizer="")
    source = {"kind": "prompt_completion", "path": choice["data"]}
    tokens = {"tokenizer": {"kind": "bytes"}, "vocab_size": 257}
    if choice["tokenizer"]:
        tokens = {"tokenizer": {"kind": "bpe", "path": choice["tokenizer"]}, "vocab_size": 2_048}
    return ConfigDict(
        {
            "paper": {
                "paper": "GPT-1 (2018)",
                "row": "its fine-tuning in small, on your own pairs",
                "expected": {},
                "core_days": None,
            },
            "model": {
                "kind": "gpt",
                "width": 128,
                "depth": 4,
                "mlp_dim": 512,
                "num_heads": 4,
                "dropout": 0.1,
            },
            "objective": {"kind": "language_model"},
            # Rows of 128 tokens: what the pairs make is said where it differs.
            "data": {
                "source": source | {"split": "[:90%]"},
                "num_examples": 900,
                "length": 128,
                **tokens,
                "batch_size": 32,
            },
            "evaluators": {
                "val": {
                    "kind": "language",
                    "every": {"epochs": 1},
                    "data": {"source": source | {"split": "[90%:]"}, "num_examples": 100},
                }
            },
            "init_from": {"checkpoint": choice["checkpoint"]},
            "optimizer": {"kind": "adamw", "lr": 3e-4, "weight_decay": 0.01, "clip_norm": 1.0},
            "schedule": {"kind": "linear", "warmup": {"fraction": 0.02}},
            "duration": {"epochs": 3},
            "checkpoint": {"every": {"epochs": 1}},
            "log": {"every": {"steps": 10}},
            "seed": 0,
        }
    )
