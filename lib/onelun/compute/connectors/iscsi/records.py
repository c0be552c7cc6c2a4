"""The node records of open-iscsi: how iscsid logs in to a target, one file each.

iscsiadm can make a record only with the secret among its arguments, where every user of the host sees it; so the file
is written here, in the form that open-iscsi 2.1 reads (usr/idbm.c): `nodes/TARGET/ADDRESS,PORT` is a record of any
target portal group, and what it does not tell has open-iscsi's own default. It is put in place whole, readable by root
alone. iscsid reads it again when it is restarted, so it stays as long as the session.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import shutil

from onelun.compute.connectors.base import Export
from onelun.ending import to_its_end
from onelun.errors import CommandFailed, Rejected
from onelun.model import Portal

# A word of one of these ends up as a path, or as the rest of a line.
_NAME = re.compile(r"(?:iqn|eui|naa)\.[A-Za-z0-9.:-]{1,219}")
_WORD = re.compile(r"[!-~]{1,255}")
# libiscsi's ISCSI_MAX_IFACE_LEN is 65, with the zero at the end.
_LONGEST_IFACE = 64

# A writer rides out a NAS that is away for a day; force ends what waits sooner, by removing the device.
_REPLACEMENT_S = 86400
_SETTINGS = {
    # Nothing logs in by itself after a reboot: the NAS tells what is in force.
    "node.startup": "manual",
    "node.conn[0].startup": "manual",
    "node.leading_login": "No",
    "node.discovery_type": "static",
    # No LUN appears but the one that is asked for.
    "node.session.scan": "manual",
    "node.session.nr_sessions": "1",
    "node.session.initial_login_retry_max": "1",
    "node.session.timeo.replacement_timeout": str(_REPLACEMENT_S),
    "node.conn[0].timeo.login_timeout": "5",
    "node.conn[0].timeo.auth_timeout": "5",
    "node.conn[0].timeo.logout_timeout": "5",
    # A connection that answers nothing is given up after the sum of these.
    "node.conn[0].timeo.noop_out_interval": "5",
    "node.conn[0].timeo.noop_out_timeout": "5",
}


def iface_of(node: str) -> str:
    """The name by which the sessions of that agent are told from all others on its host."""
    name = f"onelun.{node}"
    return name if len(name) <= _LONGEST_IFACE else f"onelun.{hashlib.sha256(node.encode()).hexdigest()[:32]}"


class Records:
    """The records of one `iface` in open-iscsi's `database`; others' are left alone."""

    def __init__(self, database: str, iface: str) -> None:
        self._database = database
        self._nodes = f"{database}/nodes"
        self._iface = iface

    async def make(self, export: Export, portal: Portal) -> None:
        """Like `put`, which waits for the disk, beside the event loop. Cancelled, it is finished first."""
        await to_its_end(asyncio.to_thread(self.put, export, portal), wait_s=None)

    def put(self, export: Export, portal: Portal) -> None:
        """Make the record by which iscsid logs in to the target at `portal` (numeric). An earlier one of ours goes.

        Durable before it has its name: after a power cut it would else be an empty file, which is nobody's. Raises Rejected
        for a word that cannot be written, CommandFailed when the database cannot.
        """
        text = _text(export, portal, self._iface)
        directory = f"{self._nodes}/{export.iqn}"
        aside = f"{self._database}/.{self._iface}.{hashlib.sha256(export.iqn.encode()).hexdigest()[:16]}"
        try:
            self.remove(export.iqn)
            os.makedirs(self._nodes, mode=0o700, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(aside)
            descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.makedirs(directory, mode=0o700, exist_ok=True)
            os.replace(aside, f"{directory}/{portal.address},{portal.port}")
        except OSError as error:
            raise CommandFailed(f"cannot write the record of {export.iqn} below {self._nodes}: {error}") from error

    def restore(self, iqn: str, portal: Portal, initiator: str) -> None:
        """Make a record by which a session can be logged out, unless it has one. Raises what `put` raises."""
        if f"{self._nodes}/{iqn}/{portal.address},{portal.port}" not in self._paths(iqn):
            self.put(Export(iqn, portal, initiator), portal)

    def remove(self, iqn: str) -> None:
        """Remove our records of the target. Absent: nothing. Raises CommandFailed when the database cannot be written."""
        checked_target(iqn)
        directory = f"{self._nodes}/{iqn}"
        try:
            for path in self._paths(iqn):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
                _remove_empty(os.path.dirname(path), directory)
            _remove_empty(directory, directory)
        except OSError as error:
            raise CommandFailed(f"cannot remove the record of {iqn} below {self._nodes}: {error}") from error

    def targets(self) -> list[str]:
        """The targets that we have a record of."""
        return [iqn for iqn in _names(self._nodes) if _NAME.fullmatch(iqn) and self._paths(iqn)]

    def automatic(self) -> list[str]:
        """Those of them that would be logged in to at the host's start."""
        return [iqn for iqn in self.targets() if any(_logs_in(_read(path)) for path in self._paths(iqn))]

    def trouble(self) -> str | None:
        """Why records cannot be written; None when they can."""
        if not os.path.isdir(self._database):
            return f"{self._database} is missing: install open-iscsi"
        place = self._nodes if os.path.isdir(self._nodes) else self._database
        return None if os.access(place, os.W_OK | os.X_OK) else f"{place} cannot be written: the agent must run as root"

    def clear_aside(self) -> None:
        """Remove what a kill in the middle of `put` left."""
        for name in _names(self._database):
            if name.startswith(f".{self._iface}."):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(f"{self._database}/{name}")

    def _paths(self, iqn: str) -> list[str]:
        """Ours among the files of a target, in either form: ADDRESS,PORT or ADDRESS,PORT,GROUP/IFACE."""
        return [
            path
            for folder, _, files in os.walk(f"{self._nodes}/{iqn}")
            for path in (f"{folder}/{name}" for name in files)
            if _read(path).get("iface.iscsi_ifacename") == self._iface
        ]


