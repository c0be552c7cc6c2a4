"""Places where connectors find targets: a private tgtd on loopback, or the in-memory connector's table."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
import uuid as uuids
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import msgspec
from tests.support.requires import requires
from tests.support.tgt import PrivateTgtd, free_port

from onelun.compute.connectors.base import Connector, Export
from onelun.compute.connectors.memory import MemoryConnector
from onelun.compute.connectors.userspace.connector import UserspaceConnector
from onelun.model import Portal, Target

SECRET = "secret-of-16-chr"
MIB = 1 << 20
# What a test waits for is there in a second, and in a guest on a busy machine in many.
LIMIT_S = 60.0


def initiator(host: str) -> str:
    return f"iqn.2026-11.io.onelun.host:{host}"


class Lab:
    """Volumes that are offered as targets, and hosts that may connect them. `lun` is the number of each target's disk."""

    lun = 1

    def __init__(self, directory: str, portal: Portal) -> None:
        self.directory = directory
        self.portal = portal
        self.closed = Portal("127.0.0.1", free_port(but=portal.port))
        self.targets: dict[str, Target] = {}

    def connector(self, host: str) -> Connector:
        raise NotImplementedError

    def offer(self, volume: str, host: str, *, epoch: int = 1, size: int = 16 * MIB, readonly: bool = False) -> Export:
        """Make the volume unless it is there, and offer it to the host."""
        path = f"{self.directory}/{volume}"
        if not os.path.exists(path):
            with open(path, "wb") as file:
                file.truncate(size)
        target = Target(
            iqn=f"iqn.2026-11.io.onelun.nas1:tank.{volume}.e{epoch}",
            device=path,
            uuid=str(uuids.uuid5(uuids.NAMESPACE_URL, path)),
            size_bytes=os.path.getsize(path),
            initiator=initiator(host),
            user=f"{volume}-e{epoch}",
            secret=SECRET,
            readonly=readonly,
        )
        self.put(target)
        return Export(
            iqn=target.iqn,
            portal=self.portal,
            initiator=target.initiator,
            user=target.user,
            secret=target.secret,
            uuid=target.uuid,
            size_bytes=target.size_bytes,
            readonly=readonly,
        )

    def exchange(self, export: Export, **change: object) -> None:
        """Put another volume behind the same IQN: another `uuid`, or another `device`."""
        self.put(msgspec.structs.replace(self.targets[export.iqn], **change))

    def backing(self, export: Export) -> str:
        return self.targets[export.iqn].device

    def put(self, target: Target) -> None:
        self.targets[target.iqn] = target

    def withdraw(self, export: Export) -> None:
        del self.targets[export.iqn]

    def grow(self, export: Export, size: int) -> None:
        """Make the volume longer, and its LUN with it."""
        os.truncate(self.backing(export), size)
        self.targets[export.iqn] = msgspec.structs.replace(self.targets[export.iqn], size_bytes=size)

    def broken(self) -> list[tuple[str, AbstractContextManager[object]]]:
        """Ways in which node1 may lack something: words that its connector's `check` must say then, and what makes it so."""
        return [("no directory", self._occupied())]

    @contextmanager
    def _occupied(self) -> Iterator[None]:
        place = f"{self.directory}/node1"
        if os.path.isdir(place):
            os.rename(place, place + "-away")
        with open(place, "wb"):
            pass
        try:
            yield
        finally:
            os.unlink(place)
            if os.path.isdir(place + "-away"):
                os.rename(place + "-away", place)

    def leftovers(self) -> list[str]:
        """What of a connection only this lab knows of, as words for a person."""
        return []

    def stop(self) -> None:
        """End what the lab began."""


class MemoryLab(Lab):
    def __init__(self, directory: str) -> None:
        super().__init__(directory, Portal("127.0.0.1", 3260))

    def connector(self, host: str) -> Connector:
        return MemoryConnector(f"{self.directory}/{host}", self.targets, closed={self.closed})


