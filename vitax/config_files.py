"""Recipe files: find one, run its ``get_config``, lay command-line overrides over it.

Plain data only: nothing is built and JAX is not imported here.
"""

import ast
import importlib
import importlib.util
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

from vitax.core import elsewhere
from vitax.core.durations import UNITS
from vitax.core.errors import UserError, suggest


def folder() -> Path:
    """Where the recipes that come with vitax lie (installed as ``vitax.configs``)."""
    return Path(importlib.import_module("vitax.configs").__path__[0])


def names() -> list[str]:
    """Names of all recipe files, sorted."""
    return sorted(p.stem for p in folder().glob("*.py") if not p.stem.startswith("_"))


def split(spec: str) -> tuple[str, str | None]:
    """``"configs/vit_jft.py:L/16"`` -> ``("configs/vit_jft.py", "L/16")``; also bare names and ``DIR/recipe.json``."""
    # A bare name first (one letter is a drive): its variant may hold paths of its own (`tokenizer=bpe.json`).
    forms = (r"(\w{2,}):(.*)", r"(.*\.(?:py|json))(?::(.*))?", r"([^:]*)(?::(.*))?")
    match = next((m for form in forms if (m := re.fullmatch(form, spec))), None)
    if match is None:
        raise UserError(f"--config {spec}: expected NAME, NAME:VARIANT, PATH.py:VARIANT or PATH.json.")
    return match.group(1), match.group(2)


