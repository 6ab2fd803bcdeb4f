"""What the environment says: where compiled programs, published files and token ids are kept."""

from collections.abc import Mapping
from pathlib import Path


def compile_cache(env: Mapping[str, str]) -> Path:
    """The folder of compiled programs: JAX's variable, else below the user's cache folder."""
    if env.get("JAX_COMPILATION_CACHE_DIR"):
        return Path(env["JAX_COMPILATION_CACHE_DIR"])
    return _user_cache(env) / "xla"


def weight_cache(env: Mapping[str, str]) -> Path:
    """The folder of published weight files: ``VITAX_WEIGHTS``, else below the user's cache folder."""
    return Path(env["VITAX_WEIGHTS"]).expanduser() if env.get("VITAX_WEIGHTS") else _user_cache(env) / "weights"


def token_cache(env: Mapping[str, str]) -> Path:
    """The folder of token ids of long text: ``VITAX_TOKENS``, else below the user's cache folder."""
    return Path(env["VITAX_TOKENS"]).expanduser() if env.get("VITAX_TOKENS") else _user_cache(env) / "tokens"


def _user_cache(env: Mapping[str, str]) -> Path:
    base = Path(env["XDG_CACHE_HOME"]) if env.get("XDG_CACHE_HOME") else Path("~/.cache").expanduser()
    return base / "vitax"
