"""Reads a program that XLA compiled: what each op multiplies, moves and sends.

The text form of an optimised module (``compiled.as_text()``) names every op that
will run, with its layout. From it come matrix-product FLOPs, HBM bytes with the
padding of the chip's tiles, collectives with their groups, and the TPU compiler's
own cycle estimates where it states them. Loops count as often as they run, unlike
in XLA's cost analysis, which counts a body once.
"""

import dataclasses
import math
import re
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
# These name or regroup buffers and move nothing.
_FREE = ("parameter", "constant", "get-tuple-element", "tuple", "bitcast", "after-all", "partition-id", "replica-id")
_ITEM_BITS = {"pred": 8, "s4": 4, "u4": 4, "bf16": 16, "c64": 64, "c128": 128, "token": 0, "opaque": 0}

_HEADER = re.compile(r"^(ENTRY\s+)?%?([\w.\-]+)\s*\(.*->.*\{\s*$")
_LINE = re.compile(r"^\s*(ROOT\s+)?%?([\w.\-]+)\s*=\s*(.*)$")
_SHAPE = re.compile(r"(\w+)\[([\d,]*)\](?:\{([\d,]*)((?::[^{}]*)?)\})?")
_CALLED = re.compile(r"(?:calls|body|to_apply)=%?([\w.\-]+)")
_IOTA = re.compile(r"\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")


@dataclasses.dataclass(frozen=True)
class Shape:
    """One array: element type, dimensions, and what it takes in memory.

    Attributes:
      bits: of one element.
      dims: logical dimensions.
      hbm_bytes: with the padding of its tiles; 0 where it does not live in HBM (``S(n)``).
    """

    bits: int
    dims: tuple[int, ...]
    hbm_bytes: int

    @property
    def num_bytes(self) -> int:
        """Without padding."""
        return math.prod(self.dims) * self.bits // 8


@dataclasses.dataclass(frozen=True)
class Op:
    """One op of the program as it will run on each device.

    Attributes:
      name: as in the module.
      opcode: ``fusion``, ``all-reduce``, ``copy`` ...
      scope: where it comes from (the ``op_name`` of its metadata), or "".
      flops: of the matrix products and convolutions in it, 2 a multiply-accumulate; of a
        hand-written kernel what its author declares, 0 where that is nothing.
      hbm_bytes: read and written, padded.
      cycles: the TPU compiler's estimate, or None.
      times: how often it runs (its loops' trip counts multiplied).
      collective: one of ``COLLECTIVES``, or None.
      payload_bytes: of a collective: the whole array that it reduces or gathers.
      group: devices that take part in one collective together.
      slices: over how many slices a collective's groups reach.
      kernel: whether it is a hand-written kernel, which the compiler does not look into:
        it has no cycles, and the compiler's own time takes its declared cost as true.
    """

    name: str
    opcode: str
    scope: str
    flops: int
    hbm_bytes: int
    cycles: int | None
    times: int = 1
    collective: str | None = None
    payload_bytes: int = 0
    group: int = 1
    slices: int = 1
    kernel: bool = False


@dataclasses.dataclass(frozen=True)
class _Instruction:
    name: str
    opcode: str
    shapes: tuple[Shape, ...]
    operands: tuple[str, ...]
    rest: str
    root: bool