def module(name: str) -> ModuleType:
    """Runs a recipe file, given by path or by bare name, without caching it.

    Raises:
      UserError: no such file; names the nearest recipe.
    """
    path = Path(name)
    if path.suffix != ".py":
        path = folder() / f"{name}.py"
    elif not path.is_file() and path.parent.name == "configs":
        path = folder() / path.name  # `configs/NAME.py` works outside a clone too
    if not path.is_file():
        raise UserError(
            f"--config {name}: no such recipe.{suggest(Path(name).stem, names())} "
            f"Known: {', '.join(names())}; or give a path ending in .py."
        )
    spec = importlib.util.spec_from_file_location(f"vitax_recipe_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    if not hasattr(loaded, "get_config"):
        raise UserError(f"{path}: a recipe defines get_config(variant) -> ml_collections.ConfigDict.")
    return loaded


def load(spec: str, overrides: Sequence[str] = (), options: Sequence[str] = ()) -> ConfigDict:
    """The config of ``NAME[:VARIANT]`` with overrides ``--config.a.b=value`` laid over it.

    Overrides may set keys that the file leaves out (the builder knows what is
    valid), change int to float, and replace None. Setting one unit of a duration
    clears the file's. Elements of tuples are reached by number (``data.ops.1.size``).
    ``options`` are those of the command line, to suggest where an override is none.
    """
    name, variant = split(spec)
    if name.endswith(".json"):
        plain = _saved(name, variant)
    else:
        loaded = module(name)
        config = loaded.get_config() if variant is None else loaded.get_config(variant)
        if not isinstance(config, ConfigDict):
            raise UserError(
                f"{name}: get_config must return an ml_collections.ConfigDict, not {type(config).__name__}."
            )
        plain = config.to_dict()
    for key, text in parse_overrides(overrides, plain, options):
        override(plain, key, text)
    return ConfigDict(plain)


def _saved(name: str, variant: str | None) -> dict[str, Any]:
    """A resolved recipe: ``recipe.json`` of a workdir, or what ``vitax finetune --dry-run`` prints."""
    path = Path(name).expanduser()
    if variant is not None:
        raise UserError(
            f"--config {name}:{variant}: a JSON recipe has no variants; change fields by --config.PATH=VALUE."
        )
    try:
        plain = json.loads(path.read_text())
    except OSError as error:
        raise UserError(f"--config {name}: cannot be read ({error.strerror}).") from error
    except ValueError as error:
        raise UserError(f"--config {name}: is not valid JSON ({error}).") from error
    if not isinstance(plain, dict):
        raise UserError(f"--config {name}: expected an object with the parts of a recipe, got {type(plain).__name__}.")
    return _with_tuples(plain)


def _with_tuples(value: Any) -> Any:
    """JSON knows lists alone; recipes hold tuples, which overrides reach into."""
    if isinstance(value, dict):
        return {k: _with_tuples(v) for k, v in value.items()}
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value


def parse_overrides(
    arguments: Sequence[str], plain: dict[str, Any] | None = None, options: Sequence[str] = ()
) -> list[tuple[str, str]]:
    """``["--config.a=1", "--config.b", "2"]`` -> ``[("a", "1"), ("b", "2")]``.

    Raises:
      UserError: something else stands there.
    """
    pairs, rest = [], list(arguments)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--config."):
            raise UserError(f"Unknown argument {word}.{elsewhere.option(word, options, flatten(plain or {}))}")
        key, sign, text = word.removeprefix("--config.").partition("=")
        if not sign:
            if not rest or rest[0].startswith("--config."):
                raise UserError(f"{word}: no value. Write {word}=VALUE.")
            text = rest.pop(0)
        pairs.append((key, text))
    return pairs


def parse_value(text: str, current: Any) -> Any:
    """A value from the command line: a Python literal, else the text itself."""
    if isinstance(current, str) and text not in ("None", "none"):
        return text
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def override(plain: dict[str, Any], key: str, text: str) -> None:
    """Sets dotted ``key`` in nested dictionaries and tuples to the parsed ``text``.

    Raises:
      UserError: the path leads through something that has no fields.
    """
    *path, last = key.split(".")
    node: Any = plain
    for depth, part in enumerate(path):
        where = ".".join(path[: depth + 1])
        if isinstance(node, tuple | list):
            node = node[_position(node, part, where)]
        else:
            if node.get(part) is None:
                node[part] = {}
            if isinstance(node[part], tuple):
                node[part] = list(node[part])
            node = node[part]
        if not isinstance(node, dict | list):
            raise UserError(
                f'--config.{key}: {where} is {node!r}, which has no field "{".".join(path[depth + 1 :] + [last])}".'
            )
    if isinstance(node, list):
        node[_position(node, last, key)] = parse_value(text, node[_position(node, last, key)])
        return
    value = parse_value(text, node.get(last))
    if last in UNITS and set(node) <= set(UNITS):
        node.clear()
    node[last] = value


def _position(node: Sequence[Any], part: str, where: str) -> int:
    if not part.isdigit() or int(part) >= len(node):
        raise UserError(f"--config.{where}: expected an element number from 0 to {len(node) - 1}, got {part!r}.")
    return int(part)


def parse_variant(text: str, first: str, **defaults: Any) -> dict[str, Any]:
    """Parses a recipe's variant, ``"L/16,epochs=7"``.

    Args:
      text: the first word names ``first`` (if it has no ``=``); then ``key=value``.
      first: the key of the leading word.
      **defaults: all keys with their default values.

    Raises:
      UserError: an unknown key (names the nearest), or no truth value where the default is one.
    """
    result = dict(defaults)
    for number, part in enumerate(p.strip() for p in text.split(",") if p.strip()):
        key, sign, value = part.partition("=")
        if not sign:
            if number:
                raise UserError(f'Variant "{text}": expected key=value, got "{part}".')
            key, value = first, part
        if key not in defaults:
            raise UserError(
                f'Variant "{text}": unknown key "{key}".{suggest(key, defaults)} Valid: {", ".join(defaults)}.'
            )
        result[key] = parse_value(value, defaults[key])
        if isinstance(defaults[key], bool) and not isinstance(result[key], bool):
            raise UserError(f'Variant "{text}": {key}: expected true or false, got "{value}".')
    return result


def to_plain(value: Any) -> Any:
    """Nested dicts and tuples of JSON types, whatever the config was made of."""
    if isinstance(value, ConfigDict):
        value = value.to_dict()
    if isinstance(value, Mapping):
        return {str(k): to_plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return tuple(to_plain(v) for v in value)
    return value


def flatten(plain: Any, prefix: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}}`` -> ``{"a.b": 1}``; tuples by number; empty containers stay."""
    items: Iterable[tuple[Any, Any]]
    if isinstance(plain, dict):
        items = plain.items()
    elif isinstance(plain, list | tuple):
        items = enumerate(plain)
    else:
        return {prefix: plain}
    flat: dict[str, Any] = {}
    for key, value in items:
        flat.update(flatten(value, f"{prefix}.{key}" if prefix else str(key)))
    return flat or {prefix: plain}
