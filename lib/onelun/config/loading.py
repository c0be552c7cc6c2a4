"""How the configuration is read: one file, and what of the environment wins over it."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from onelun.config.checks import ROLES, check
from onelun.config.sections import Config
from onelun.errors import Rejected

DEFAULT_PATH = "/etc/onelun/onelun.toml"


class Loaded(msgspec.Struct, frozen=True):
    """A configuration, and for each dotted key where its value came from: the file, the environment or the default."""

    config: Config
    origin: dict[str, str]


def load(environ: Mapping[str, str] = os.environ) -> Loaded:
    """Read the file that ONELUN_CONFIG names, or /etc/onelun/onelun.toml; ONELUN_AMQP_URL and ONELUN_SOCKET win over it.

    Raises Rejected, naming the file and the key, for a file that cannot be read, is no TOML, has an unknown key or a
    value that cannot be.
    """
    path = environ.get("ONELUN_CONFIG", DEFAULT_PATH)
    try:
        document: dict[str, Any] = tomllib.loads(Path(path).read_text())
    except OSError as error:
        raise Rejected(f"cannot read the configuration {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        # TOMLDecodeError is one, but a number of 5000 digits, a path with a NUL and bytes that are no text are others.
        raise Rejected(f"the configuration {path} is no TOML: {error}") from error
    origin = dict.fromkeys(_keys(document), path)
    for variable, section, key in (("ONELUN_AMQP_URL", "broker", "url"), ("ONELUN_SOCKET", "frontend", "socket")):
        if variable in environ and isinstance(document.get(section, {} if section == "broker" else None), dict):
            document.setdefault(section, {})[key] = environ[variable]
            origin[f"{section}.{key}"] = variable
    if "ONELUN_AMQP_URL" in environ:
        for section in filter(lambda role: isinstance(document.get(role), dict), ROLES):
            document[section].pop("broker_url", None)
            origin.pop(f"{section}.broker_url", None)
    try:
        config = msgspec.convert(document, Config)
    except msgspec.ValidationError as error:
        raise Rejected(f"the configuration {path} is wrong: {error}") from error
    try:
        check(config)
    except Rejected as error:
        raise Rejected(f"the configuration {path} is wrong: {error}") from error
    for key in _keys(msgspec.to_builtins(config)):
        origin.setdefault(key, "default")
    return Loaded(config, origin)


def _keys(document: Mapping[str, Any], prefix: str = "") -> list[str]:
    keys: list[str] = []
    for key, value in document.items():
        if isinstance(value, Mapping) and value:
            keys += _keys(value, f"{prefix}{key}.")
        else:
            keys.append(f"{prefix}{key}")
    return keys
