"""Models by the names that people know: our own, Google's and timm's.

``vitax.create_model`` and ``vitax.list_models`` are these. Names of all three grammars for
one architecture give the same parameters; what differs is what came with the weights of
each: timm's ports compute the exact GELU, the originals its tanh form; epsilons differ too.
"""

import fnmatch
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from vitax.checkpoint.names import bit, timm
from vitax.core.errors import UserError, suggest


class Named(NamedTuple):
    """What a name stands for.

    Attributes:
      published: its name in ``models.table.published()``.
      image_size: side in pixels that the weights of this name are for; None for text.
      changes: constructor fields other than published.
    """

    published: str
    image_size: int | None
    changes: Mapping[str, Any]


_ERF = {"gelu": "erf"}
_DINO = {**_ERF, "layer_scale": 1.0, "num_classes": 0}
_HYBRID = {**_ERF, **timm.STEM}
_SIGLIP = {**_ERF, "pool": "map", "num_classes": 0}
# timm's name, but for the image size at its end -> our name, sizes in timm's names, changes.
_TIMM: dict[str, tuple[str, tuple[int, ...], dict[str, Any]]] = {
    "vit_tiny_patch16": ("ViT-Ti/16", (224, 384), _ERF),
    "vit_small_patch32": ("ViT-S/32", (224, 384), _ERF),
    "vit_small_patch16": ("ViT-S/16", (224, 384), _ERF),
    "vit_base_patch32": ("ViT-B/32", (224, 384), _ERF),
    "vit_base_patch16": ("ViT-B/16", (224, 384), _ERF),
    "vit_base_patch8": ("ViT-B/8", (224,), _ERF),
    "vit_large_patch32": ("ViT-L/32", (224, 384), _ERF),
    "vit_large_patch16": ("ViT-L/16", (224, 384), _ERF),
    "vit_huge_patch14": ("ViT-H/14", (224,), _ERF),
    "vit_giant_patch14": ("ViT-g/14", (224,), _ERF),
    "vit_gigantic_patch14": ("ViT-G/14", (224,), _ERF),
    "deit_tiny_patch16": ("ViT-Ti/16", (224,), _ERF),
    "deit_small_patch16": ("ViT-S/16", (224,), _ERF),
    "deit_base_patch16": ("ViT-B/16", (224, 384), _ERF),
    "vit_base_patch16_siglip": ("ViT-B/16", (224, 256, 384, 512), _SIGLIP),
    "vit_large_patch16_siglip": ("ViT-L/16", (256, 384), _SIGLIP),
    "vit_so400m_patch14_siglip": ("ViT-So400m/14", (224, 384), _SIGLIP),
    "vit_tiny_r_s16_p8": ("R+ViT-Ti/16", (224, 384), _HYBRID),
    "vit_small_r26_s32": ("R26+ViT-S/32", (224, 384), _HYBRID),
    "vit_base_r50_s16": ("R50+ViT-B/16", (224, 384), _HYBRID),
    "vit_large_r50_s32": ("R50+ViT-L/32", (224, 384), _HYBRID),
}
# Names that end without a size.
_TIMM_PLAIN: dict[str, Named] = {
    **{
        f"vit_{word}_patch14_{reg}dinov2": Named(
            f"ViT-{size}/16", 518, {**_DINO, "patch_size": 14, **({"num_registers": 4} if reg else {})}
        )
        for word, size in (("small", "S"), ("base", "B"), ("large", "L"))
        for reg in ("", "reg4_")
    },
    **{
        f"resnetv2_{size}_bit": Named(f"BiT-R{size}", 224, bit.NUMERICS_TORCH)
        for size in ("50x1", "50x3", "101x1", "101x3", "152x2", "152x4")
    },
}
_EFFICIENTNETS = ("B0", "B1", "B2", "B3", "B4", "B5", "B6", "B7", "L2")
# What PyTorch trained: symmetric padding and its own epsilon; only tf_ names compute as the originals.
_PORTED = {"padding": "symmetric", "norm_eps": 1e-5}
# timm's tags (after the dot) -> classes of their heads; None = as published, 1000.
TAGS: dict[str, int | None] = {
    **dict.fromkeys(
        (
            *(
                "augreg_in21k_ft_in1k",
                "augreg_in1k",
                "orig_in21k_ft_in1k",
                "sam_in1k",
                "fb_in1k",
                "augreg2_in21k_ft_in1k",
            ),
            *("goog_in21k_ft_in1k", "goog_teacher_in21k_ft_in1k", "goog_distilled_in1k"),
            *("ns_jft_in1k", "ns_jft_in1k_475", "aa_in1k", "ap_in1k", "in1k", "ra_in1k"),
        )
    ),
    "augreg_in21k": 21_843,
    "goog_in21k": 21_843,
    "orig_in21k": 0,
    "lvd142m": 0,
    "webli": 0,
}
_AUGREG = re.compile(
    r"(?P<size>(R_Ti|R26_S|R50_L|Ti|S|B|L)_\d+)-(?P<data>i1k|i21k)(_30)?-(?:(?!--).)*?(?P<tuned>--.*?)?(\.npz)?"
)


