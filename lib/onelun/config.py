"""The configuration: one TOML file for all roles of a machine. Unknown keys are errors."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from onelun.errors import Rejected
from onelun.naming import checked_initiator, checked_name, checked_uuid

DEFAULT_PATH = "/etc/onelun/onelun.toml"
# zfs(8): names of components; lvm(8): "Valid names".
_DATASET = re.compile(r"[A-Za-z][A-Za-z0-9_.:-]*(?:/[A-Za-z0-9][A-Za-z0-9_.:-]*)*")
_LVM_NAME = re.compile(r"[A-Za-z0-9_+.][A-Za-z0-9_+.-]*")
# An address of IPv4 or IPv6, or a host's name.
_ADDRESS = re.compile(r"[0-9A-Za-z._:-]{1,253}")
# AMQP 0-9-1: names are short strings, the heartbeat a number of 16 bits.
_LONGEST_NAME = 255
_LONGEST_HEARTBEAT_S = 65535
# Ten years: what waits longer waits for ever, and counts of milliseconds end somewhere.
_LONGEST_S = 10 * 366 * 86400
# No volume is larger than 1 PiB.
_LARGEST_GIB = 1 << 20
_ROLES = ("frontend", "nas", "compute")
_NOT_ZERO = ("accept_s", "finish_s", "copy_s", "progress_s", "probe_s", "high_water", "per_host", "at_once")


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class Broker(_Section, frozen=True, kw_only=True):
    """How to reach RabbitMQ. The URL holds a password: the file is 0600, or the URL is in ONELUN_AMQP_URL."""

    url: str = "amqp://guest:guest@127.0.0.1:5672/%2F"
    exchange: str = "rocks.vm-manage"
    heartbeat_s: int = 20


class Limits(_Section, frozen=True, kw_only=True):
    """Durations in seconds, fractions, and counts (docs/operations.md explains each)."""

    accept_s: float = 5.0
    finish_s: float = 120.0
    copy_s: float = 86400.0
    progress_s: float = 5.0
    preempt_s: float = 10.0
    results_s: float = 172800.0
    trash_s: float = 86400.0
    grace_s: float = 3600.0
    lease_s: float = 120.0
    probe_s: float = 10.0
    high_water: float = 0.85
    reserve: float = 0.02
    per_host: int = 4
    at_once: int = 256


class Frontend(_Section, frozen=True, kw_only=True):
    """The front-end: `cloud` is this OpenNebula's UUID; `hosts` maps oned's names of hosts to compute agents."""

    cloud: str
    broker_url: str | None = None
    opennebula_version: str | None = None
    socket: str = "/run/onelun/frontend.sock"
    nas: tuple[str, ...] = ()
    pools: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    hosts: dict[str, str] = {}
    datastores: str = "/var/lib/one/datastores"
    owner: str = "oneadmin"
    initiator: str = "iqn.2026-11.io.onelun.host:frontend"
    api: str | None = None
    api_auth: str = "~/.one/one_auth"
    staging: str = "/var/tmp"  # noqa: S108 every file in it is made by mkstemp
    max_image_gib: int = 16384
    remotes: str = "/var/lib/one/remotes"


class Tgt(_Section, frozen=True, kw_only=True):
    """The target daemon tgtd: its control socket and where initiators reach it."""

    control: str = "/var/run/tgtd/socket.0"
    address: str
    port: int = 3260


class Lio(_Section, frozen=True, kw_only=True):
    """The kernel's target service: where initiators reach it."""

    address: str
    port: int = 3260


class FilePool(_Section, frozen=True, kw_only=True, tag_field="backend", tag="file"):
    """Volumes as files in the directory `path`."""

    path: str


class ZfsPool(_Section, frozen=True, kw_only=True, tag_field="backend", tag="zfs"):
    """Volumes as zvols below `dataset`; `properties` (volblocksize, compression, ...) are given to each new one."""

    dataset: str
    properties: dict[str, str] = {}


class LvmPool(_Section, frozen=True, kw_only=True, tag_field="backend", tag="lvm"):
    """Volumes as thin volumes of `thin_pool` in the volume group `vg`."""

    vg: str
    thin_pool: str


Pool = FilePool | ZfsPool | LvmPool


class Nas(_Section, frozen=True, kw_only=True):
    """A NAS agent. `name` is the name of a service, not of a machine: it is part of every SOURCE."""

    name: str
    broker_url: str | None = None
    state: str = "/var/lib/onelun/nas"
    exporter: Literal["lio", "tgt"] = "lio"
    tgt: Tgt | None = None
    lio: Lio | None = None
    pools: dict[str, Pool]
    default_pool: str | None = None


class Compute(_Section, frozen=True, kw_only=True):
    """A compute agent. `datastores` is OpenNebula's DATASTORE_LOCATION; `owner` owns links and directories there.

    After a boot it reports ready when each NAS has given back what it had here, or after `ready_s`. `libvirt` is where the
    guests are that are frozen for snapshots. `backups` is OpenNebula's BACKUP_BASE_PATH, where it is set.
    """

    name: str
    broker_url: str | None = None
    state: str = "/var/lib/onelun/compute"
    run: str = "/run/onelun"
    devices: str = "/dev/onelun"
    datastores: str = "/var/lib/one/datastores"
    owner: str = "oneadmin"
    connector: Literal["iscsi", "userspace"] = "iscsi"
    initiator: str
    ready_s: float = 90.0
    libvirt: str = "qemu:///system"
    backups: str | None = None


Role = Frontend | Nas | Compute


