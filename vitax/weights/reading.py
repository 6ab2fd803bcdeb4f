"""Published weight files as checkpoints: what they hold, under our names, with the model and recipe they imply.

What differs from family to family is in ``weights.reading_vit``, ``reading_bit``, ``reading_efficientnet`` and
``reading_text``.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from vitax import carried_tokenizers, config_files
from vitax.checkpoint import convert, files, offline, store, warm_start
from vitax.checkpoint.files import WeightFile, is_weight_file
from vitax.checkpoint.names import bert, bit, efficientnet, efficientnet_pytorch, google, gpt, huggingface, timm
from vitax.checkpoint.names.layout import Layout, VitLayout, left_out, recognise
from vitax.construct import check, construct, fields_of
from vitax.core import tree
from vitax.core.errors import UserError
from vitax.models import table
from vitax.models.table import MODELS
from vitax.parallel.rules import unbox
from vitax.specs import kinds
from vitax.train.terminal import count
from vitax.weights import reading_bit, reading_efficientnet, reading_text, reading_vit
from vitax.weights.family import Family
from vitax.weights.fitting import Fit, stored_grid

LAYOUTS: tuple[Layout, ...] = (
    *(*google.LAYOUTS, *timm.LAYOUTS, *huggingface.LAYOUTS),
    *(*bit.LAYOUTS, *efficientnet.LAYOUTS, efficientnet_pytorch.LAYOUT),
    *(*gpt.LAYOUTS, *bert.LAYOUTS),
)
# Family of a layout -> what it says.
FAMILIES: dict[str, Family] = {
    "vit": reading_vit.FAMILY,
    "bit": reading_bit.FAMILY,
    "efficientnet": reading_efficientnet.FAMILY,
    "gpt": reading_text.GPT,
    "bert": reading_text.BERT,
}
# Kind of a model -> its family.
FAMILY_OF = {"vit": "vit", "hybrid": "vit"} | {name: name for name in FAMILIES if name != "vit"}
# Fields of a model that are of a run, not of its weights.
RUN_FIELDS = ("image_size", "dtype", "remat", "unroll", "attention_kernel")
_SHOWN = 8


@dataclasses.dataclass(frozen=True)
class Published:
    """A weight file, read.

    Attributes:
      spec: as it was asked for.
      title: of its layout.
      params: our name -> array, memory-mapped where nothing had to be rearranged; names of
        other collections begin with theirs: ``batch_stats/stem/norm/mean``.
      recipe: plain data: the model, how pixels are scaled and images prepared, or the tokenizer.
      image_size: (height, width), of its positions where there are any; None for text.
      grid: (rows, columns) of patches, where there are positions.
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
    image_size: tuple[int, int] | None
    grid: tuple[int, int] | None = None
    positions: str = "corner_linear"
    patches: str = "bilinear"
    class_names: tuple[str, ...] | None = None
    unexpected: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()

    @property
    def family(self) -> Family:
        """What is known of its family."""
        return FAMILIES[FAMILY_OF[self.recipe["model"]["kind"]]]

    @property
    def size(self) -> tuple[int, int]:
        """``image_size`` of a model of images."""
        assert self.image_size is not None
        return self.image_size

    @property
    def fields(self) -> dict[str, Any]:
        """Every constructor field of the model, defaults too."""
        return with_defaults(self.recipe["model"])

    def fit(self, model: Any, image_size: tuple[int, int] | None, positions: str = "auto") -> Fit:
        """How its arrays become those of a model of another size: ``auto`` as its own program resamples."""
        method = self.positions if positions == "auto" else positions
        return Fit(model, image_size, "cls" in self.params, self.grid, method, self.patches)

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
        inputs = table.inputs(model, self.image_size, self.recipe["data"].get("channels", 3))
        variables = dict(unbox(jax.eval_shape(model.init, jax.eval_shape(jax.random.key, 0), *inputs)))
        return dict(tree.named_leaves({**variables.pop("params"), **variables}))


