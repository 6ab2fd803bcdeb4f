"""Published weight files as checkpoints: what they hold, under our names, with the model and recipe they imply."""

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from vitax import config_files
from vitax.checkpoint import convert, files
from vitax.checkpoint.files import WeightFile
from vitax.checkpoint.names import google, huggingface, timm, tokens
from vitax.checkpoint.names.layout import Constants, Layout, left_out, recognise
from vitax.construct import check, construct
from vitax.core import tree
from vitax.core.errors import UserError
from vitax.models.table import MODELS
from vitax.models.vit_sizes import SIZES
from vitax.parallel.rules import unbox
from vitax.train.terminal import count

LAYOUTS: tuple[Layout, ...] = (*google.LAYOUTS, *timm.LAYOUTS, *huggingface.LAYOUTS)
# What is not learned stays open in files: the value at the start matters to nobody afterwards.
_LAYER_SCALE_START = 1e-5
_HEAD_DIM = 64
_SHOWN = 8


@dataclasses.dataclass(frozen=True)
class Published:
    """A weight file, read.

    Attributes:
      spec: as it was asked for.
      title: of its layout.
      params: our name -> array, memory-mapped where nothing had to be rearranged.
      recipe: plain data: the model, how pixels are scaled and images prepared.
      image_size: (height, width) of its positions.
      positions: method that its own program resamples positions with.
      patches: likewise, kernels of the patch embedding.
      class_names: where the file has them.
      unexpected: names that no rule knows.
      lines: for a person: what it is, its constants, what was put elsewhere or left out.
    """

    spec: str
    title: str
    params: Mapping[str, np.ndarray]
    recipe: dict[str, Any]
    image_size: tuple[int, int]
    positions: str = "corner_linear"
    patches: str = "bilinear"
    class_names: tuple[str, ...] | None = None
    unexpected: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of patches."""
        patch = self.params["embedding/kernel"].shape[:2]
        return self.image_size[0] // patch[0], self.image_size[1] // patch[1]

    def whole(self) -> "Published":
        """Itself, where the file and the model agree in every array.

        Raises:
          UserError: unexpected, missing or mismatched arrays.
        """
        problems = [f"unexpected  {name}" for name in self.unexpected]
        have = {n: jax.ShapeDtypeStruct(x.shape, np.float32) for n, x in self.params.items()}
        problems += tree.difference(self._abstract(), have)
        if problems:
            more = f"\n  ... and {len(problems) - 20} more" if len(problems) > 20 else ""
            raise UserError(
                f"{self.spec} ({self.title}) does not hold the model that its names and shapes imply, so its outputs "
                "would be wrong:\n  " + "\n  ".join(problems[:20]) + more + "\nAs a warm start (init_from.checkpoint) "
                "it still serves, which says what it takes."
            )
        return self

    def _abstract(self) -> dict[str, Any]:
        # Scanned, so that tracing does not grow with depth; parameters are the same.
        model = construct(MODELS, dict(self.recipe["model"]) | {"unroll": False}, "model")
        height, width = self.image_size
        channels = self.recipe["data"].get("channels", 3)
        images = jax.ShapeDtypeStruct((1, height, width, channels), np.float32)
        variables = unbox(jax.eval_shape(model.init, jax.eval_shape(jax.random.key, 0), images))
        return dict(tree.named_leaves(variables["params"]))


def load(spec: str, image_size: tuple[int, int] | None = None) -> Published:
    """Reads a weight file; arrays stay on disk until they are used.

    Args:
      spec: ``FILE.npz``, ``FILE.safetensors`` or a folder with ``model.safetensors``; ``:PART`` for
        a part of it, such as ``:img``.
      image_size: (height, width) to try where neither the file nor the number of positions says it.

    Raises:
      UserError: no such file, an unknown layout, or arrays that do not fit together.
    """
    file = files.read(spec)
    if file.metadata.get("format") == "vitax":
        return _own(spec, file)
    layout = recognise(LAYOUTS, file)
    constants = layout.constants(file)
    sizes, head_lines = _sizes(layout, file, constants)
    converted = convert.to_ours(layout.table, file.arrays, sizes)
    left, unexpected = left_out(layout, converted.unexpected)
    unexpected += converted.incomplete
    pool = constants.pool or _pool(converted.arrays)
    params, moved, size = _folded(converted.arrays, pool, layout, constants, image_size)
    model = _model(params, pool, final_norm_last=layout is timm.LAYOUT_FC_NORM, constants=constants)
    constants = _for_channels(constants, params["embedding/kernel"].shape[2])
    recipe = _recipe(params, model, size, constants)
    elsewhere = [f"{len(file.elsewhere)} arrays outside of {file.root}"] if file.elsewhere else []
    values = count(sum(x.size for x in params.values()))
    scaled = f"(x / 255 - {_plain(constants.mean)}) / {_plain(constants.std)}"
    more = len(unexpected) - _SHOWN
    lines = [
        f"{spec}: {layout.title}, {len(converted.used)} arrays matched, {values} parameters",
        "model: " + ", ".join(f"{k} {v}" for k, v in model.items() if k != "kind"),
        f"pixels: {scaled}; {_spell(recipe['data']['ops'], size)}",
        *constants.notes,
        *head_lines,
        *moved,
        *_zeroed(params),
        *[f"left out: {line}" for line in [*left, *elsewhere]],
        *[f"unexpected: {name}" for name in unexpected[:_SHOWN]],
        *([f"unexpected: ... and {more} more"] if more > 0 else []),
    ]
    return Published(
        spec=spec,
        title=layout.title,
        params=params,
        recipe=recipe,
        image_size=size,
        positions=layout.positions,
        patches=layout.patches,
        class_names=constants.class_names,
        unexpected=tuple(unexpected),
        lines=tuple(lines),
    )


def stated_size(overrides: Sequence[tuple[str, str]]) -> tuple[int, int] | None:
    """(height, width) that overrides set ``data.image_size`` to, or None."""
    sizes = [config_files.parse_value(text, None) for key, text in overrides if key == "data.image_size"]
    if not sizes:
        return None
    checked = check(sizes[-1], int | tuple[int, int], "data.image_size")
    return (checked, checked) if isinstance(checked, int) else checked


def _own(spec: str, file: WeightFile) -> Published:
    """What ``ckpt export`` and ``convert --to vitax`` write: our names, with the recipe in them."""
    names = json.loads(file.metadata.get("class_names") or "null")
    line = f"{spec}: weights that vitax wrote, {len(file.arrays)} arrays"
    return of_recipe(spec, file.arrays, json.loads(file.metadata["recipe"]), names, line)


def of_recipe(
    spec: str, params: Mapping[str, np.ndarray], recipe: Mapping[str, Any], class_names: Any, line: str
) -> Published:
    """Parameters under our names with the recipe that they come from."""
    size = recipe["data"]["image_size"]
    # A recipe leaves classes to its data; parameters have what they have.
    model = {"num_classes": recipe["data"]["num_classes"]} | {k: v for k, v in recipe["model"].items() if v is not None}
    return Published(
        spec=spec,
        title="vitax",
        params=params,
        recipe={**recipe, "model": model},
        image_size=(size, size) if isinstance(size, int) else tuple(size),
        class_names=tuple(class_names) if class_names else None,
        lines=(line, *_zeroed(params)),
    )


def _sizes(layout: Layout, file: WeightFile, constants: Constants) -> tuple[dict[str, int], list[str]]:
    """Heads, where the shapes do not have them, and how they were found."""
    if layout.width is None:
        return {}, []
    width = int(file.arrays[layout.width].shape[-1])
    if constants.num_heads:
        return {"num_heads": constants.num_heads}, []
    depth = len({m[1] for name in file.arrays if (m := re.search(r"(?:blocks|layer)\.(\d+)\.", name))})
    known = {s.num_heads for s in SIZES.values() if (s.width, s.depth) == (width, depth)}
    if len(known) == 1:
        return {"num_heads": known.pop()}, [f"num_heads: not in the file; that of the published size of width {width}"]
    if width % _HEAD_DIM:
        raise UserError(
            f"{file.path}: the number of heads is not in the file, and its width {width} is no multiple of "
            f"{_HEAD_DIM}; put its config.json beside it."
        )
    line = (
        f"num_heads: {width // _HEAD_DIM}, taking heads to be {_HEAD_DIM} wide: no config.json beside the file says it"
    )
    return {"num_heads": width // _HEAD_DIM}, [line]


def _pool(params: Mapping[str, Any]) -> str:
    return "map" if "map_head/probe" in params else "tok" if "cls" in params else "gap"


def _folded(
    arrays: Mapping[str, np.ndarray],
    pool: str,
    layout: Layout,
    constants: Constants,
    hint: tuple[int, int] | None,
) -> tuple[dict[str, np.ndarray], list[str], tuple[int, int]]:
    """Tokens and positions as ours, and the size of the images that the positions are for."""
    for name in ("embedding/kernel", "pos_embedding"):
        if name not in arrays:
            raise UserError(f"{layout.title}: {name} is missing from the file.")
    patch = arrays["embedding/kernel"].shape[:2]
    problem: UserError | None = None
    for size in dict.fromkeys((constants.image_size, None, hint)):
        patches = (size[0] // patch[0]) * (size[1] // patch[1]) if size else None
        try:
            params, lines = tokens.fold(arrays, pool, patches, layout.cls_slot)
        except UserError as error:
            problem = problem or error
            continue
        slots = params["pos_embedding"].shape[1] - (pool == "tok")
        grid = (size[0] // patch[0], size[1] // patch[1]) if size else tokens.grid_of(slots)
        if grid is not None and grid[0] * grid[1] == slots:
            return params, lines, (grid[0] * patch[0], grid[1] * patch[1])
    raise problem or UserError(
        f"{layout.title}: its {slots} patches make no square; give the size of the images with "
        "--config.data.image_size=(HEIGHT,WIDTH)."
    )


def _model(params: Mapping[str, np.ndarray], pool: str, final_norm_last: bool, constants: Constants) -> dict[str, Any]:
    """Constructor fields of the ViT, from shapes."""
    kernel, query = params["embedding/kernel"], params["encoder/block_00/attention/query/kernel"]
    patch = kernel.shape[:2]
    hidden = params["pre_logits/kernel"].shape[1] if "pre_logits/kernel" in params else 0
    fields: dict[str, Any] = {
        "kind": "vit",
        "width": kernel.shape[-1],
        "depth": len({name.split("/")[1] for name in params if name.startswith("encoder/block_")}),
        "mlp_dim": params["encoder/block_00/mlp/in/kernel"].shape[1],
        "num_heads": query.shape[1],
        "patch_size": patch[0] if patch[0] == patch[1] else patch,
        "num_classes": params["head/bias"].shape[0] if "head/bias" in params else 0,
        "pool": pool,
        "gelu": constants.gelu,
        "norm_eps": constants.norm_eps,
    }
    if final_norm_last:
        if pool != "gap":
            raise UserError(f"a norm after pooling is for mean pooling alone, and the file pools by {pool}.")
        fields["norm_after_pool"] = True
    if "registers" in params:
        fields["num_registers"] = params["registers"].shape[1]
    if "encoder/block_00/layer_scale_1" in params:
        fields["layer_scale"] = _LAYER_SCALE_START
    if hidden:
        fields["pre_logits"] = True if hidden == kernel.shape[-1] else hidden
    return fields


def _for_channels(constants: Constants, channels: int) -> Constants:
    """Scaling of RGB, where that is only assumed, as one value for another number of channels.

    Three values would broadcast a grey image to three channels, which the first kernel does not take.
    """
    if {len(constants.mean), len(constants.std)} <= {1, channels}:
        return constants
    mean, std = (sum(x) / len(x) for x in (constants.mean, constants.std))
    return dataclasses.replace(constants, mean=(mean,), std=(std,))


def _recipe(
    params: Mapping[str, np.ndarray], model: Mapping[str, Any], size: tuple[int, int], constants: Constants
) -> dict[str, Any]:
    """A recipe that evaluates; what only training needs is there for form's sake."""
    side: int | tuple[int, int] = size[0] if size[0] == size[1] else size
    return {
        "model": dict(model),
        "objective": {"kind": "classification", "mean": constants.mean, "std": constants.std},
        "data": {
            "source": {"kind": "labelled", "path": "."},
            "num_examples": 1,
            "num_classes": model["num_classes"] or 1,
            "image_size": side,
            "channels": params["embedding/kernel"].shape[2],
            "ops": constants.ops(size),
            "batch_size": 64,
        },
        "optimizer": {"kind": "sgd", "lr": 1e-3},
        "schedule": {"kind": "constant"},
        "duration": {"steps": 1},
    }


