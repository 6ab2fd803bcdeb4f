"""BERT fine-tuned on a task of GLUE.

Paper: Devlin et al., arXiv:1810.04805, section 4.1 and appendix A.3, Table 1.
Data: TFDS `glue/TASK`, prepared as ArrayRecord; the development set is evaluated on (MNLI's matched
  one), as the labels of the test sets are not public.
Start: `init_from.checkpoint`, a run of `bert_pretrain` or published weights (a Hugging Face folder of
  bert-base-uncased); the one written here is a placeholder. Its heads give way to one linear layer
  on the pooled vector.
In the paper: batch 32, 3 epochs, the best rate of 5e-5, 4e-5, 3e-5, 2e-5 on the development set (the
  default is our choice); dropout 0.1. As in the authors' code: 128 tokens, 10% warm-up, linear decay.
Metrics: accuracy, and F1 of two classes, which MRPC and QQP are reported by. CoLA is reported by
  Matthews' correlation and STS-B by Spearman's, which are not computed here.
Expected: the test results of Table 1 in `paper.expected`; development results lie near them.
Cost: an hour on a TPU chip for all (section 4).
Command: vitax train --config bert_glue:mrpc,model=base,lr=2e-5 --workdir DIR
  --config.init_from.checkpoint=bert-base-uncased --config.data.tokenizer.path=bert-base-uncased
"""

from ml_collections import ConfigDict

from vitax.config_files import parse_variant
from vitax.core.errors import pick
from vitax.data.glue import GLUE
from vitax.models import bert_sizes

# Table 1, base and large.
TABLE_1 = {
    "mnli": ("accuracy", 84.6, 86.7),
    "qqp": ("F1", 71.2, 72.1),
    "qnli": ("accuracy", 90.5, 92.7),
    "sst2": ("accuracy", 93.5, 94.9),
    "cola": ("Matthews", 52.1, 60.5),
    "stsb": ("Spearman", 85.8, 86.5),
    "mrpc": ("F1", 88.9, 89.3),
    "rte": ("accuracy", 66.4, 70.1),
}
VARIANTS = (*TABLE_1, "mrpc,model=large")


def get_config(variant: str = "mrpc") -> ConfigDict:
    """``TASK[,model=base|large][,lr=2e-5][,epochs=3][,batch=32]``."""
    choice = parse_variant(variant, "task", task="mrpc", model="base", lr=2e-5, epochs=3, batch=32)
    task, model = choice["task"], choice["model"]
    data = pick(GLUE, task, "task of bert_glue")
    column = pick({"base": 1, "large": 2}, model, "model of bert_glue")
    size = bert_sizes.fields(f"BERT-{model}") | {"head": "classification"}
    source = {"kind": "tfds_labelled_text", "name": f"glue/{task}"}
    as_printed = (choice["epochs"], choice["batch"]) == (3, 32)
    return ConfigDict(
        {
            "paper": {
                "paper": "arXiv:1810.04805",
                "row": f"Table 1, {task}, BERT-{model}",
                "expected": {f"test {TABLE_1[task][0]}, Table 1": TABLE_1[task][column]} if as_printed else {},
                "core_days": None,
            },
            "model": {
                "kind": "bert",
                **{k: v for k, v in size.items() if k != "vocab_size"},
                "dropout": 0.1,
                "attention_dropout": 0.1,
            },
            "objective": {"kind": "text_classification"},
            "data": {
                "source": source | {"split": "train"},
                "tokenizer": {"kind": "wordpiece", "path": "bert-base-uncased"},
                "vocab_size": bert_sizes.VOCAB_SIZE,
                "num_examples": data.train,
                "num_classes": data.num_classes,
                "length": 128,
                "batch_size": choice["batch"],
            },
            "evaluators": {
                "val": {
                    "kind": "text_classification",
                    "every": {"epochs": 1},
                    "data": {"source": source | {"split": data.val[0]}, "num_examples": data.val[1]},
                }
            },
            "optimizer": {
                "kind": "adamw",
                "lr": choice["lr"],
                "weight_decay": 0.01,
                "decay_mask": (r"(^|/)kernel$", r"^embedding/"),
                "clip_norm": 1.0,
                "eps": 1e-6,
            },
            "schedule": {"kind": "linear", "warmup": {"fraction": 0.1}},
            "duration": {"epochs": choice["epochs"]},
            "init_from": {"checkpoint": "bert-base-uncased", "reset": ("^head/",)},
            "checkpoint": {"every": {"epochs": 1}},
            "log": {"every": {"steps": 50}},
            "seed": 0,
        }
    )
