"""Two-way conversion between our names of parameters and those of other programs.

A table is a sequence of rules; a rule pairs patterns of names here and there with an
operation that has an inverse. Import and export read the same table, so that
converting and converting back is the identity. Nothing here knows any family.

Patterns: ``encoder/block_{i:02}/norm_1/scale``. ``{i}`` stands for a whole number,
``{i:02}`` for one of at least two digits, ``{i+1}`` for one that is larger there by one.
A number that stands on one side alone is an axis on the other: ``stacked`` below.
"""

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from vitax.core.errors import UserError

Arrays = list[np.ndarray]
Sizes = Mapping[str, int]
Step = Callable[[Arrays, Sizes], Arrays]
Numbers = tuple[tuple[str, int], ...]


@dataclasses.dataclass(frozen=True)
class Op:
    """A list of arrays into another, and back.

    Attributes:
      here: arrays there -> arrays here. Views where possible.
      there: its inverse.
    """

    here: Step
    there: Step

    def then(self, after: "Op") -> "Op":
        """This on the way here, followed by ``after``."""
        return Op(
            lambda arrays, sizes: after.here(self.here(arrays, sizes), sizes),
            lambda arrays, sizes: self.there(after.there(arrays, sizes), sizes),
        )


def each(here: Callable[[np.ndarray, Sizes], np.ndarray], there: Callable[[np.ndarray, Sizes], np.ndarray]) -> Op:
    """The same to every array."""
    return Op(
        lambda arrays, sizes: [here(x, sizes) for x in arrays],
        lambda arrays, sizes: [there(x, sizes) for x in arrays],
    )


SAME = each(lambda x, _: x, lambda x, _: x)


def transpose(*axes: int) -> Op:
    """``np.transpose`` on the way here, e.g. (2, 3, 1, 0) from OIHW to HWIO."""
    back = tuple(int(i) for i in np.argsort(axes))
    return each(lambda x, _: x.transpose(axes), lambda x, _: x.transpose(back))


def split(parts: int, axis: int = 0) -> Op:
    """One array there, ``parts`` equal pieces of it along an axis here."""
    return Op(
        lambda arrays, _: [piece for x in arrays for piece in np.split(x, parts, axis)],
        lambda arrays, _: [np.concatenate(arrays[i : i + parts], axis) for i in range(0, len(arrays), parts)],
    )


def concat(parts: int, axis: int = 0) -> Op:
    """``parts`` arrays there, one array here: the inverse of ``split``."""
    inverse = split(parts, axis)
    return Op(inverse.there, inverse.here)


def squeeze(*axes: int) -> Op:
    """Axes of size 1 there that are absent here."""
    return each(lambda x, _: np.squeeze(x, axes), lambda x, _: np.expand_dims(x, axes))


def unsqueeze(*axes: int) -> Op:
    """Axes of size 1 here that are absent there."""
    return each(lambda x, _: np.expand_dims(x, axes), lambda x, _: np.squeeze(x, axes))


