"""``vitax finetune``: a user's images and a checkpoint -> an ordinary recipe, with the reason for every choice.

The rules are those of published fine-tuning, cut down to the size of the data:

  optimiser  AdamW with weight decay 0.05, cosine decay: MAE, arXiv:2111.06377, Table 9;
             gradients clipped to norm 1 as in ViT. On ViTs
             AdamW does as well as SGD or better, Kumar et al., arXiv:2211.09359. ViT itself
             uses SGD (Table 4; `--config vit_finetune`): on
             the small model and data of the quick start, rates 0.003 to 0.03, SGD reached
             48 to 67% with 10 images a class and 65 to 83% with 40, AdamW 72% and 87% (one seed).
  rate       0.1 / width: 1e-3 for the quick start's 96, 1.3e-4 for B's 768. The rate of Adam
             that transfers between widths goes as 1 / width: Yang et al., arXiv:2203.03466,
             Table 3; its size is measured on the quick start, and usual for B.
             Models other than ViTs and hybrids take SGD, momentum 0.9, 0.003 for a batch of
             512: BiT-HyperRule.
  layers     from 12 blocks on, each layer has 0.75 of the rate of the one above it: MAE,
             Table 9. A ViT-S/14 in DINOv2's layout reached 54% of CIFAR-10 in one epoch of
             2,000 images with 0.65, and 21% with one rate for all, 1e-4 (one seed).
  length     500 steps below 20,000 images, 10,000 below 500,000, else 20,000, with 100 or
             500 steps of warm-up: BiT-HyperRule, arXiv:1912.11370, section 3.3, and its code.
  batch      512 (ViT, BiT), but at most an eighth of the images: 500 steps are then 40 to 80
             epochs; and 32 where that is less (with 100 images 32 reached 78%, 8 72%).
  head       one linear layer that starts at zero, softmax, no dropout: ViT,
             arXiv:2010.11929, section 3.2, appendix B.1.1.
  images     resized to 7/6 of the size of the checkpoint and cropped, mirrored; resized to
             measure: BiT's code (448 and 384 px). ViTs whose positions are for more than 448 px
             get 224: DINOv2's are for 518, where it trained for its last steps alone
             (arXiv:2304.07193, section 5), and 518 px cost 5.4 times as many tokens.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from vitax import config_files, own_data, recipe
from vitax.checkpoint import store, warm_start
from vitax.checkpoint.files import is_weight_file
from vitax.construct import check
from vitax.core.errors import UserError
from vitax.own_data import OwnData
from vitax.recipe import Recipe
from vitax.train import terminal
from vitax.train.workdir import read_json
from vitax.weights import reading

LR_TIMES_WIDTH, MOST_BATCH, LEAST_BATCH, BATCHES_AN_EPOCH = 0.1, 512, 32, 8
DEEP, LAYER_DECAY = 12, 0.75
LARGEST, USUAL = 448, 224
# Images below this, steps, steps of warm-up (BiT-HyperRule).
SCHEDULES = ((20_000, 500, 100), (500_000, 10_000, 500), (float("inf"), 20_000, 500))
# Fields of the pre-trained model that its fine-tuned successor has no use for (ViT, section 3.2,
# and appendix B.1.1: no dropout, one linear layer at zero), or takes from the data.
DROPPED = (
    *("dropout", "attention_dropout", "stochastic_depth", "pre_logits", "head_bias_init", "zero_head"),
    *("num_classes", "image_size"),
)
# Parts of the checkpoint's recipe that say how to compute, not what.
KEPT = ("dtype", "remat", "unroll")


@dataclasses.dataclass(frozen=True)
class Request:
    """What the user asks for.

    Attributes:
      data: class folders, ``train/`` and ``val/`` of them, or a CSV.
      checkpoint: ``DIR``, ``DIR@STEP`` or a published weight file.
      val: validation data that lie elsewhere.
      val_fraction: of each class to hold out.
      flip: whether a mirrored image keeps its label.
      skip_unreadable: leave out files that cannot be used.
      overrides: ``--config.path=value``.
    """

    data: str
    checkpoint: str
    val: str | None = None
    val_fraction: float | None = None
    flip: bool = True
    skip_unreadable: bool = False
    overrides: tuple[str, ...] = ()


def make_recipe(request: Request, workdir: pathlib.Path | None = None) -> Recipe:
    """Looks at the data and the checkpoint, prints the recipe with its reasons, and returns it.

    Args:
      request: what the user asks for.
      workdir: of the run. Where it holds one already, files are not opened again.

    Raises:
      UserError: what is wrong with the data, the checkpoint or an override; no device was touched.
    """
    pairs = config_files.parse_overrides(request.overrides)
    data = own_data.find(request.data, request.val, request.val_fraction)
    start = _stored_recipe(request.checkpoint, workdir, pairs)
    if "image_size" not in start["data"]:
        raise UserError(
            f"finetune {request.checkpoint}: a language model, which takes no images. A recipe fine-tunes it: "
            f"vitax train --config RECIPE --workdir DIR --config.init_from.checkpoint={request.checkpoint}"
        )
    config, reasons = make_config(data, request.checkpoint, start, request.flip, pairs)
    recipe.build(config)  # wrong settings are found before files are opened
    before = read_json(workdir / "recipe.json") if workdir and _begun(workdir) else None
    if before is None:
        data = own_data.inspect(data, request.skip_unreadable, terminal.counting)
    else:
        data = dataclasses.replace(data, specs=_as_before(data.specs, before), warnings=())
    config, reasons = make_config(data, request.checkpoint, start, request.flip, pairs)
    checked = recipe.build(config)
    for line in [*lines(config.to_dict(), reasons), *(f"Warning: {text}" for text in data.warnings)]:
        terminal.console().print(line, markup=False)
    return checked


def _begun(workdir: pathlib.Path) -> bool:
    return bool(store.steps_in(workdir / "checkpoints"))


def _as_before(specs: Mapping[str, dict[str, Any]], before: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The sources with what the run left out when it began."""
    evaluators = before.get("evaluators") or {}
    old = {part: (evaluators.get(part) or {}).get("data", {}).get("source", {}) for part in specs}
    old["train"] = before["data"]["source"]
    return {p: spec | ({"exclude": old[p]["exclude"]} if old[p].get("exclude") else {}) for p, spec in specs.items()}