def with_defaults(model: Mapping[str, Any]) -> dict[str, Any]:
    """Constructor fields with ``kind`` -> all of them."""
    return {name: field.default for name, field in fields_of(MODELS[model["kind"]]).items()} | dict(model)


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
    family = FAMILIES[layout.family]
    constants = layout.constants(file)
    sizes, size_lines = family.sizes(layout, file, constants)
    renamed = layout.rename(file)
    source = {renamed.get(name, name): x for name, x in file.arrays.items()}
    converted = convert.to_ours(layout.table, source, sizes)
    in_file = {new: old for old, new in renamed.items()}
    left, unexpected = left_out(layout, [in_file.get(name, name) for name in converted.unexpected])
    unexpected += converted.incomplete
    shaped = family.shape(layout, constants, converted.arrays, image_size)
    recipe, inputs = family.recipe(file, constants, shaped)
    elsewhere = [f"{len(file.elsewhere)} arrays outside of {file.root}"] if file.elsewhere else []
    values = count(sum(x.size for name, x in shaped.variables.items() if not name.startswith("batch_stats/")))
    more = len(unexpected) - _SHOWN
    lines = [
        f"{spec}: {layout.title}, {len(converted.used)} arrays matched, {values} parameters",
        "model: " + ", ".join(f"{k} {v}" for k, v in shaped.model.items() if k != "kind"),
        inputs,
        *constants.notes,
        *size_lines,
        *shaped.lines,
        *_zeroed(shaped.variables),
        *[f"left out: {line}" for line in [*left, *elsewhere]],
        *[f"unexpected: {name}" for name in unexpected[:_SHOWN]],
        *([f"unexpected: ... and {more} more"] if more > 0 else []),
    ]
    resampling = {"positions": layout.positions, "patches": layout.patches} if isinstance(layout, VitLayout) else {}
    return Published(
        spec=spec,
        title=layout.title,
        params=shaped.variables,
        recipe=recipe,
        image_size=shaped.image_size,
        grid=shaped.grid,
        **resampling,
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


def read(source: str, what: str = "--checkpoint", image_size: tuple[int, int] | None = None) -> Published:
    """A weight file, or the variables of a workdir (averaged where there are any), on the host.

    Args:
      source: as for ``load``, or ``DIR`` or ``DIR@STEP``.
      what: where the path was given, for messages.
      image_size: as for ``load``.

    Raises:
      UserError: no such checkpoint, or a damaged one.
    """
    if is_weight_file(source):
        return load(source, image_size)
    directory, step = warm_start.find(source, what)
    try:
        metadata, digests = store.read_metadata(directory, step)
        root = "ema" if any(name.startswith("ema/") for name in digests) else "params"
        names = warm_start.variables_of(digests, root)
        arrays = {names[name]: x for name, x in offline.arrays(directory, step, names)}
    except store.Damaged as problem:
        raise UserError(
            f"Checkpoint {directory / str(step)} is damaged: {problem}. Name another: DIR@STEP."
        ) from problem
    line = f"{source}: step {step}, {'averaged ' if root == 'ema' else ''}parameters"
    recipe = carried_tokenizers.unpack(metadata["recipe"], metadata.get("tokenizers"))
    return of_recipe(source, arrays, recipe, metadata.get("class_names"), line)


def _own(spec: str, file: WeightFile) -> Published:
    """What ``ckpt export`` and ``convert --to vitax`` write: our names, with the recipe in them."""
    names, packed = (json.loads(file.metadata.get(key) or "null") for key in ("class_names", "tokenizers"))
    line = f"{spec}: weights that vitax wrote, {len(file.arrays)} arrays"
    recipe = carried_tokenizers.unpack(json.loads(file.metadata["recipe"]), packed)
    return of_recipe(spec, file.arrays, recipe, names, line)


def of_recipe(
    spec: str, params: Mapping[str, np.ndarray], recipe: Mapping[str, Any], class_names: Any, line: str
) -> Published:
    """Parameters under our names with the recipe that they come from."""
    data = kinds.build(recipe["data"])
    # A recipe leaves classes, or the vocabulary, to its data; parameters have what they have.
    own = fields_of(MODELS[recipe["model"]["kind"]])
    given = {name: x for name, x in data.given.items() if name in own}
    model = given | {k: v for k, v in recipe["model"].items() if v is not None}
    return Published(
        spec=spec,
        title="vitax",
        params=params,
        recipe={**recipe, "model": model},
        image_size=data.size,
        grid=stored_grid(recipe) if "pos_embedding" in params else None,
        class_names=tuple(class_names) if class_names else None,
        lines=(line, *_zeroed(params)),
    )


def _zeroed(params: Mapping[str, np.ndarray]) -> list[str]:
    if "head/kernel" not in params or np.any(params["head/kernel"]):
        return []
    return ["head: all zeros, as it was published: every class gets the same score until it is fine-tuned"]


def differences(published: Published, recipe: Mapping[str, Any]) -> list[str]:
    """Settings of a recipe that differ from those the weights were trained with, as lines."""
    defaults = {"mean": (0.5,), "std": (0.5,), **with_defaults({"kind": published.recipe["model"]["kind"]})}
    numerics = [name for name in published.family.numerics if name in defaults]
    lines = []
    of_images = ("mean", "std") if published.image_size is not None else ()
    for part, names in (("model", numerics), ("objective", of_images)):
        for name in names:
            theirs, ours = (x[part].get(name, defaults[name]) for x in (published.recipe, recipe))
            if _alike(theirs) != _alike(ours):
                lines.append(f"{part}.{name}: the weights were trained with {theirs}, the recipe has {ours}")
    return lines


def _alike(value: Any) -> Any:
    values = tuple(value) if isinstance(value, list | tuple) else value
    return values[:1] if isinstance(values, tuple) and len(set(values)) == 1 else values