def checked_target(iqn: str) -> str:
    """`iqn`, when it can be a directory's name; else Rejected."""
    if not _NAME.fullmatch(iqn):
        raise Rejected(f"{iqn[:80]!r} is no name of an iSCSI target")
    return iqn


def _text(export: Export, portal: Portal, iface: str) -> str:
    checked_target(export.iqn)
    settings = {
        "node.name": export.iqn,
        "node.tpgt": "-1",
        "iface.iscsi_ifacename": iface,
        "iface.transport_name": "tcp",
        "iface.initiatorname": export.initiator,
        "node.conn[0].address": portal.address,
        "node.conn[0].port": str(portal.port),
        **_SETTINGS,
    }
    if export.user is not None:
        settings |= {
            "node.session.auth.authmethod": "CHAP",
            "node.session.auth.username": export.user,
            "node.session.auth.password": export.secret or "",
        }
    for key, value in settings.items():
        if not _WORD.fullmatch(value):
            # The value may be the secret.
            raise Rejected(f"{key} of {export.iqn} must be 1 to 255 printable characters without blanks")
    lines = "\n".join(f"{key} = {value}" for key, value in settings.items())
    return f"# BEGIN RECORD 2.1.8\n{lines}\n# END RECORD\n"


def _read(path: str) -> dict[str, str]:
    """The settings in a record; what is no setting is passed over."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            pairs = [line.partition(" = ") for line in file]
    except OSError:
        return {}
    return {key.strip(): value.strip() for key, found, value in pairs if found}


def _logs_in(record: dict[str, str]) -> bool:
    """Whether open-iscsi's service would log in with it at the host's start."""
    return "automatic" in (record.get("node.startup"), record.get("node.conn[0].startup"))


def _remove_empty(directory: str, top: str) -> None:
    with contextlib.suppress(OSError):
        os.rmdir(directory)
        if directory != top:
            os.rmdir(os.path.dirname(directory))


def _names(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except OSError:
        return []


def available() -> bool:
    """Whether open-iscsi's iscsiadm is installed."""
    return shutil.which("iscsiadm", path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin") is not None
