"""Where published weight files lie: names of files -> addresses. Nothing here opens a connection."""

import re
from typing import NamedTuple
from urllib.parse import quote

from vitax.core.errors import UserError, suggest

BUCKETS = "https://storage.googleapis.com"
HUB = "https://huggingface.co"

# Folder -> names in it that are worth suggesting; others of the folder's grammar work too.
VIT_FOLDERS: dict[str, tuple[str, ...]] = {
    "imagenet21k": ("ViT-B_16", "ViT-B_32", "ViT-L_16", "ViT-L_32", "ViT-H_14", "R50+ViT-B_16"),
    "imagenet21k+imagenet2012": ("ViT-B_16", "ViT-B_32", "ViT-L_16", "ViT-L_32", "R50+ViT-B_16"),
    "sam": ("ViT-B_16", "ViT-B_32"),
    "gsam": ("ViT-B_16", "ViT-B_32", "ViT-S_16", "ViT-S_32"),
}
BIT_SIZES = ("50x1", "50x3", "101x1", "101x3", "152x2", "152x4")
BIT = tuple(f"BiT-{data}-R{size}" for data in ("S", "M") for size in BIT_SIZES)
SIGLIP = (
    *("webli_en_b16_224_63724782", "webli_en_b16_256_60500360", "webli_en_b16_384_68578854"),
    *("webli_en_b16_512_68580893", "webli_en_l16_256_60552751", "webli_en_l16_384_63634585"),
    *("webli_en_so400m_224_57633886", "webli_en_so400m_384_58765454", "webli_i18n_b16_256_66117334"),
)
GRAMMAR = """Names that are understood:
  FOLDER/ViT-B_16        Google's ViT files: imagenet21k, imagenet21k+imagenet2012, sam, gsam
  augreg/B_16-i21k-...   AugReg files by their whole name, without .npz
  BiT-M-R50x1            BiT files, also BiT-S-R50x1 and BiT-M-R50x1-ILSVRC2012
  siglip/webli_en_...    SigLIP files of big_vision
  timm/MODEL.TAG         e.g. timm/vit_base_patch16_224.augreg_in21k, or MODEL.TAG alone
  OWNER/MODEL            e.g. google/vit-base-patch16-224, facebook/dinov2-small, openai-community/gpt2"""
# Beside models of text; each has some of them.
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "merges.txt")


class Remote(NamedTuple):
    """A file to bring.

    Attributes:
      url: where it lies.
      file: what it is called in the cache.
      required: whether the weights are of no use without it.
    """

    url: str
    file: str
    required: bool = True


def locate(name: str) -> list[Remote]:
    """Addresses of the files of a published model, the weights first.

    Raises:
      UserError: a name of no grammar here; says which there are, and the nearest name.
    """
    folder, slash, stem = name.rpartition("/")
    stem = stem.removesuffix(".npz")
    if folder in VIT_FOLDERS or (folder == "augreg" and stem):
        return [Remote(f"{BUCKETS}/vit_models/{quote(folder)}/{quote(stem)}.npz", f"{stem}.npz")]
    if folder in ("siglip", "siglip2"):
        return [Remote(f"{BUCKETS}/big_vision/{folder}/{stem}.npz", f"{stem}.npz")]
    if re.fullmatch(r"BiT-[SM]-R\d+x\d+(-\S+)?", stem) and folder in ("", "bit_models"):
        return [Remote(f"{BUCKETS}/bit_models/{stem}.npz", f"{stem}.npz")]
    if not slash and re.fullmatch(r"(R\d+\+)?ViT-\w+", stem):
        holding = [f"{f}/{stem}" for f, names in VIT_FOLDERS.items() if stem in names]
        raise UserError(
            f'fetch: "{name}" is the name of several files. '
            + (f"Say which: {', '.join(holding)}." if holding else f"{suggest(stem, _all())} {GRAMMAR}")
        )
    if not slash and re.fullmatch(r"[a-z]\w*\.[a-z]\w*", name):
        return _hub(f"timm/{name}")
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        return _hub(name)
    raise UserError(f'fetch: cannot tell what "{name}" is.{suggest(name, _all())}\n{GRAMMAR}')


def _hub(name: str) -> list[Remote]:
    base = f"{HUB}/{name}/resolve/main"
    # What the shapes do not say, such as the number of heads, is in config.json.
    beside = ("config.json", *(() if name.startswith("timm/") else TOKENIZER_FILES))
    weights = Remote(f"{base}/model.safetensors", "model.safetensors")
    return [weights, *(Remote(f"{base}/{file}", file, required=False) for file in beside)]


def _all() -> list[str]:
    vits = [f"{folder}/{stem}" for folder, names in VIT_FOLDERS.items() for stem in names]
    return [*vits, *BIT, *(f"siglip/{stem}" for stem in SIGLIP)]