class Config(_Section, frozen=True, kw_only=True):
    """All of it. A machine has the sections of the roles that run on it.

    Each role is a user of the broker of its own: the second one on a machine has its URL in its section (`broker_url`).
    `faults` is for tests alone: it allows that what ONELUN_FAULTS plans goes wrong (`onelun fault list`).
    """

    broker: Broker = Broker()
    limits: Limits = Limits()
    faults: bool = False
    frontend: Frontend | None = None
    nas: Nas | None = None
    compute: Compute | None = None

    def broker_of(self, role: Role) -> Broker:
        """The broker as the user that this role is."""
        return self.broker if role.broker_url is None else msgspec.structs.replace(self.broker, url=role.broker_url)


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
        for section in filter(lambda role: isinstance(document.get(role), dict), _ROLES):
            document[section].pop("broker_url", None)
            origin.pop(f"{section}.broker_url", None)
    try:
        config = msgspec.convert(document, Config)
    except msgspec.ValidationError as error:
        raise Rejected(f"the configuration {path} is wrong: {error}") from error
    try:
        _check(config)
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


def _check(config: Config) -> None:
    _check_texts(msgspec.to_builtins(config))
    _check_broker_and_limits(config)
    if config.frontend:
        checked_uuid(config.frontend.cloud, "UUID of a cloud (frontend.cloud)")
        if not 0 < config.frontend.max_image_gib <= _LARGEST_GIB:
            raise Rejected(f"frontend.max_image_gib must be 1 to {_LARGEST_GIB}")
        _check_initiator(config.frontend.initiator, "frontend.initiator")
        for agent in (*config.frontend.nas, *config.frontend.hosts.values()):
            checked_name(agent, "name of an agent")
    if config.nas:
        _check_nas(config.nas)
    if config.compute:
        checked_name(config.compute.name, "name of a compute agent (compute.name)")
        _check_initiator(config.compute.initiator, "compute.initiator")
        if not 0 <= config.compute.ready_s <= _LONGEST_S:
            raise Rejected(f"compute.ready_s cannot be {config.compute.ready_s:g}")
        if config.compute.backups is not None and not config.compute.backups.startswith("/"):
            raise Rejected("compute.backups must begin with /: it is OpenNebula's BACKUP_BASE_PATH")


def _check_texts(document: object, key: str = "") -> None:
    """Raise Rejected for a text with a NUL, an end of line or the like: it would end up in a path or an argument."""
    match document:
        case str() if not document.isprintable():
            raise Rejected(f"{key} is {document[:40]!r}, which has characters that cannot be printed")
        case dict():
            for name, value in document.items():
                _check_texts(name, f"a key of {key}" if key else "a key")
                _check_texts(value, f"{key}.{name}" if key else name)
        case list():
            for value in document:
                _check_texts(value, key)


def _check_broker_and_limits(config: Config) -> None:
    urls = {f"{name}.broker_url": role.broker_url for name in _ROLES if (role := getattr(config, name)) is not None}
    for key, url in {"broker.url": config.broker.url, **urls}.items():
        if url is not None and not url.startswith(("amqp://", "amqps://")):
            raise Rejected(f"{key} must begin with amqp:// or amqps://")
    if not 0 < len(config.broker.exchange.encode()) <= _LONGEST_NAME:
        raise Rejected(f"broker.exchange must have 1 to {_LONGEST_NAME} bytes")
    if not 1 <= config.broker.heartbeat_s <= _LONGEST_HEARTBEAT_S:
        raise Rejected(f"broker.heartbeat_s must be 1 to {_LONGEST_HEARTBEAT_S}")
    for key, value in msgspec.structs.asdict(config.limits).items():
        # NaN is below nothing and above nothing.
        if (
            not 0 <= value <= _LONGEST_S
            or (key in ("high_water", "reserve") and value > 1)
            or (key in _NOT_ZERO and value == 0)
        ):
            raise Rejected(f"limits.{key} cannot be {value:g}")


def _check_nas(nas: Nas) -> None:
    checked_name(nas.name, "name of a NAS (nas.name)")
    if not nas.pools:
        raise Rejected("nas.pools names no pool")
    for name, pool in nas.pools.items():
        checked_name(name, "name of a pool (nas.pools)")
        _check_pool(name, pool)
    if nas.default_pool not in (None, *nas.pools):
        raise Rejected(f"nas.default_pool is {nas.default_pool!r}, which nas.pools does not have")
    if getattr(nas, nas.exporter) is None:
        raise Rejected(
            f"nas.exporter is {nas.exporter}, and no section [nas.{nas.exporter}] tells the address of the portal"
        )
    for name in ("tgt", "lio"):
        portal = getattr(nas, name)
        if portal is not None and not 0 < portal.port < 1 << 16:
            raise Rejected(f"nas.{name}.port is {portal.port}: it must be 1 to 65535")
        if portal is not None and not _ADDRESS.fullmatch(portal.address):
            raise Rejected(f"nas.{name}.address is {portal.address[:80]!r}, which is no address")


def _check_pool(name: str, pool: Pool) -> None:
    match pool:
        case FilePool():
            if not pool.path.startswith("/"):
                raise Rejected(f"nas.pools.{name}.path must begin with /")
        case ZfsPool():
            if not _DATASET.fullmatch(pool.dataset):
                raise Rejected(f"nas.pools.{name}.dataset is {pool.dataset!r}: it should be such as tank/onelun")
        case LvmPool():
            for key, text in (("vg", pool.vg), ("thin_pool", pool.thin_pool)):
                if not _LVM_NAME.fullmatch(text):
                    raise Rejected(f"nas.pools.{name}.{key} is {text!r}, which is no name in LVM")


def _check_initiator(text: str, key: str) -> None:
    try:
        checked_initiator(text)
    except Rejected:
        raise Rejected(
            f"{key} is {text!r}: it must be an iSCSI name, such as iqn.2026-11.io.onelun.host:node1"
        ) from None
