"""The models by name, the published sizes, and what each costs without allocating it."""

from typing import Any

import jax
import jax.numpy as jnp

from vitax.core import tree
from vitax.core.errors import pick
from vitax.cost import flops
from vitax.models import bert_sizes, bit_sizes, efficientnet_sizes, gpt_sizes, transformer_sizes, vit_sizes
from vitax.models.bert import BERT
from vitax.models.bit import BiT
from vitax.models.efficientnet import EfficientNet
from vitax.models.gpt import GPT
from vitax.models.hybrid import Hybrid
from vitax.models.transformer import Transformer
from vitax.models.vit import ViT

MODELS: dict[str, type] = {
    "vit": ViT,
    "hybrid": Hybrid,
    "bit": BiT,
    "efficientnet": EfficientNet,
    "gpt": GPT,
    "bert": BERT,
    "transformer": Transformer,
}

_VIT_NAMES = (
    *("Ti/16", "S/32", "S/16", "M/16", "B/32", "B/16", "B/8", "L/32", "L/16"),
    *("H/14", "g/14", "G/14", "e/14", "So400m/14"),
)


def published() -> dict[str, dict[str, Any]]:
    """Published models: name -> constructor fields, with ``kind``.

    All have a head of 1000 classes, the ViTs the cls token, but ``So400m`` (attention
    pooling, no head), as their parameters are counted in print.
    """
    models: dict[str, dict[str, Any]] = {}
    for name in _VIT_NAMES:
        models[f"ViT-{name}"] = {"kind": "vit", **vit_sizes.fields(name), "pool": "tok", "num_classes": 1000}
    models["ViT-So400m/14"] |= {"pool": "map", "num_classes": 0}
    for name in vit_sizes.HYBRIDS:
        models[name] = {"kind": "hybrid", **vit_sizes.hybrid_fields(name), "num_classes": 1000}
    for name in bit_sizes.NAMES:
        models[f"BiT-{name}"] = {"kind": "bit", **bit_sizes.fields(name), "num_classes": 1000}
    for name in efficientnet_sizes.SIZES:
        models[f"EfficientNet-{name}"] = {
            "kind": "efficientnet",
            **efficientnet_sizes.fields(name),
            "num_classes": 1000,
        }
    for name in gpt_sizes.SIZES:
        models[name] = {"kind": "gpt", **gpt_sizes.fields(name)}
    for name in bert_sizes.SIZES:
        models[name] = {"kind": "bert", **bert_sizes.fields(name)}
    for name in transformer_sizes.SIZES:
        models[f"Transformer-{name}"] = {"kind": "transformer", **transformer_sizes.fields(name)}
    return models


def native_size(name: str) -> int | None:
    """Side in pixels of the images that a published model is made for, and its cost is printed at; None for text."""
    if name in gpt_sizes.SIZES or name in bert_sizes.SIZES or name.startswith("Transformer-"):
        return None
    size = efficientnet_sizes.SIZES.get(name.removeprefix("EfficientNet-"))
    return 224 if size is None else size.image_size


def inputs(
    model: Any, image_size: int | tuple[int, int] | None = 224, channels: int = 3
) -> tuple[jax.ShapeDtypeStruct, ...]:
    """The shapes of one input: an image float32 [1, height, width, C], or tokens int32 [1, context], twice for a pair.

    Args:
      model: of ``MODELS``.
      image_size: side in pixels, or (height, width); not read for text.
      channels: of the image; not read for text.
    """
    if isinstance(model, GPT | BERT | Transformer):
        return (jax.ShapeDtypeStruct((1, model.context), jnp.int32),) * (1 + isinstance(model, Transformer))
    height, width = image_size if isinstance(image_size, tuple) else (image_size, image_size)
    return (jax.ShapeDtypeStruct((1, height, width, channels), jnp.float32),)


def abstract(name: str, image_size: int | tuple[int, int] | None = 224, **changes: Any) -> tuple[Any, Any, Any]:
    """A published model with the shapes of its variables and of one input: nothing is allocated.

    Args:
      name: a name of ``published()``.
      image_size: side in pixels, or (height, width).
      **changes: constructor fields other than published, e.g. ``num_classes``.

    Returns:
      (model, variables, inputs as of ``inputs``), the last two as ``jax.ShapeDtypeStruct``.

    Raises:
      UserError: an unknown name, or a size that the patches do not divide.
    """
    fields = dict(pick(published(), name, "models")) | changes
    # Scanned, so that tracing does not grow with depth; parameters and costs are the same.
    model = MODELS[fields.pop("kind")](**fields, unroll=False)
    one = inputs(model, image_size)
    # An abstract key: a real one would start the devices.
    return model, jax.eval_shape(model.init, jax.eval_shape(jax.random.key, 0), *one), one


def summary(
    name: str, image_size: int | tuple[int, int] | None = None, num_classes: int | None = None
) -> dict[str, Any]:
    """Size and cost of a published model, from shapes alone: nothing is allocated.

    Args:
      name: a name of ``published()``.
      image_size: side in pixels, or (height, width); None takes ``native_size``.
      num_classes: classes of the head; None keeps the published head.

    Returns:
      ``name``, ``parameters`` (elements, running statistics not counted), ``gmacs`` (1e9
      multiply-accumulates of one forward pass of one image, or of one sequence of text),
      ``tokens`` (length of the sequence; None for a convolutional network), ``image_size``
      (None for text).

    Raises:
      UserError: an unknown name, or a size that the patches do not divide.
    """
    size = native_size(name) if image_size is None else image_size
    model, variables, one = abstract(name, size, **({} if num_classes is None else {"num_classes": num_classes}))
    cost = flops.forward_flops(model, variables, *one)
    return {
        "name": name,
        "parameters": tree.size(variables["params"]),
        "gmacs": cost.macs / 1e9,
        "tokens": model.num_tokens(size) if hasattr(model, "num_tokens") else None,
        "image_size": list(size) if isinstance(size, tuple) else size,
    }
