"""BERT pre-trained on masked tokens and next sentences, in its two phases.

Paper: Devlin et al., arXiv:1810.04805, section 3.1 and appendix A.2. With `optimizer=lamb`: You et
  al., arXiv:1904.00962, batches of 32,768.
Data: BooksCorpus and English Wikipedia, 3.3 billion words, as text files of one sentence a line
  and a blank line between documents; name their folder in data.source.path. The last 2,000
  documents are held out. Token ids are held in memory. The stated examples take a word for a token;
  set data.num_examples to yours.
Tokenizer: BERT's uncased WordPiece of 30,522 tokens (`vocab.txt` of a published model); name it in
  data.tokenizer.path.
Phases: 900,000 steps at 128 tokens and 100,000 at 512, 256 sequences each; 1 is one run, 2 starts from
  it (`init_from.checkpoint`). The rate is one line over both, from the end of the warm-up to that of
  2: 1 ends at 10.1% of the peak and 2 goes on from there, with fresh moments. With LAMB, 14,062 and
  1,563 steps, and a warm-up of a fifth, at 12.5%.
In the paper: Adam 1e-4, 0.9, 0.999, decay 0.01, warm-up 10,000 steps, linear decay; dropout 0.1 on
  all layers; 15% masked, of which 80% masks, 10% random, 10% kept; half of the next sentences random.
As in the authors' code: the decay acts on embeddings too, not on biases and norms; gradients are
  clipped to 1; a tenth of the sequences is shorter; 20 and 77 masked tokens at most.
Differs: Adam corrects its moments' bias; pairs and masks are drawn anew in each epoch (the code
  draws ten times once).
Expected: `paper.expected`, after fine-tuning (bert_squad:v1): SQuAD 1.1 development F1.
Cost: 4 days on 16 TPU chips (base) or 64 (large), of a generation that the paper does not name.
Command: vitax train --config bert_pretrain:base,phase=1 --workdir runs/phase1
  vitax train --config bert_pretrain:base,phase=2 --workdir runs/phase2 --config.init_from.checkpoint=runs/phase1
"""

from typing import NamedTuple

from ml_collections import ConfigDict

from vitax.config_files import parse_variant
from vitax.core.errors import UserError, pick
from vitax.models import bert_sizes

WORDS = 3_300_000_000
# The last 2,000 documents, of about 700 words.
HELD_OUT = 1_400_000
# SQuAD 1.1 development F1 of a single model: Table 2; with LAMB, Table 1 of its paper at this batch.
EXPECTED = {("base", "adamw"): 88.5, ("large", "adamw"): 90.9, ("large", "lamb"): 91.475}


class Phase(NamedTuple):
    """Tokens of a sequence, masked ones at most, and the share of all steps before and after it."""

    length: int
    max_predictions: int
    start: float
    stop: float


PHASES = {1: Phase(128, 20, 0.0, 0.9), 2: Phase(512, 77, 0.9, 1.0)}


class Method(NamedTuple):
    """Sequences a step, steps of both phases, peak rate, warm-up as a share of all steps."""

    batch_size: int
    steps: int
    lr: float
    warmup: float


METHODS = {"adamw": Method(256, 1_000_000, 1e-4, 0.01), "lamb": Method(32_768, 15_625, 5e-3, 0.2)}
VARIANTS = (
    *(f"{size},phase={phase}" for size in ("base", "large") for phase in PHASES),
    *(f"large,phase={phase},optimizer=lamb" for phase in PHASES),
)


def get_config(variant: str = "base,phase=1") -> ConfigDict:
    """``base`` or ``large``, then ``phase=1|2``, ``optimizer=adamw|lamb``, ``whole_words=true``."""
    choice = parse_variant(variant, "model", model="base", phase=1, optimizer="adamw", whole_words=False)
    name, optimizer, number = choice["model"], choice["optimizer"], choice["phase"]
    pick({"base": 0, "large": 0}, name, "model of bert_pretrain")
    method = pick(METHODS, optimizer, "optimizer of bert_pretrain")
    if number not in PHASES:
        raise UserError(f"bert_pretrain: phase={number}; expected 1 or 2.")
    phase = PHASES[number]
    warmup = round(method.warmup * method.steps)
    steps = round(phase.stop * method.steps) - round(phase.start * method.steps)
    size = {k: v for k, v in bert_sizes.fields(f"BERT-{name}").items() if k != "vocab_size"}
    expected = EXPECTED.get((name, optimizer))
    source = {"kind": "documents", "path": "books_and_wikipedia"}
    num_examples = WORDS // phase.length
    return ConfigDict(
        {
            "paper": {
                "paper": "arXiv:1810.04805" if optimizer == "adamw" else "arXiv:1904.00962",
                "row": f"BERT-{name}, {phase.length} tokens, phase {number} of 2, {optimizer}",
                "expected": {"SQuAD v1 dev F1 after both": expected} if expected and not choice["whole_words"] else {},
                "core_days": None,
            },
            "model": {"kind": "bert", **size, "dropout": 0.1, "attention_dropout": 0.1},
            "objective": {"kind": "masked_language_model"},
            "data": {
                "source": source | {"split": "[:-2000]"},
                "tokenizer": {"kind": "wordpiece", "path": "bert-base-uncased"},
                "vocab_size": bert_sizes.VOCAB_SIZE,
                "num_examples": num_examples,
                "length": phase.length,
                "max_predictions": phase.max_predictions,
                "whole_words": choice["whole_words"],
                "batch_size": method.batch_size,
            },
            "evaluators": {
                "val": {
                    "kind": "masked_language",
                    "every": {"fraction": 0.05},
                    "data": {"source": source | {"split": "[-2000:]"}, "num_examples": HELD_OUT // phase.length},
                }
            },
            "optimizer": {
                "kind": optimizer,
                "lr": method.lr if number == 1 else method.lr * steps / (method.steps - warmup),
                "weight_decay": 0.01,
                "decay_mask": (r"(^|/)kernel$", r"^embedding/"),
                "clip_norm": 1.0,
                "eps": 1e-6,
            },
            "schedule": {
                "kind": "linear",
                **({"warmup": {"steps": warmup}} if number == 1 else {}),
                "until": {"steps": method.steps if number == 1 else steps},
            },
            "duration": {"steps": steps},
            "init_from": {"checkpoint": "runs/phase1", "reset": ()} if number == 2 else None,
            "checkpoint": {"every": {"fraction": 0.01}},
            "log": {"every": {"steps": 100}},
            "seed": 0,
        }
    )
