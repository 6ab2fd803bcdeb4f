"""Builds real objects from plain specs, strictly: ``{"kind": name, **fields}`` -> ``TABLE[name](**fields)``.

The constructor's own signature is the schema, so there is no mirror of it to keep
in step. Every error names the dotted path, the valid fields and the nearest match.
"""

import dataclasses
import inspect
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, get_args, get_origin

from vitax.core import elsewhere
from vitax.core.bounds import Bounds
from vitax.core.errors import UserError, pick, suggest


def fields_of(target: Any) -> dict[str, inspect.Parameter]:
    """Keyword fields of a constructor or function."""
    fields = dict(inspect.signature(target).parameters)
    # Flax adds these two to every module.
    added = ("parent", "name") if "parent" in fields else ()
    return {n: p for n, p in fields.items() if n not in added}


def construct(table: Mapping[str, Any], spec: Any, where: str, **given: Any) -> Any:
    """Builds ``table[spec["kind"]]`` from the other keys of ``spec``.

    Args:
      table: kind -> constructor.
      spec: plain data.
      where: the dotted path of ``spec`` in the recipe, for messages.
      **given: values that come from elsewhere in the recipe; used where the
        constructor has such a field and the spec does not set it.

    Raises:
      UserError: unknown kind, unknown or missing field, wrong type.
    """
    if not isinstance(spec, Mapping):
        raise UserError(f"{where}: expected fields with a `kind`, got {spec!r}.")
    if "kind" not in spec:
        raise UserError(f"{where}.kind: missing. Valid: {', '.join(sorted(table))}.")
    target = pick(table, spec["kind"], f"{where}.kind")
    own = {k: v for k, v in spec.items() if k != "kind"}
    own |= {k: v for k, v in given.items() if k in fields_of(target) and own.get(k) is None}
    return call(target, own, where)


def call(target: Any, values: Mapping[str, Any], where: str) -> Any:
    """Calls ``target(**values)`` after checking names and types against its signature."""
    fields = fields_of(target)
    for key in values:
        if key not in fields:
            ours = elsewhere.FIELDS.get(key, key).rpartition(".")[2]
            hint = suggest(ours if ours in fields else key, fields)
            raise UserError(f"{where}.{key}: unknown field.{hint} Valid: {', '.join(sorted(fields))}.")
    missing = [n for n, p in fields.items() if p.default is p.empty and n not in values]
    if missing:
        raise UserError(f"{where}.{missing[0]}: missing. Give it in the recipe or as --config.{where}.{missing[0]}=...")
    hints = _hints(target)
    return target(**{k: check(v, hints.get(k, Any), f"{where}.{k}") for k, v in values.items()})


def _hints(target: Any) -> dict[str, Any]:
    source = target if dataclasses.is_dataclass(target) or not inspect.isclass(target) else target.__init__
    return typing.get_type_hints(source, include_extras=True)


def check(value: Any, hint: Any, where: str) -> Any:
    """Returns ``value`` as ``hint`` wants it (int to float, list to tuple), or raises UserError."""
    if hint is Any or isinstance(hint, typing.TypeVar):
        return value
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _check_bounds(check(value, arguments[0], where), arguments[1], where)
    if origin in (typing.Union, types.UnionType):
        return _check_union(value, arguments, where)
    if origin is Literal:
        if value in arguments:
            return value
        raise UserError(
            f"{where}: {value!r} is not one of {', '.join(map(repr, arguments))}."
            f"{suggest(str(value), [str(a) for a in arguments])}"
        )
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if hint is int and isinstance(value, float) and value.is_integer():
        return int(value)  # 1e3 on the command line
    if (hint is tuple or origin is tuple) and isinstance(value, list | tuple):
        return _check_tuple(value, arguments, where)
    plain = origin or hint
    wrong_bool = isinstance(value, bool) and plain in (int, float)
    if inspect.isclass(plain) and (not isinstance(value, plain) or wrong_bool):
        raise UserError(f"{where}: expected {_spell(hint)}, got {value!r} ({type(value).__name__}).")
    return value


def _check_bounds(value: Any, bounds: Any, where: str) -> Any:
    if isinstance(bounds, Bounds) and value not in bounds:
        raise UserError(f"{where}: expected {bounds}, got {value}.")
    return value


def _check_union(value: Any, arguments: Sequence[Any], where: str) -> Any:
    if value is None and type(None) in arguments:
        return None
    problem: UserError | None = None
    for argument in arguments:
        if argument is type(None):
            continue
        # A number of the right type that is out of bounds is not tried as something else.
        base, *bounds = get_args(argument) if get_origin(argument) is Annotated else (argument,)
        try:
            found = check(value, base, where)
        except UserError as error:
            problem = error
            continue
        return _check_bounds(found, bounds[0], where) if bounds else found
    if len(arguments) == 2 and type(None) in arguments and problem is not None:
        raise problem
    raise UserError(
        f"{where}: expected {' or '.join(_spell(a) for a in arguments)}, got {value!r} ({type(value).__name__})."
    )


def _check_tuple(value: Sequence[Any], arguments: Sequence[Any], where: str) -> tuple[Any, ...]:
    if not arguments:
        return tuple(value)
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple(check(v, arguments[0], f"{where}.{i}") for i, v in enumerate(value))
    if len(value) != len(arguments):
        raise UserError(f"{where}: expected {len(arguments)} elements, got {len(value)}: {value!r}.")
    return tuple(check(v, a, f"{where}.{i}") for i, (v, a) in enumerate(zip(value, arguments)))


def _spell(hint: Any) -> str:
    if hint is type(None):
        return "None"
    if get_origin(hint) is Annotated:
        return _spell(get_args(hint)[0])
    if get_origin(hint) is tuple:
        return f"tuple[{', '.join('...' if a is Ellipsis else _spell(a) for a in get_args(hint))}]"
    return hint.__name__ if inspect.isclass(hint) and not get_args(hint) else str(hint).replace("typing.", "")