class TgtLab(Lab):
    """A tgtd of our own: its control socket is in our directory, its portal on a free port of loopback."""

    needs: tuple[str, ...] = ("loop", "fuse", "iscsi-inq", "qemu-storage-daemon", "nbdfuse", "losetup")

    def __init__(self, directory: str) -> None:
        requires("root", "tgtd", *self.needs)
        super().__init__(directory, Portal("127.0.0.1", free_port()))
        self._tgtd = PrivateTgtd(directory, [str(self.portal)], threads=1)
        self._tgtd.start()
        assert "unable to bind" not in self._tgtd.log.read_text()
        self._env = {**os.environ, "TGT_IPC_SOCKET": self._tgtd.control_socket.removesuffix(".0")}
        self._tids: dict[str, int] = {}
        self._next = 1

    @property
    def pid(self) -> int | None:
        """Of tgtd."""
        return self._tgtd.pid

    def connector(self, host: str) -> Connector:
        return UserspaceConnector(f"{self.directory}/{host}", node=host)

    def put(self, target: Target) -> None:
        if target.iqn in self._tids:
            self._delete(target.iqn)
        tid = str(self._next)
        self._next += 1
        self._admin("--mode", "target", "--op", "new", "--tid", tid, "-T", target.iqn)
        self._tids[target.iqn] = int(tid)
        self._make_lun(target)
        account = ("--mode", "account", "--user", target.user)
        if target.iqn not in self.targets:
            self._admin(*account, "--op", "new", "--password", target.secret)
        self._admin(*account, "--op", "bind", "--tid", tid)
        self._admin("--mode", "target", "--op", "bind", "--tid", tid, "--initiator-name", target.initiator)
        super().put(target)

    def _make_lun(self, target: Target) -> None:
        lun = ("--mode", "logicalunit", "--tid", str(self._tids[target.iqn]), "--lun", "1")
        self._admin(*lun, "--op", "new", "-b", target.device, "--bstype", "rdwr")
        readonly = ",readonly=1" if target.readonly else ""
        self._admin(*lun, "--op", "update", "--params", f"thin_provisioning=1,scsi_sn={target.uuid}{readonly}")

    def withdraw(self, export: Export) -> None:
        self._delete(export.iqn)

    def grow(self, export: Export, size: int) -> None:
        """The daemon reads a device's size only when its LUN is made; a session goes on with the new one."""
        super().grow(export, size)
        lun = ("--mode", "logicalunit", "--tid", str(self._tids[export.iqn]), "--lun", "1")
        # udev looks at the host's device after each writer has closed it, and tgtd keeps a LUN that it has a command for.
        self._admin(*lun, "--op", "delete", while_it_says="still active")
        self._make_lun(self.targets[export.iqn])

    def sessions(self) -> str:
        """What tgtd shows of the logins."""
        shown = self._admin("--mode", "target", "--op", "show")
        return "\n".join(line for line in shown.splitlines() if "Initiator:" in line)

    def stop(self) -> None:
        self._tgtd.kill()

    def restart(self) -> None:
        """Kill tgtd and start it again; it offers nothing then."""
        self._tgtd.kill()
        self._tgtd.start()
        self._tids.clear()
        self.targets.clear()

    def _delete(self, iqn: str) -> None:
        tid = str(self._tids.pop(iqn))
        self._admin("--mode", "target", "--op", "delete", "--force", "--tid", tid, while_it_says="still active")

    def _admin(self, *args: str, while_it_says: str | None = None) -> str:
        """What tgtadm prints; asked again while it refuses in those words."""
        argv = ["tgtadm", "--lld", "iscsi", *args]
        until = time.monotonic() + LIMIT_S
        while True:
            done = subprocess.run(argv, env=self._env, capture_output=True, text=True, timeout=LIMIT_S, check=False)
            if done.returncode == 0:
                return done.stdout
            late = while_it_says is None or while_it_says not in done.stderr or time.monotonic() > until
            assert not late, f"{argv}: {done.stderr}"
            time.sleep(0.05)


@contextmanager
def lab(kind: Callable[[str], Lab]) -> Iterator[Lab]:
    """A lab of that class in a directory of its own. Paths of unix sockets must be short."""
    directory = tempfile.mkdtemp(prefix="onelun-")
    try:
        place = kind(directory)
        try:
            yield place
        finally:
            place.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)