class Module:
    """A parsed module.

    Args:
      text: ``compiled.as_text()``.
      devices_per_slice: to tell collectives within a slice from those across; 0 = one slice.
    """

    def __init__(self, text: str, devices_per_slice: int = 0):
        self._computations: dict[str, dict[str, _Instruction]] = {}
        self._flops: dict[str, int] = {}
        self._slice = devices_per_slice
        self._entry = ""
        current: dict[str, _Instruction] | None = None
        for line in text.splitlines():
            header = _HEADER.match(line) if not line.startswith(" ") else None
            if header:
                current = self._computations.setdefault(header[2], {})
                self._entry = header[2] if header[1] else self._entry
            elif current is not None and line.startswith(" "):
                instruction = _parse(line)
                if instruction is not None:
                    current[instruction.name] = instruction
        if not self._entry:
            raise ValueError("Not the text of an HLO module: it has no ENTRY computation.")

    def ops(self) -> list[Op]:
        """Everything that runs, loops entered."""
        return list(self._walk(self._entry, 1))

    def _walk(self, name: str, times: int) -> Iterator[Op]:
        computation = self._computations[name]
        for instruction in computation.values():
            opcode = instruction.opcode
            if opcode in _FREE or opcode.endswith("-done"):
                continue
            if opcode == "while":
                yield from self._loop(instruction, times)
                continue
            if opcode in ("call", "conditional", "async-start"):
                for called in _called(instruction):
                    yield from self._walk(called, times)
                continue
            yield self._op(instruction, computation, times)

    def _loop(self, instruction: _Instruction, times: int) -> Iterator[Op]:
        trips = self._trips(instruction)
        for op in self._walk(_called(instruction)[0], times * (trips or 1)):
            if trips is None and op.flops:
                raise ValueError(f"How often the loop {instruction.name} runs is not written in the module.")
            yield op

    def _trips(self, instruction: _Instruction) -> int | None:
        """How often a loop runs: stated by XLA for the CPU; on TPU the bound of its condition ``i < n``."""
        stated = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', instruction.rest)
        if stated:
            return int(stated[1])
        named = re.search(r"condition=%?([\w.\-]+)", instruction.rest)
        condition = self._computations.get(named[1], {}) if named else {}
        root = next((i for i in condition.values() if i.root), None)
        if root is None or root.opcode != "compare" or "direction=LT" not in root.rest:
            return None
        bound = condition.get(root.operands[1])
        number = re.match(r"\d+", bound.rest) if bound is not None and bound.opcode == "constant" else None
        return int(number[0]) if number else None

    def _op(self, instruction: _Instruction, computation: dict[str, _Instruction], times: int) -> Op:
        cycles = re.search(r'"estimated_cycles":"(\d+)"', instruction.rest)
        scope = re.search(r'op_name="([^"]*)"', instruction.rest)
        kind = instruction.opcode.removesuffix("-start")
        operands = [s for n in instruction.operands for s in (computation[n].shapes if n in computation else ())]
        collective = kind if kind in COLLECTIVES else None
        group, slices = _groups(instruction.rest, self._slice) if collective else (1, 1)
        results = instruction.shapes
        if instruction.opcode.endswith("-start") and len(results) > len(operands):
            results = results[len(operands) :]  # the tuple repeats the operands in front
        payload = max(sum(s.num_bytes for s in operands), sum(s.num_bytes for s in results)) if collective else 0
        return Op(
            name=instruction.name,
            opcode=instruction.opcode,
            scope=scope[1] if scope else "",
            flops=self._flops_of(instruction, computation),
            hbm_bytes=self._bytes_of(instruction, operands, results),
            cycles=int(cycles[1]) if cycles else None,
            times=times,
            collective=collective,
            payload_bytes=payload,
            group=group,
            slices=slices,
            kernel=_is_kernel(instruction),
        )

    def _bytes_of(self, instruction: _Instruction, operands: Sequence[Shape], results: Sequence[Shape]) -> int:
        if instruction.opcode in ("dynamic-slice", "slice", "gather"):
            return 2 * sum(s.hbm_bytes for s in results)
        if instruction.opcode == "dynamic-update-slice":
            return 2 * operands[1].hbm_bytes
        if instruction.opcode != "fusion":
            return sum(s.hbm_bytes for s in (*operands, *results))
        body = self._computations[_called(instruction)[0]]
        parameters = [i for i in body.values() if i.opcode == "parameter"]
        parameters.sort(key=lambda i: int(re.match(r"\d+", i.rest)[0]))  # type: ignore[index]
        total, updated = 0, set()
        root = next(i for i in body.values() if i.root)
        roots = [body[n] for n in root.operands] if root.opcode == "tuple" else [root]
        for out in roots:
            if out.opcode == "dynamic-update-slice":
                # Written in place: the update alone moves, and the rest is not read.
                total += body[out.operands[1]].shapes[0].hbm_bytes
                updated.add(out.operands[0])
            else:
                total += sum(s.hbm_bytes for s in out.shapes if s.hbm_bytes)
        in_hbm = sum(s.hbm_bytes for s in results)
        total = min(total, in_hbm) if roots else in_hbm
        for parameter, shape in zip(parameters, operands):
            if parameter.name in updated:
                continue
            users = [i for i in body.values() if parameter.name in i.operands]
            if users and all(u.opcode in ("dynamic-slice", "slice", "gather") for u in users):
                total += min(shape.hbm_bytes, sum(s.hbm_bytes for u in users for s in u.shapes))
            else:
                total += shape.hbm_bytes
        return total

    def _flops_of(self, instruction: _Instruction, computation: dict[str, _Instruction]) -> int:
        if instruction.opcode in ("convolution", "dot"):
            shapes = [computation[n].shapes[0] for n in instruction.operands[:2]]
            count = _convolution if instruction.opcode == "convolution" else _dot
            return 2 * count(instruction, shapes[0], shapes[1])
        if _is_kernel(instruction):
            declared = re.search(r'"cost_estimate":\{"flops":"(\d+)"', instruction.rest)
            return int(declared[1]) if declared else 0
        if instruction.opcode not in ("fusion", "map", "custom-call"):
            return 0
        return sum(self._flops_in(called) for called in _called(instruction))

    def _flops_in(self, name: str) -> int:
        if name not in self._flops:
            body = self._computations.get(name, {})
            self._flops[name] = sum(self._flops_of(i, body) for i in body.values())
        return self._flops[name]


