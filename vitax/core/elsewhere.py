"""What timm, transformers and others call the same thing: for suggestions, not accepted as names."""

import re
from collections.abc import Iterable, Sequence

from vitax.core.errors import suggest

# Their name -> the field of a recipe.
FIELDS = {
    "learning_rate": "optimizer.lr",
    "lr": "optimizer.lr",
    "opt": "optimizer.kind",
    "wd": "optimizer.weight_decay",
    "clip_grad": "optimizer.clip_norm",
    "max_grad_norm": "optimizer.clip_norm",
    "beta1": "optimizer.b1",
    "adam_beta1": "optimizer.b1",
    "beta2": "optimizer.b2",
    "adam_beta2": "optimizer.b2",
    "model_ema_decay": "optimizer.ema",
    "sched": "schedule.kind",
    "lr_scheduler_type": "schedule.kind",
    "warmup_steps": "schedule.warmup.steps",
    "warmup_epochs": "schedule.warmup.epochs",
    "warmup_ratio": "schedule.warmup.fraction",
    "epochs": "duration.epochs",
    "num_train_epochs": "duration.epochs",
    "steps": "duration.steps",
    "max_steps": "duration.steps",
    "batch_size": "data.batch_size",
    "per_device_train_batch_size": "data.batch_size",
    "img_size": "data.image_size",
    "input_size": "data.image_size",
    "num_labels": "data.num_classes",
    "workers": "data.threads",
    "dataloader_num_workers": "data.threads",
    "smoothing": "objective.label_smoothing",
    "label_smoothing_factor": "objective.label_smoothing",
    "drop": "model.dropout",
    "drop_path": "model.stochastic_depth",
    "hidden_size": "model.width",
    "num_hidden_layers": "model.depth",
    "num_attention_heads": "model.num_heads",
    "intermediate_size": "model.mlp_dim",
    "grad_accum_steps": "accumulate",
    "gradient_accumulation_steps": "accumulate",
    "grad_checkpointing": "remat",
    "gradient_checkpointing": "remat",
    "log_interval": "log.every.steps",
    "logging_steps": "log.every.steps",
    "save_steps": "checkpoint.every.steps",
    "save_total_limit": "checkpoint.keep",
    "initial_checkpoint": "init_from.checkpoint",
}
# Their name -> the option.
OPTIONS = {
    "output": "--workdir",
    "output_dir": "--workdir",
    "logdir": "--workdir",
    "resume": "--workdir",
    "resume_from_checkpoint": "--workdir",
    "data_dir": "--data",
    "train_dir": "--data",
    "model_name_or_path": "--checkpoint",
}
_VIT = re.compile(r"(?:.*/)?vit[_-](tiny|small|medium|base|large|huge|giant|gigantic|so400m)[_-]patch(\d+)", re.I)
_LETTERS = {"tiny": "Ti", "giant": "g", "gigantic": "G", "so400m": "So400m"}


def option(word: str, options: Sequence[str], fields: Iterable[str] | None = None) -> str:
    """What an unknown argument was probably meant to be.

    Args:
      word: as it was given, ``--learning-rate=3e-4``.
      options: of the verb.
      fields: dotted paths of the recipe, where the verb takes ``--config.PATH=VALUE``.

    Returns:
      A sentence, with a space in front.
    """
    name = word.lstrip("-").partition("=")[0].replace("-", "_")
    if OPTIONS.get(name) in options:
        return f' Did you mean "{OPTIONS[name]}"?'
    if fields is not None and name in FIELDS:
        return f" Did you mean --config.{FIELDS[name]}?"
    ends = [field for field in fields or () if field == name or field.endswith(f".{name}")]
    if ends:
        return f" Did you mean --config.{min(ends, key=lambda field: field.count('.'))}?"
    near = suggest(word.partition("=")[0], options)
    if near or fields is None:
        return near or (f" Options: {', '.join(options)}." if options else "")
    return " Fields of the recipe are set as --config.PART.FIELD=VALUE."


def model(name: str) -> str:
    """``vit_base_patch16_224`` and ``google/vit-base-patch16-224`` -> ``ViT-B/16``; other names as they are."""
    found = _VIT.match(name)
    if found is None:
        return name
    size = found[1].lower()
    return f"ViT-{_LETTERS.get(size, size[0].upper())}/{found[2]}"