def _stored_recipe(
    checkpoint: str, workdir: pathlib.Path | None, overrides: Sequence[tuple[str, str]]
) -> dict[str, Any]:
    try:
        if is_weight_file(checkpoint):
            return reading.load(checkpoint, reading.stated_size(overrides)).recipe
        directory, step = warm_start.find(checkpoint)
    except UserError as error:
        if workdir is not None and _begun(workdir):
            stored = workdir / "recipe.json"
            raise UserError(
                f"{error}\n{workdir} has begun and can go on without it: vitax train --config {stored} "
                f"--workdir {workdir}"
            ) from error
        raise
    try:
        return store.read_metadata(directory, step)[0]["recipe"]
    except store.Damaged as problem:
        raise UserError(
            f"Checkpoint {directory / str(step)} is damaged: {problem}. Name another: DIR@STEP."
        ) from problem


def make_config(
    data: OwnData,
    checkpoint: str,
    start: Mapping[str, Any],
    flip: bool = True,
    overrides: Sequence[tuple[str, str]] = (),
) -> tuple[ConfigDict, dict[str, str]]:
    """The recipe, and why it is so: dotted path (or the beginning of one) -> reason.

    Args:
      data: where the images are.
      checkpoint: what to start from.
      start: the recipe that it carries.
      flip: mirror images at random.
      overrides: dotted path and text. The image size, batch size and source that
        they set are what the other choices follow.
    """
    asked: dict[str, Any] = {}
    for key, text in overrides:
        if key in ("data.image_size", "data.batch_size"):
            hint: Any = int | tuple[int, int] if key == "data.image_size" else int
            asked[key] = check(config_files.parse_value(text, None), hint, key)
    count = data.count("train")
    size, why_size = _image_size(start)
    size = asked.get("data.image_size", size)
    batch = asked.get("data.batch_size", batch_size(count))
    steps, warmup = next((steps, warmup) for below, steps, warmup in SCHEDULES if count < below)
    method = _resize_method(start)
    larger = round(size * 7 / 6) if isinstance(size, int) else tuple(round(n * 7 / 6) for n in size)
    ops: list[dict[str, Any]] = [{"kind": "decode"}, {"kind": "resize", **method, "size": larger}]
    ops += [{"kind": "random_crop"}, *([{"kind": "flip"}] if flip else [])]
    measured = {"ops": ({"kind": "decode"}, {"kind": "resize", **method})}
    # Adam's rate follows the width of a transformer; residual networks have a rule of their own.
    adam = start["model"]["kind"] in ("vit", "hybrid")
    optimizer: dict[str, Any] = {"kind": "sgd", "lr": 0.003 * batch / 512, "momentum": 0.9}
    if adam:
        optimizer = {"kind": "adamw", "lr": _learning_rate(start), "weight_decay": 0.05, "clip_norm": 1.0}
        if start["model"].get("depth", 0) >= DEEP:
            optimizer["layer_decay"] = LAYER_DECAY
    objective = {k: v for k, v in start["objective"].items() if k in ("kind", "mean", "std")}
    config: dict[str, Any] = {
        "model": {k: v for k, v in start["model"].items() if k not in DROPPED},
        "objective": objective | {"cross_entropy": "softmax"},
        "data": {
            "source": dict(data.specs["train"]),
            "ops": tuple(ops),
            "num_examples": count,
            "num_classes": len(data.class_names),
            "image_size": size,
            "channels": start["data"].get("channels") or 3,
            "batch_size": batch,
        },
        "evaluators": {
            part: {
                "kind": "classification",
                "every": {"fraction": 0.1 if part == "val" else 1.0},
                "data": {"source": dict(spec), **measured, "num_examples": data.count(part)},
            }
            for part, spec in data.specs.items()
            if part != "train"
        },
        "optimizer": optimizer,
        "schedule": {"kind": "cosine", "warmup": {"fraction": warmup / steps}},
        "duration": {"steps": steps},
        "init_from": {"checkpoint": checkpoint},
        "checkpoint": {"every": {"fraction": 0.1}},
        "log": {"every": {"fraction": 0.02}},
        "seed": 0,
        **{k: start[k] for k in KEPT if start.get(k) is not None},
    }
    epochs = steps * batch / count
    reasons = {
        "model": "the checkpoint's; no dropout, one linear layer as head (ViT, section 3.2)",
        "objective": "pixels as the checkpoint had them; softmax (ViT, appendix B.1.1)",
        "data.source": data.split,
        "data.ops": "7/6 of the size, then a crop (BiT)" + (", mirrored: --no-flip for text and digits" * flip),
        "data.num_classes": f"found: {', '.join(data.class_names[:5])}{', ...' * (len(data.class_names) > 5)}",
        "data.image_size": why_size,
        "data.channels": "the checkpoint's; images are converted",
        "data.num_examples": "counted",
        "data.batch_size": f"about 1/{BATCHES_AN_EPOCH} of the images, {LEAST_BATCH} to {MOST_BATCH}",
        "optimizer": "AdamW (MAE, Table 9)" if adam else "SGD (BiT-HyperRule)",
        "optimizer.lr": f"{'0.1 / width' if adam else '0.003 a batch of 512'}; the first thing to try others of",
        "optimizer.layer_decay": "keeps what the first layers know (MAE, Table 9)",
        "schedule": "cosine (ViT), warm-up of BiT-HyperRule",
        "duration": f"BiT-HyperRule for {count:,} images: {epochs:.3g} epochs",
        "evaluators.val.data.source": data.split,
        "init_from": "where it starts; the head is new",
        **dict.fromkeys(KEPT, "the checkpoint's"),
    }
    for key, text in overrides:
        config_files.override(config, key, text)
        reasons[key] = "you set it"
    return ConfigDict(config), reasons