def _zeroed(params: Mapping[str, np.ndarray]) -> list[str]:
    if "head/kernel" not in params or np.any(params["head/kernel"]):
        return []
    return ["head: all zeros, as it was published: every class gets the same score until it is fine-tuned"]


def _plain(values: tuple[float, ...]) -> str:
    return f"{values[0]:g}" if len(set(values)) == 1 else str(list(values))


def _spell(ops: tuple[dict[str, Any], ...], size: tuple[int, int]) -> str:
    how = {
        "resize": "resized to {height}x{width} whatever the aspect ratio ({method})",
        "resize_small": "smaller side to {smaller} ({method})",
        "central_crop": "cropped to {height}x{width}",
    }
    said = [how[op["kind"]].format(height=size[0], width=size[1], **op) for op in ops if op["kind"] in how]
    return ", ".join(said)


def differences(published: Published, recipe: Mapping[str, Any]) -> list[str]:
    """Settings of a recipe that differ from those the weights were trained with, as lines."""
    lines = []
    for part, names in (("model", ("gelu", "norm_eps", "pool", "norm_after_pool")), ("objective", ("mean", "std"))):
        defaults = {
            "gelu": "tanh",
            "norm_eps": 1e-6,
            "pool": "tok",
            "norm_after_pool": False,
            "mean": (0.5,),
            "std": (0.5,),
        }
        for name in names:
            theirs, ours = (x[part].get(name, defaults[name]) for x in (published.recipe, recipe))
            if _alike(theirs) != _alike(ours):
                lines.append(f"{part}.{name}: the weights were trained with {theirs}, the recipe has {ours}")
    return lines


def _alike(value: Any) -> Any:
    values = tuple(value) if isinstance(value, list | tuple) else value
    return values[:1] if isinstance(values, tuple) and len(set(values)) == 1 else values
