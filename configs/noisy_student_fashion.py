"""Noisy Student in small: Fashion-MNIST with few labels and the rest unlabelled.

Paper: Xie et al., "Self-training with Noisy Student improves ImageNet classification",
  arXiv:1911.04252, algorithm 1: a teacher trained on the labels, its soft pseudo-labels on
  the unlabelled images, a larger student with noise on all of them, and again with the
  student as the teacher. No number of the
  paper is reproduced here; `noisy_student` has its recipes.
Data: by default what ships with vitax (2,000 labelled, 8,000 unlabelled, 1,000 to test);
  `data=DIR` takes the four IDX files of Fashion-MNIST (3,000, 57,000, 10,000).
Differs: every batch mixes labelled and unlabelled images in proportion, in expectation;
  the paper draws 14 unlabelled for each labelled one. Noise is crops, mirror images, dropout
  and stochastic depth; the lengths of the paper's RandAugment are made for images of about 224 px.
Expected: with `data=DIR`, over 3 seeds, teachers reach 82.1% and students 83.2%: +1.01 points
  (+1.16, +0.92 and +0.95). `student2` has not been run.
Cost: well under 0.001 TPUv3-core-days.
Command:
  vitax train --config noisy_student_fashion:teacher --workdir runs/teacher
  vitax pseudo-label --config noisy_student_fashion:student --checkpoint runs/teacher
  vitax train --config noisy_student_fashion:student --workdir runs/student
  vitax pseudo-label --config noisy_student_fashion:student2 --checkpoint runs/student
  vitax train --config noisy_student_fashion:student2 --workdir runs/student2
"""

from typing import Any

from ml_collections import ConfigDict

from vitax.config_files import parse_variant
from vitax.core.errors import pick

VARIANTS = ("teacher", "student", "student2", "scratch")
# data -> images with labels, without, to test; repeats of the labelled ones for students.
SIZES = {"embedded": (2_000, 8_000, 1_000, 2), "idx": (3_000, 57_000, 10_000, 6)}


def _source(folder: str, split: str, part: str = "") -> dict[str, Any]:
    if not folder:
        return {"kind": "embedded", "name": "fashion_mnist", "split": f"{split}{part}"}
    prefix = {"train": "train", "test": "t10k"}[split]
    files = {"images": "images-idx3", "labels": "labels-idx1"}
    return {"kind": "idx", **{n: f"{folder}/{prefix}-{f}-ubyte.gz" for n, f in files.items()}, "split": part}


def get_config(variant: str = "teacher") -> ConfigDict:
    """``teacher``, ``student``, ``student2`` or ``scratch`` (a student without a teacher), then ``data=DIR``."""
    choice = parse_variant(variant, "role", role="teacher", data="")
    role, folder = choice["role"], choice["data"]
    pick(dict.fromkeys(VARIANTS), role, "role of noisy_student_fashion")
    labelled, unlabelled, tested, repeats = SIZES["idx" if folder else "embedded"]
    part = f"[:{labelled}]"
    student = role != "teacher"
    source, num_examples = _source(folder, "train", part), labelled
    if role in ("student", "student2"):
        pseudo = {
            "kind": "pseudo_labelled",
            "source": _source(folder, "train", f"[{labelled}:]"),
            "labels": f"runs/noisy_student_fashion/{'teacher' if role == 'student' else 'student'}_labels",
        }
        source = {
            "kind": "concat",
            "sources": {"labelled": source, "pseudo": pseudo},
            "repeats": {"labelled": repeats},
        }
        num_examples = labelled * repeats + unlabelled
    # As many for the student that has the labels alone.
    steps = round((8 if folder else 30) * (labelled * repeats + unlabelled) / 128)
    return ConfigDict(
        {
            "paper": {
                "paper": "arXiv:1911.04252",
                "row": f"algorithm 1 in small, {role}",
                "expected": {},
                "core_days": None,
            },
            "model": {
                "kind": "vit",
                "patch_size": 7,
                "width": 128 if student else 96,
                "depth": 4,
                "mlp_dim": 256 if student else 192,
                "num_heads": 4,
                "pool": "gap",
                "dropout": 0.1 if student else 0.0,
                "stochastic_depth": 0.1 if student else 0.0,
            },
            "objective": {"kind": "classification"},
            "data": {
                "source": source,
                "ops": ({"kind": "random_crop", "padding": 2}, {"kind": "flip"}),
                "num_examples": num_examples,
                "num_classes": 10,
                "image_size": 28,
                "channels": 1,
                "batch_size": 128 if student else 64,
                "soft_labels": role.startswith("student"),
            },
            "evaluators": {
                "val": {
                    "kind": "classification",
                    "every": {"fraction": 0.5},
                    "data": {"source": _source(folder, "test"), "num_examples": tested, "batch_size": 250},
                }
            },
            "optimizer": {"kind": "adamw", "lr": 2e-3, "weight_decay": 0.05, "clip_norm": 1.0},
            "schedule": {"kind": "cosine", "warmup": {"fraction": 0.1}},
            "duration": {"steps": steps} if student else {"epochs": 60},
            "checkpoint": {"every": {"fraction": 0.5}},
            "log": {"every": {"steps": 50}},
            "seed": 0,
        }
    )
