"""Lets timm import without torchvision, which its ViTs never call."""

import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from typing import Any


class _Members(type):
    def __getattr__(cls, name: str) -> str:
        if name.startswith("__"):
            raise AttributeError(name)
        return f"{cls.__name__}.{name}"  # enumeration members, as keys of dictionaries


class _Module(types.ModuleType):
    __path__: list[str] = []  # noqa: RUF012 (what makes it a package)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        # A class: timm subclasses some names and uses others in isinstance.
        return _Members(name, (), {})


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name.split(".")[0] == "torchvision":
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: Any) -> types.ModuleType:
        return _Module(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass


def install() -> None:
    """Does nothing where torchvision is installed."""
    if importlib.util.find_spec("torchvision") is None:
        if importlib.util.find_spec("transformers"):
            # Asks once and remembers: a stand-in, which has no version, is no torchvision to it.
            from transformers.utils import is_torchvision_available

            is_torchvision_available()
        sys.meta_path.append(_Finder())
