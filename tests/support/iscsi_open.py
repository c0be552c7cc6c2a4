"""The lab of the connector on open-iscsi: targets on a private tgtd, sessions of the guest's own kernel.

Hosts of the lab share the kernel, its iscsid and the database of node records; what tells theirs apart is what tells
ours from others' on a real host.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import msgspec
from tests.support.blocks import HOSTS
from tests.support.iscsi import LIMIT_S, TgtLab
from tests.support.requires import requires

from onelun.compute.connectors.base import Export
from onelun.compute.connectors.iscsi.admin import daemon_answers
from onelun.compute.connectors.iscsi.connector import IscsiConnector
from onelun.compute.connectors.iscsi.records import iface_of

NODES = "/etc/iscsi/nodes"
_PIDFILE = "/run/iscsid.pid"


class OpenIscsiLab(TgtLab):
    """See TgtLab. It starts iscsid when nobody has."""

    needs = ("iscsiadm", "iscsid")

    def __init__(self, directory: str) -> None:
        requires(*self.needs)
        start_iscsid()
        super().__init__(directory)

    def connector(self, host: str) -> IscsiConnector:
        # iscsid tries every 2 s: a session that is down for longer beside its target does not come back by itself.
        return IscsiConnector(f"{self.directory}/{host}", node=host, wake_s=8)

    def account(self, export: Export, user: str, secret: str) -> Export:
        """Give the target another account instead, which the next login must use."""
        tid = str(self._tids[export.iqn])
        self._admin("--mode", "account", "--op", "new", "--user", user, "--password", secret)
        self._admin("--mode", "account", "--op", "unbind", "--tid", tid, "--user", export.user or "")
        self._admin("--mode", "account", "--op", "bind", "--tid", tid, "--user", user)
        return msgspec.structs.replace(export, user=user, secret=secret)

    def rename(self, export: Export, uuid: str) -> None:
        """Another volume is behind the LUN, and no session notices."""
        tid = str(self._tids[export.iqn])
        self._admin(
            "--mode", "logicalunit", "--op", "update", "--tid", tid, "--lun", "1", "--params", f"scsi_sn={uuid}"
        )

    def second_lun(self, export: Export, lun: int) -> str:
        """Give the target another LUN, let the host find it by hand, and return its device."""
        path = f"{self.directory}/lun-{lun}"
        Path(path).write_bytes(bytes(1 << 20))
        tid = str(self._tids[export.iqn])
        self._admin("--mode", "logicalunit", "--op", "new", "--tid", tid, "--lun", str(lun), "-b", path)
        (place,) = (place for place in session_places() if told(place, "targetname") == export.iqn)
        host = re.search(r"/host(\d+)/", os.path.realpath(place))
        assert host is not None
        Path(f"/sys/class/scsi_host/host{host[1]}/scan").write_text(f"0 0 {lun}")
        until = time.monotonic() + LIMIT_S
        # The kernel shows the disk in /sys before it makes its node.
        while not (found := [*(place / "device").glob(f"target*/*:{lun}/block/sd*")]) or not os.path.exists(
            f"/dev/{found[0].name}"
        ):
            assert time.monotonic() < until, f"LUN {lun} does not appear"
            time.sleep(0.05)
        return f"/dev/{found[0].name}"

    @contextmanager
    def foreign(self, iqn: str) -> Iterator[None]:
        """A target of somebody else's on the same NAS, without an account."""
        tid = "999"
        self._admin("--mode", "target", "--op", "new", "--tid", tid, "-T", iqn)
        self._admin("--mode", "target", "--op", "bind", "--tid", tid, "--initiator-address", "ALL")
        try:
            yield
        finally:
            self._admin("--mode", "target", "--op", "delete", "--force", "--tid", tid)

    def broken(self) -> list[tuple[str, AbstractContextManager[object]]]:
        return [*super().broken(), ("iscsid is not running", without_iscsid())]

    def leftovers(self) -> list[str]:
        """Sessions of the lab's hosts, and their records."""
        return [*sessions(*HOSTS), *records(*HOSTS)]


def sessions(*hosts: str) -> list[str]:
    """The targets that the hosts have sessions with, as the kernel shows them."""
    ours = set(map(iface_of, hosts))
    return [
        f"{place.name} to {told(place, 'targetname')}" for place in session_places() if told(place, "ifacename") in ours
    ]


def session_places() -> list[Path]:
    """The directories of the kernel's sessions. One that it is just removing has lost its device, and is none."""
    return [place for place in sorted(Path("/sys/class/iscsi_session").glob("session*")) if (place / "device").exists()]


def told(place: Path, name: str) -> str:
    """What the kernel tells of a session; nothing when that is going meanwhile."""
    try:
        return (place / name).read_text().strip()
    except OSError:
        return ""


def records(*hosts: str) -> list[str]:
    """The node records of the hosts."""
    paths = [f"{folder}/{name}" for folder, _, names in os.walk(NODES) for name in names]
    lines = {f"iface.iscsi_ifacename = {iface_of(host)}" for host in hosts}
    return [path for path in paths if lines & set(Path(path).read_text().splitlines())]


def iscsid_pid() -> int | None:
    """The pid of the running iscsid."""
    try:
        pid = int(Path(_PIDFILE).read_text())
        return pid if Path(f"/proc/{pid}/comm").read_text().strip() == "iscsid" else None
    except (OSError, ValueError):
        return None


@contextmanager
def without_iscsid() -> Iterator[None]:
    """No iscsid for a while: killed, as by the kernel when memory is short."""
    pid = iscsid_pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    until = time.monotonic() + LIMIT_S
    while iscsid_pid() is not None:
        assert time.monotonic() < until, "iscsid is still there"
        time.sleep(0.02)
    try:
        yield
    finally:
        start_iscsid()


def start_iscsid() -> None:
    """Start it unless it runs, and wait until it answers."""
    if iscsid_pid() is not None:
        return
    name = Path("/etc/iscsi/initiatorname.iscsi")
    if not name.exists():
        name.write_text("InitiatorName=iqn.2026-11.io.onelun.test:nobody\n")
    subprocess.run(["iscsid"], timeout=LIMIT_S, check=True)
    until = time.monotonic() + LIMIT_S
    while iscsid_pid() is None or not daemon_answers():
        assert time.monotonic() < until, "iscsid does not start"
        time.sleep(0.05)