def names() -> dict[str, Named]:
    """Every name of the three grammars."""
    from vitax.models import table

    found: dict[str, Named] = {}
    for name in table.published():
        own = Named(name, table.native_size(name), {})
        found[name] = own
        if name.startswith("BiT-"):
            found |= {name.replace("BiT-", f"BiT-{data}-"): own for data in ("S", "M", "L")}
        elif "/" in name:
            google = name.replace("/", "_")
            # AugReg's files leave "ViT" out: B_16, R50_L_32.
            found |= {google: own, google.replace("+ViT-", "_").removeprefix("ViT-"): own}
    for stem, (published, sizes, changes) in _TIMM.items():
        found |= {f"{stem}_{size}": Named(published, size, changes) for size in sizes}
    found |= _TIMM_PLAIN
    for size in _EFFICIENTNETS:
        own = found[f"EfficientNet-{size}"]
        found[f"tf_efficientnet_{size.lower()}"] = own
        if size != "L2":
            found[f"efficientnet_{size.lower()}"] = own._replace(changes=_PORTED)
    return found


def list_models(pattern: str = "*") -> list[str]:
    """Names that match a shell pattern, in all grammars: ``list_models("vit_base*")``, ``list_models("BiT-M-*")``."""
    return sorted(fnmatch.filter(names(), pattern))


def resolve(name: str) -> Named:
    """What a name stands for; a tag of timm (``.augreg_in21k``) and AugReg's whole file names are understood.

    Raises:
      UserError: an unknown name or tag; names the nearest.
    """
    known = names()
    if augreg := _AUGREG.fullmatch(name):
        classes = {"num_classes": 21_843} if augreg["data"] == "i21k" and not augreg["tuned"] else {}
        return known[augreg["size"]]._replace(changes=classes)
    stem, dot, tag = name.removeprefix("timm/").removesuffix(".npz").partition(".")
    if stem not in known:
        more = " `vitax models` and vitax.list_models('vit_b*') list them."
        raise UserError(f'create_model: no model "{name}".{suggest(stem, known)}{more}')
    if not dot:
        return known[stem]
    if tag not in TAGS:
        raise UserError(f'create_model: no tag "{tag}" of {stem}.{suggest(tag, TAGS)} Tags: {", ".join(TAGS)}.')
    stated = {} if TAGS[tag] is None else {"num_classes": TAGS[tag]}
    return known[stem]._replace(changes={**known[stem].changes, **stated})


def create_model(
    name: str,
    num_classes: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    *,
    checkpoint: str | None = None,
    abstract: bool = False,
    seed: int = 0,
    **changes: Any,
) -> tuple[Any, Any]:
    """A module and its variables, by a name of our own, Google's or timm's grammar.

    ::

        model, variables = vitax.create_model("ViT-B/16", num_classes=10, checkpoint="ViT-B_16.npz")
        output = model.apply(variables, images, return_intermediates=True)
        output.logits, output.features, output.intermediates["patch_tokens"]

    Args:
      name: e.g. ``ViT-B/16``, ``ViT-B_16``, ``vit_base_patch16_224``, ``BiT-M-R50x1``.
      num_classes: of the head; 0 for none; None for what the checkpoint has, or the name
        says (mostly 1000).
      image_size: side in pixels or (height, width); None likewise.
      checkpoint: a published weight file or a workdir (``DIR`` or ``DIR@STEP``). Positions
        and patch kernels are resampled to what is asked, by the method of the program that
        the file comes from; the head starts afresh where the classes differ. What was done
        with every array that was not simply placed is printed on stderr. Numerics such as
        ``gelu`` and ``norm_eps`` are the checkpoint's, unless ``changes`` has them.
      abstract: shapes and dtypes (``jax.ShapeDtypeStruct``) in place of arrays: any size,
        in no memory.
      seed: of the random parameters.
      **changes: any other field of the module, e.g. ``patch_size=8``, ``dtype="bfloat16"``.

    Returns:
      (Flax module, variables ``{"params": ..., ...}``). Images are float32 [B, H, W, 3],
      tokens int32 [B, T].

    Raises:
      UserError: an unknown name or field, a size that the patches do not divide, or a
        checkpoint of another model.
    """
    import jax
    import jax.numpy as jnp

    from vitax.construct import construct
    from vitax.models import table
    from vitax.parallel.rules import unbox

    found = resolve(name)
    own = table.published()[found.published]
    if checkpoint is not None:
        from vitax.weights import pretrained

        if abstract:
            raise UserError("create_model: abstract has no arrays, so leave checkpoint out.")
        asked = pretrained.Asked(name, {**own, **found.changes}, changes, num_classes, image_size, seed)
        return pretrained.load(checkpoint, asked)
    fields = {**own, **found.changes, **changes}
    if num_classes is not None:
        fields["num_classes"] = num_classes
    size = found.image_size if image_size is None else image_size
    model: Any = construct(table.MODELS, fields, "create_model", image_size=size)
    one = table.inputs(model, size)

    def init(key: Any) -> Any:
        return unbox(model.init(key, *(jnp.zeros(x.shape, x.dtype) for x in one)))

    if abstract:
        return model, jax.eval_shape(init, jax.eval_shape(jax.random.key, 0))
    return model, jax.jit(init)(jax.random.key(seed))
