"""The configuration: one TOML file for all roles of a machine."""

from onelun.config.loading import DEFAULT_PATH, Loaded, load
from onelun.config.sections import (
    Broker,
    Compute,
    Config,
    FilePool,
    Frontend,
    Limits,
    Lio,
    LvmPool,
    Nas,
    Pool,
    Role,
    Tgt,
    ZfsPool,
)

__all__ = [
    "DEFAULT_PATH",
    "Broker",
    "Compute",
    "Config",
    "FilePool",
    "Frontend",
    "Limits",
    "Lio",
    "Loaded",
    "LvmPool",
    "Nas",
    "Pool",
    "Role",
    "Tgt",
    "ZfsPool",
    "load",
]