def _parse(line: str) -> _Instruction | None:
    found = _LINE.match(line)
    if not found:
        return None
    body = found[3]
    if body.startswith("("):
        end = _closing(body, 0)
        types, rest = body[: end + 1], body[end + 1 :].lstrip()
    else:
        types, _, rest = body.partition(" ")
    opcode, bracket, rest = rest.partition("(")
    if not bracket:
        return None
    end = _closing("(" + rest, 0) - 1
    inside, rest = rest[:end], rest[end + 1 :]
    operands = tuple(re.findall(r"%([\w.\-]+)", inside))
    shapes = tuple(_shape(*m) for m in _SHAPE.findall(types))
    # The number of a parameter stands where other ops have operands.
    return _Instruction(found[2], opcode, shapes, operands, rest if operands else inside + rest, bool(found[1]))


def _closing(text: str, start: int) -> int:
    depth = 0
    for i in range(start, len(text)):
        depth += (text[i] == "(") - (text[i] == ")")
        if depth == 0:
            return i
    return len(text) - 1


def _shape(kind: str, dims: str, order: str, tiling: str) -> Shape:
    sizes = tuple(int(d) for d in dims.split(",") if d)
    bits = _ITEM_BITS.get(kind) if kind in _ITEM_BITS else int(re.sub(r"\D.*", "", re.sub(r"^\D+", "", kind)) or 32)
    assert bits is not None
    if re.search(r"S\(\d+\)", tiling):
        return Shape(bits, sizes, 0)
    tile = re.search(r"T\(([\d,]+)\)", tiling)
    padded = [sizes[int(i)] for i in order.split(",") if i] if order else list(reversed(sizes))
    for i, t in enumerate(reversed([int(t) for t in tile[1].split(",")] if tile else [])):
        if i < len(padded):
            padded[i] = -(-padded[i] // t) * t
    return Shape(bits, sizes, math.prod(padded) * bits // 8)


def _is_kernel(instruction: _Instruction) -> bool:
    return instruction.opcode == "custom-call" and 'custom_call_target="tpu_custom_call"' in instruction.rest


def _called(instruction: _Instruction) -> list[str]:
    branches = re.search(r"branch_computations=\{([^}]*)\}", instruction.rest)
    if branches:
        return re.findall(r"%?([\w.\-]+)", branches[1])[:1]
    return _CALLED.findall(instruction.rest)


def _dot(instruction: _Instruction, left: Shape, right: Shape) -> int:
    contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", instruction.rest)
    axes = [int(i) for i in contracted[1].split(",") if i] if contracted else []
    return math.prod(instruction.shapes[0].dims) * math.prod(left.dims[i] for i in axes)


def _convolution(instruction: _Instruction, left: Shape, right: Shape) -> int:
    """Multiply-accumulates at positions that hold data.

    The TPU compiler writes batched products as convolutions whose windows lie mostly
    in padding or in the gaps of a dilation; those positions are skipped.
    """
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.rest)
    assert labels is not None
    lhs, rhs, out = labels[1], labels[2], labels[3]
    window = re.search(r"window=\{([^}]*)\}", instruction.rest)
    fields = dict(part.split("=") for part in window[1].split()) if window else {}
    macs = instruction.shapes[0].dims[out.index("b")] * instruction.shapes[0].dims[out.index("f")]
    macs *= right.dims[rhs.index("i")]  # already one group's share
    for d in sorted(c for c in lhs if c.isdigit()):
        at = int(d)

        def get(name: str, default: str, at: int = at) -> str:
            return fields[name].split("x")[at] if name in fields else default

        macs *= _positions(
            left.dims[lhs.index(d)],
            right.dims[rhs.index(d)],
            instruction.shapes[0].dims[out.index(d)],
            stride=int(get("stride", "1")),
            dilate=int(get("lhs_dilate", "1")),
            window_dilate=int(get("rhs_dilate", "1")),
            low=int(get("pad", "0_0").split("_")[0]),
        )
    groups = re.search(r"batch_group_count=(\d+)", instruction.rest)
    return macs // (int(groups[1]) if groups else 1)


def _positions(size: int, window: int, out: int, *, stride: int, dilate: int, window_dilate: int, low: int) -> int:
    at = np.arange(out)[:, None] * stride + np.arange(window)[None] * window_dilate - low
    return int(((at >= 0) & (at <= (size - 1) * dilate) & (at % dilate == 0)).sum())


def _groups(rest: str, devices_per_slice: int) -> tuple[int, int]:
    """Size of the groups, and how many slices the widest holds devices of."""
    groups = _device_groups(rest)
    slices = max((len({i // devices_per_slice for i in g}) for g in groups), default=1) if devices_per_slice else 1
    return max((len(g) for g in groups), default=1), slices


def _device_groups(rest: str) -> list[list[int]]:
    """The groups in each of the forms that XLA writes."""
    iota = re.search(r"replica_groups=" + _IOTA.pattern, rest)
    if iota:  # [4,2]<=[2,4]T(1,0)
        shape, source = ([int(n) for n in iota[i].split(",")] for i in (1, 2))
        ids = np.arange(math.prod(source)).reshape(source)
        if iota[3]:
            ids = ids.transpose([int(n) for n in iota[3].split(",")])
        return ids.reshape(shape[0], -1).tolist()
    mesh = re.search(r"replica_groups=mesh\[([^\]]*)\]\s*\{([^}]*)\}", rest)
    if mesh:  # mesh['a'=4,'b'=2] {'b'}, or {'a':(1)2} for a part of an axis
        names = {n: int(k) for n, k in re.findall(r"'([^']+)'=(\d+)", mesh[1])}
        chosen = {n: (int(m or 1), int(k or 0)) for n, m, k in re.findall(r"'([^']+)'(?::\((\d+)\)(\d+))?", mesh[2])}
        split: list[int] = []
        last: list[int] = []
        for name, length in names.items():
            before, part = chosen.get(name, (length, 1))
            part = part or length
            split += [before, part, length // before // part]
            last += [len(split) - 2] if name in chosen else []
        order = [i for i in range(len(split)) if i not in last] + last
        ids = np.arange(math.prod(split)).reshape(split).transpose(order)
        return ids.reshape(-1, math.prod(split[i] for i in last)).tolist()
    listed = re.search(r"(?:replica_groups|source_target_pairs)=\{((?:\{[\d,]*\},?)*)\}", rest)
    found = re.findall(r"\{([\d,]*)\}", listed[1]) if listed else []
    return [[int(n) for n in g.split(",") if n] for g in found]


def collectives(ops: Iterable[Op]) -> dict[str, dict[str, int]]:
    """Collectives by kind: ``{kind: {count, bytes}}`` a step, bytes of payload a device."""
    found: dict[str, dict[str, int]] = {}
    for op in ops:
        if op.collective:
            row = found.setdefault(op.collective, {"count": 0, "bytes": 0})
            row["count"] += op.times
            row["bytes"] += op.times * op.payload_bytes
    return dict(sorted(found.items()))