def batch_size(num_examples: int) -> int:
    """A power of two: at most an eighth of the examples and 512, but 32 at least (which may repeat images)."""
    most = min(max(num_examples // BATCHES_AN_EPOCH, LEAST_BATCH), MOST_BATCH)
    return 1 << (most.bit_length() - 1)


def _learning_rate(start: Mapping[str, Any]) -> float:
    return float(f"{LR_TIMES_WIDTH / start['model'].get('width', 768):.2g}")


def _image_size(start: Mapping[str, Any]) -> tuple[Any, str]:
    """The size to train at, and why."""
    size, patch = start["data"]["image_size"], start["model"].get("patch_size")
    if start["model"]["kind"] == "vit" and isinstance(size, int) and isinstance(patch, int) and size > LARGEST:
        return USUAL // patch * patch, f"the checkpoint's positions are for {size}; {USUAL} is usual in training"
    return size, "the checkpoint's"


def _resize_method(start: Mapping[str, Any]) -> dict[str, str]:
    """How the checkpoint's images were resized: ``{"method": ...}``, or nothing where it does not say."""
    methods = [op["method"] for op in start["data"].get("ops") or () if op.get("method")]
    return {"method": methods[0]} if methods else {}


def lines(config: Mapping[str, Any], reasons: Mapping[str, str]) -> list[str]:
    """The recipe as ``path = value`` with the reason, for a person."""
    rows = []
    ordered = {k: config[k] for k in sorted(config, key=recipe.TOP_LEVEL.index)}
    for key, value in config_files.flatten(_summed(ordered)).items():
        parts = key.split(".")
        whys = [reasons[p] for n in range(len(parts), 0, -1) if (p := ".".join(parts[:n])) in reasons]
        rows.append((key, json.dumps(value), whys[0] if whys else ""))
    widths = [max(len(row[i]) for row in rows) for i in (0, 1)]
    shown: list[str] = []
    before = ""
    for key, text, why in rows:
        # A reason that covers several lines stands on the first of them.
        shown.append(f"  {key:<{widths[0]}}  {text:<{min(widths[1], 36)}}  {'' if why == before else why}".rstrip())
        before = why
    return ["The recipe, settings changed by --config.PATH=VALUE:", *shown]


def _summed(value: Any) -> Any:
    """Long lists as their length: a thousand names tell a person nothing."""
    if isinstance(value, Mapping):
        return {k: _summed(v) for k, v in value.items()}
    if isinstance(value, list | tuple) and len(value) > 3 and all(isinstance(v, str) for v in value):
        return f"{value[0]}, ... ({len(value)})"
    return [_summed(v) for v in value] if isinstance(value, list | tuple) else value
