"""The sections of the configuration. Unknown keys are errors."""

from __future__ import annotations

from typing import Literal

import msgspec


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