def divide_axis(axis: int, size: str) -> Op:
    """An axis there as two here, the first of them ``sizes[size]`` long: [N * K] to [N, K]."""

    def here(x: np.ndarray, sizes: Sizes) -> np.ndarray:
        return x.reshape(*x.shape[:axis], sizes[size], x.shape[axis] // sizes[size], *x.shape[axis + 1 :])

    def there(x: np.ndarray, _: Sizes) -> np.ndarray:
        return x.reshape(*x.shape[:axis], x.shape[axis] * x.shape[axis + 1], *x.shape[axis + 2 :])

    return each(here, there)


@dataclasses.dataclass(frozen=True)
class Rule:
    """Names here, names there, and how the arrays change.

    Attributes:
      ours: one pattern or several: the arrays that ``op`` gives.
      theirs: likewise, the arrays that it takes.
      op: what happens on the way here.

    Numbers of ``ours`` that ``theirs`` lacks are one leading axis of every array there
    (a scanned stack of layers); at most one number may be so.
    """

    ours: str | tuple[str, ...]
    theirs: str | tuple[str, ...]
    op: Op = SAME


@dataclasses.dataclass
class Converted:
    """What a conversion gave.

    Attributes:
      arrays: by their new names.
      used: names of the source that are in them.
      unexpected: names of the source that no rule knows.
      incomplete: names of the source whose counterparts are absent, with what is absent.
    """

    arrays: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    used: list[str] = dataclasses.field(default_factory=list)
    unexpected: list[str] = dataclasses.field(default_factory=list)
    incomplete: list[str] = dataclasses.field(default_factory=list)


_NUMBER = re.compile(r"\{(\w+)(?:\+(\d+))?(?::0?(\d+))?\}")


@dataclasses.dataclass(frozen=True)
class Pattern:
    """A name with numbers in it."""

    text: str

    @property
    def numbers(self) -> tuple[str, ...]:
        return tuple(m[1] for m in _NUMBER.finditer(self.text))

    def regex(self) -> re.Pattern[str]:
        parts, end = [], 0
        for m in _NUMBER.finditer(self.text):
            parts += [re.escape(self.text[end : m.start()]), rf"(?P<{m[1]}>\d{{{m[3] or 1},}})"]
            end = m.end()
        return re.compile("".join([*parts, re.escape(self.text[end:])]))

    def read(self, match: re.Match[str]) -> dict[str, int]:
        """The numbers of a match, without what this side adds to them."""
        return {m[1]: int(match[m[1]]) - int(m[2] or 0) for m in _NUMBER.finditer(self.text)}

    def write(self, numbers: Mapping[str, int]) -> str:
        """The name with these numbers."""
        return _NUMBER.sub(lambda m: f"{numbers[m[1]] + int(m[2] or 0):0{m[3] or 1}d}", self.text)


def _patterns(names: str | tuple[str, ...]) -> tuple[Pattern, ...]:
    return tuple(Pattern(text) for text in ((names,) if isinstance(names, str) else names))


def matched(table: Sequence[Rule], names: Iterable[str]) -> set[str]:
    """Those of the names that a rule of the table has on their side."""
    regexes = [pattern.regex() for rule in table for pattern in _patterns(rule.theirs)]
    return {name for name in names if any(regex.fullmatch(name) for regex in regexes)}


def to_ours(table: Sequence[Rule], theirs: Mapping[str, np.ndarray], sizes: Sizes | None = None) -> Converted:
    """Their arrays under our names.

    Args:
      table: rules; the first whose pattern fits a name has it.
      theirs: name -> array.
      sizes: numbers that ops need, such as ``num_heads``.

    Raises:
      UserError: an array that an op cannot take, by name.
    """
    return _convert([(rule, _patterns(rule.theirs), _patterns(rule.ours), True) for rule in table], theirs, sizes or {})


def to_theirs(table: Sequence[Rule], ours: Mapping[str, np.ndarray], sizes: Sizes | None = None) -> Converted:
    """Our arrays under their names: the inverse of ``to_ours``."""
    return _convert([(rule, _patterns(rule.ours), _patterns(rule.theirs), False) for rule in table], ours, sizes or {})


_Directed = tuple[Rule, tuple[Pattern, ...], tuple[Pattern, ...], bool]


def _convert(rules: Sequence[_Directed], source: Mapping[str, np.ndarray], sizes: Sizes) -> Converted:
    done = Converted()
    found = _gather(rules, source, done)
    for (index, numbers), slots in found.items():
        rule, sources, targets, here = rules[index]
        absent = [p for slot, p in enumerate(sources) if slot not in slots]
        if absent:
            values = dict(numbers)
            lacking = ", ".join(p.write(values) if set(p.numbers) <= set(values) else p.text for p in absent)
            done.incomplete += [f"{name} (without {lacking})" for names in slots.values() for name in names.values()]
            continue
        names = [slots[slot] for slot in range(len(sources))]
        try:
            _apply(rule, names, targets, here, dict(numbers), source, sizes, done)
        except (ValueError, IndexError) as error:
            first = next(iter(names[0].values()))
            shape = list(source[first].shape)
            raise UserError(f"{first}: an array of shape {shape} is not what its layout has here ({error}).") from error
    return done


def _gather(
    rules: Sequence[_Directed], source: Mapping[str, np.ndarray], done: Converted
) -> dict[tuple[int, Numbers], dict[int, dict[int, str]]]:
    """(rule, shared numbers) -> slot of the rule -> number that is stacked (0 where none is) -> name."""
    compiled = []
    for index, (_, sources, targets, _) in enumerate(rules):
        shared = {n for p in targets for n in p.numbers}
        compiled += [(index, slot, p, p.regex(), shared) for slot, p in enumerate(sources)]
    found: dict[tuple[int, Numbers], dict[int, dict[int, str]]] = {}
    for name in source:
        for index, slot, pattern, regex, shared in compiled:
            match = regex.fullmatch(name)
            if match is None:
                continue
            values = pattern.read(match)
            key = tuple(sorted((k, v) for k, v in values.items() if k in shared))
            stacked = [v for k, v in values.items() if k not in shared]
            found.setdefault((index, key), {}).setdefault(slot, {})[stacked[0] if stacked else 0] = name
            break
        else:
            done.unexpected.append(name)
    return found


def _apply(
    rule: Rule,
    names: Sequence[Mapping[int, str]],
    targets: Sequence[Pattern],
    here: bool,
    numbers: dict[str, int],
    source: Mapping[str, np.ndarray],
    sizes: Sizes,
    done: Converted,
) -> None:
    step = rule.op.here if here else rule.op.there
    free = sorted({n for p in targets for n in p.numbers} - numbers.keys())
    used = [name for slot in names for name in slot.values()]
    if free:  # one array there, one here for each layer of the stack
        arrays = [source[slot[0]] for slot in names]
        if len({len(x) for x in arrays}) != 1:
            raise ValueError(f"stacks of different depth: {', '.join(str(len(x)) for x in arrays)}")
        for layer in range(len(arrays[0])):
            out = step([x[layer] for x in arrays], sizes)
            done.arrays.update({p.write(numbers | {free[0]: layer}): x for p, x in zip(targets, out, strict=True)})
    elif _stacks(rule):
        layers = sorted(names[0])
        if layers != list(range(len(layers))) or any(sorted(slot) != layers for slot in names):
            raise ValueError(f"a stack needs layers 0 to n, there are {layers}")
        rows = [step([source[slot[layer]] for slot in names], sizes) for layer in layers]
        stacked = [np.stack(column) for column in zip(*rows)]
        done.arrays.update({p.write(numbers): x for p, x in zip(targets, stacked, strict=True)})
    else:
        out = step([source[slot[0]] for slot in names], sizes)
        done.arrays.update({p.write(numbers): x for p, x in zip(targets, out, strict=True)})
    done.used += used


def _stacks(rule: Rule) -> bool:
    ours, theirs = ({n for p in _patterns(side) for n in p.numbers} for side in (rule.ours, rule.theirs))
    return ours != theirs
