"""The iSCSI sessions of this host and their disks, as the kernel shows them below /sys.

A disk is found through its session and its address (host:channel:target:LUN), never by a name that udev gives: that
cannot be another volume's, and it is there as soon as the kernel has it. What disappears while it is read is empty.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from onelun.numbers import is_number

_SESSION = re.compile(r"session([0-9]{1,18})")
_HOST = re.compile(r"/host([0-9]{1,18})/session[0-9]+$")
_HCTL = re.compile(r"[0-9]+:[0-9]+:[0-9]+:([0-9]{1,18})")
_SECTOR = 512

UP = "LOGGED_IN"
RECOVERING = "FAILED"
"""A session whose connection is lost, and which iscsid tries to bring back (libiscsi's name for it)."""


class Session(NamedTuple):
    """One iSCSI session. `address` is numeric; `state` is UP, RECOVERING, or another word of the kernel's."""

    number: int
    directory: str
    host: int
    target_id: int
    iqn: str
    initiator: str
    iface: str
    state: str
    address: str
    port: int


class Disk(NamedTuple):
    """One LUN of a session. `name` is such as `sda`, empty while the kernel has no block device for it.

    `state` is the SCSI device's (`running`, `blocked`, `offline`, ...), `kind` its SCSI type, of which 0 is a disk.
    """

    hctl: str
    directory: str
    lun: int
    name: str
    state: str
    kind: int
    size_bytes: int
    readonly: bool

    @property
    def node(self) -> str:
        """The path of its block device."""
        return f"/dev/{self.name}"


class Sysfs:
    """What is below `root`, which is /sys but in tests."""

    def __init__(self, root: str = "/sys") -> None:
        self._root = root

    def sessions(self) -> list[Session]:
        """All sessions of this host, also others' than ours, the oldest first."""
        place = f"{self._root}/class/iscsi_session"
        numbers = sorted(int(match[1]) for name in _names(place) if (match := _SESSION.fullmatch(name)))
        found = (self._session(f"{place}/session{number}", number) for number in numbers)
        return [session for session in found if session is not None]

    def disks(self, session: Session) -> list[Disk]:
        """The LUNs that the kernel knows of a session, in order."""
        found = [
            _disk(f"{session.directory}/{target}/{hctl}", hctl)
            for target in _names(session.directory)
            if target.startswith("target")
            for hctl in _names(f"{session.directory}/{target}")
            if _HCTL.fullmatch(hctl)
        ]
        return sorted(found, key=lambda disk: disk.lun)

    def disk(self, session: Session, lun: int) -> Disk | None:
        """The LUN of that number."""
        return next((disk for disk in self.disks(session) if disk.lun == lun), None)

    def multipaths(self, disk: Disk) -> list[str]:
        """The maps of dm-multipath that hold the disk, by name."""
        holders = f"{disk.directory}/block/{disk.name}/holders"
        found = [f"{holders}/{name}/dm" for name in _names(holders)] if disk.name else []
        return [_value(f"{place}/name") for place in found if _value(f"{place}/uuid").startswith("mpath-")]

    def account(self, session: Session) -> tuple[str, str]:
        """The account and the secret that the session was logged in with; empty without one. Root alone may read it."""
        place = f"{self._root}/class/iscsi_session/session{session.number}"
        return _value(f"{place}/username"), _value(f"{place}/password")

    def scan_file(self, session: Session) -> str:
        """Where `CHANNEL TARGET LUN` is written to have the kernel look for one LUN."""
        return f"{self._root}/class/scsi_host/host{session.host}/scan"

    def has_tcp(self) -> bool:
        """Whether the kernel has iSCSI over TCP now (the module iscsi_tcp)."""
        return os.path.isdir(f"{self._root}/class/iscsi_transport/tcp")

    def tcp_handle(self) -> str:
        """The kernel's name for its iSCSI over TCP in messages to it, a number. Root alone may read it."""
        return _value(f"{self._root}/class/iscsi_transport/tcp/handle") or "0"

    def has_bsg(self) -> bool:
        """Whether the kernel has the generic SCSI layer by which any command can be sent."""
        return os.path.isdir(f"{self._root}/class/bsg")

    def _session(self, place: str, number: int) -> Session | None:
        try:
            directory = os.path.realpath(f"{place}/device", strict=True)
        except OSError:
            # It ended between the listing and here.
            return None
        host = _HOST.search(directory)
        iqn = _value(f"{place}/targetname")
        if host is None or not iqn:
            return None
        connection = f"{self._root}/class/iscsi_connection/connection{number}:0"
        # The persistent address is the one that was asked for; the other is where a redirected login ended.
        return Session(
            number,
            directory,
            int(host[1]),
            max(_number(f"{place}/target_id"), 0),
            iqn,
            _value(f"{place}/initiatorname"),
            _value(f"{place}/ifacename"),
            _value(f"{place}/state"),
            _value(f"{connection}/persistent_address") or _value(f"{connection}/address"),
            _number(f"{connection}/persistent_port"),
        )


def _disk(directory: str, hctl: str) -> Disk:
    # Partitions are below the disk's own directory, so that block/ holds the disk alone.
    name = next(iter(_names(f"{directory}/block")), "")
    block = f"{directory}/block/{name}"
    return Disk(
        hctl,
        directory,
        int(hctl.rpartition(":")[2]),
        name,
        _value(f"{directory}/state"),
        _number(f"{directory}/type"),
        max(_number(f"{block}/size"), 0) * _SECTOR if name else 0,
        bool(name) and _number(f"{block}/ro") == 1,
    )


def device_number(disk: Disk) -> tuple[int, int] | None:
    """Major and minor number of the disk's block device."""
    major, _, minor = _value(f"{disk.directory}/block/{disk.name}/dev").partition(":")
    return (int(major), int(minor)) if is_number(major) and is_number(minor) else None


def _names(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except OSError:
        return []


def _value(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            text = file.read().strip()
    except OSError:
        return ""
    # What the kernel prints for an attribute that was never set.
    return "" if text == "(null)" else text


def _number(path: str) -> int:
    text = _value(path)
    return int(text) if is_number(text.removeprefix("-")) else -1
