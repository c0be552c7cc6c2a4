"""What values of the configuration can be, beyond their types."""

from __future__ import annotations

import re

import msgspec

from onelun.config.sections import Config, FilePool, LvmPool, Nas, Pool, ZfsPool
from onelun.errors import Rejected
from onelun.naming import checked_initiator, checked_name, checked_uuid

ROLES = ("frontend", "nas", "compute")
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
_NOT_ZERO = ("accept_s", "finish_s", "copy_s", "progress_s", "probe_s", "high_water", "per_host", "at_once")


def check(config: Config) -> None:
    """Raise Rejected, naming the key, for a value that cannot be."""
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
    urls = {f"{name}.broker_url": role.broker_url for name in ROLES if (role := getattr(config, name)) is not None}
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
