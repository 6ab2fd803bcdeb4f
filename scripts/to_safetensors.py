"""Turns a PyTorch state dict or an ONNX file into safetensors, which vitax reads.

    python scripts/to_safetensors.py SOURCE.pth TARGET.safetensors [--key state_dict]
    python scripts/to_safetensors.py SOURCE.onnx TARGET.safetensors [--join NAME=FIRST,SECOND ...]

Needs scripts/requirements-to-safetensors.txt; vitax itself is not needed. Names and
arrays stay as they are, with two exceptions in ONNX files that PyTorch exported. There
the matrix of a linear layer has lost its name and is transposed: it is named after the
bias that is added to its product, and transposed back. A parameter that was cut up when
it was exported is put together by ``--join``, along axis 1.

A .pth is read by ``torch.load(weights_only=True)``, which runs no code of the file;
whatever it refuses is not read.
"""

import argparse
import importlib
import pickle
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

REQUIREMENTS = "scripts/requirements-to-safetensors.txt"
TORCH = (".pth", ".pt", ".bin", ".ckpt")


class Node(NamedTuple):
    """An operation of an ONNX graph: its kind and the names of what goes in and comes out."""

    kind: str
    inputs: Sequence[str]
    outputs: Sequence[str]


def main(words: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("source", type=Path, help=f"*.onnx or one of {' '.join(f'*{s}' for s in TORCH)}")
    parser.add_argument("target", type=Path, help="*.safetensors")
    parser.add_argument("--key", help="where in a .pth the state dict is, such as state_dict or model")
    parser.add_argument("--join", action="append", default=[], metavar="NAME=FIRST,SECOND", help="put arrays together")
    args = parser.parse_args(words)
    if args.target.suffix != ".safetensors":
        sys.exit(f"{args.target}: expected a name that ends in .safetensors.")
    if not args.source.is_file():
        sys.exit(f"{args.source}: no such file.")
    convert(args.source, args.target, args.key, dict(_pair(text) for text in args.join))


def convert(
    source: Path, target: Path, key: str | None = None, joins: Mapping[str, Sequence[str]] | None = None
) -> None:
    """Reads one file and writes the other; says how many arrays, and which have no real name."""
    if source.suffix == ".onnx":
        arrays = read_onnx(source)
    elif source.suffix in TORCH:
        arrays = read_torch(source, key)
    else:
        sys.exit(f"{source}: expected *.onnx or one of {' '.join(f'*{s}' for s in TORCH)}.")
    arrays = joined(arrays, joins or {})
    save_file = _needed("safetensors.numpy", target).save_file
    target.parent.mkdir(parents=True, exist_ok=True)
    # One owner of its memory each, without gaps.
    save_file({name: np.array(x, order="C") for name, x in arrays.items()}, str(target), {"format": "pt"})
    print(f"{target}: {len(arrays)} arrays, {sum(x.size for x in arrays.values()):,} values")
    for name in arrays:
        if name.startswith("onnx::"):
            print(f"  without a name of its own: {name} {list(arrays[name].shape)}")


def read_torch(path: Path, key: str | None = None) -> dict[str, np.ndarray]:
    """Name -> array of a state dict, at ``key`` of the file where it is not all of it."""
    torch = _needed("torch", path)
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        sys.exit(f"{path}: torch.load(weights_only=True) refuses it, and it is not read in any other way: {reason}")
    for part in key.split(".") if key else ():
        if not isinstance(held, Mapping) or part not in held:
            sys.exit(f"{path}: no {key} in it. There is: {_keys(held)}.")
        held = held[part]
    if not isinstance(held, Mapping) or not held or not all(isinstance(x, torch.Tensor) for x in held.values()):
        sys.exit(f"{path}: expected names and tensors, found {_keys(held)}. Say which with --key NAME.")
    # NumPy has no bfloat16; nothing is lost in float32.
    return {name: (x.float() if x.dtype == torch.bfloat16 else x).detach().numpy() for name, x in held.items()}


def _keys(held: Any) -> str:
    return ", ".join(map(str, list(held)[:10])) if isinstance(held, Mapping) else type(held).__name__


def read_onnx(path: Path) -> dict[str, np.ndarray]:
    """Name -> array of the initialisers of a graph."""
    onnx = _needed("onnx", path)
    graph = onnx.load(str(path)).graph
    arrays = {x.name: onnx.numpy_helper.to_array(x) for x in graph.initializer}
    return named(arrays, [Node(n.op_type, n.input, n.output) for n in graph.node])


def named(arrays: Mapping[str, np.ndarray], nodes: Sequence[Node]) -> dict[str, np.ndarray]:
    """Initialisers, with linear layers as PyTorch has them.

    Args:
      arrays: name in the graph -> array.
      nodes: of the graph.

    Returns:
      The same, where the matrix of a product to which ``X.bias`` is added is ``X.weight``,
      [out, in].
    """
    matrices = {n.outputs[0]: n.inputs[1] for n in nodes if n.kind == "MatMul" and n.inputs[1] in arrays}
    names: dict[str, str] = {}
    for node in nodes:
        if node.kind == "Add":
            products = [matrices[x] for x in node.inputs if x in matrices]
            biases = [x for x in node.inputs if x in arrays and x.endswith(".bias")]
            if products and biases:
                names[products[0]] = f"{biases[0].removesuffix('.bias')}.weight"
    return {names.get(name, name): x.T if name in names else x for name, x in arrays.items()}


def joined(arrays: Mapping[str, np.ndarray], joins: Mapping[str, Sequence[str]]) -> dict[str, np.ndarray]:
    """Arrays with some put together along axis 1: new name -> names of the parts, in order."""
    out = dict(arrays)
    for name, parts in joins.items():
        absent = [part for part in parts if part not in out]
        if absent:
            sys.exit(f"--join {name}: no {', '.join(absent)} in the file.")
        out[name] = np.concatenate([out.pop(part) for part in parts], axis=1)
    return out


def _pair(text: str) -> tuple[str, list[str]]:
    name, _, parts = text.partition("=")
    if not name or "," not in parts:
        sys.exit(f"--join {text}: expected NAME=FIRST,SECOND.")
    return name, parts.split(",")


def _needed(name: str, path: Path) -> Any:
    package = name.partition(".")[0]
    try:
        return importlib.import_module(name)
    except ImportError:
        sys.exit(f"{path} needs the package {package}, which is not here: pip install -r {REQUIREMENTS}")


if __name__ == "__main__":
    main()
