"""An exporter in memory, for tests and trials: targets with their access rules, and initiators that log in by method.

The device is a file, which is read and written when an initiator does I/O; or begins with /memory/, as the volumes of the
backend in memory do, and is then no more than a name.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import msgspec

from onelun.errors import Busy, Conflict, NotFound, Rejected, Unreachable
from onelun.model import Portal, Target
from onelun.naming import is_target_of
from onelun.nas.exporters import rules
from onelun.nas.exporters.base import Exported, Exporter
from onelun.nas.exporters.device import check_device

_NO_FILE = "/memory/"


@dataclass
class _Kept:
    target: Target
    sessions: set[str] = field(default_factory=set)


class MemoryExporter(Exporter):
    """The targets of the NAS `nas`. While `running` is false it is as if the target daemon were not there.

    With `grows_in_use` false it is as tgtd is: a target grows only without a session.
    """

    lun = 1

    def __init__(self, nas: str, portal: Portal, *, grows_in_use: bool = True) -> None:
        self.portal = portal
        self.grows_in_use = grows_in_use
        self.running = True
        self._nas = nas
        self._kept: dict[str, _Kept] = {}

    async def check(self) -> list[str]:
        """See the base."""
        try:
            self._check_running()
        except Unreachable as error:
            return [str(error)]
        return []

    async def export(self, target: Target) -> None:
        """See the base."""
        rules.check_target(self._nas, target)
        self._check_running()
        if not target.device.startswith(_NO_FILE):
            check_device(target)
        kept = self._kept.get(target.iqn)
        if kept is None:
            self._kept[target.iqn] = _Kept(target)
            return
        there = kept.target
        if (there.device, there.initiator) != (target.device, target.initiator):
            raise Conflict(f"the target {target.iqn} exists for {there.device} and {there.initiator}")
        if not kept.sessions:
            kept.target = target
        elif (there.size_bytes, there.readonly) != (target.size_bytes, target.readonly):
            raise Conflict(f"the target {target.iqn} is in use with another size or mode: end that first")

    async def grow(self, target: Target) -> None:
        """See the base. Sessions see the new size at once, where they may."""
        rules.check_target(self._nas, target)
        self._check_running()
        if not target.device.startswith(_NO_FILE):
            check_device(target)
        kept = self._kept.get(target.iqn)
        if kept is None:
            raise rules.no_target(target.iqn)
        if kept.sessions and not self.grows_in_use and kept.target.size_bytes != target.size_bytes:
            raise Busy(f"{target.iqn} cannot grow while somebody is logged in", iqn=target.iqn)
        kept.target = msgspec.structs.replace(kept.target, size_bytes=target.size_bytes)

    async def unexport(self, iqn: str) -> None:
        """See the base."""
        rules.check_iqn(self._nas, iqn)
        self._check_running()
        self._kept.pop(iqn, None)

    async def exports(self) -> dict[str, Exported]:
        """See the base."""
        self._check_running()
        return {
            iqn: Exported(iqn, kept.target.device, (kept.target.initiator,), tuple(sorted(kept.sessions)))
            for iqn, kept in self._kept.items()
            if is_target_of(self._nas, iqn)
        }

    def log_in(self, iqn: str, initiator: str, secret: str) -> None:
        """An initiator logs in. Raises NotFound without such a target, Rejected for another name or secret."""
        kept = self._kept.get(iqn)
        if kept is None:
            raise NotFound(f"there is no target {iqn}")
        if (initiator, secret) != (kept.target.initiator, kept.target.secret):
            raise Rejected(f"{initiator} is not admitted to {iqn}")
        kept.sessions.add(initiator)

    def log_out(self, iqn: str, initiator: str) -> None:
        """It logs out. Not logged in: nothing."""
        if iqn in self._kept:
            self._kept[iqn].sessions.discard(initiator)

    def write(self, iqn: str, initiator: str, offset: int, content: bytes) -> None:
        """A logged-in initiator writes into the device, a file. Raises Rejected when it may not."""
        target = self._session(iqn, initiator)
        if target.readonly or offset + len(content) > target.size_bytes:
            raise Rejected(f"{iqn} is not written at {offset}")
        descriptor = os.open(target.device, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.pwrite(descriptor, content, offset)
        finally:
            os.close(descriptor)

    def read(self, iqn: str, initiator: str, offset: int, length: int) -> bytes:
        """A logged-in initiator reads from the device, a file. Raises Rejected when it may not."""
        target = self._session(iqn, initiator)
        descriptor = os.open(target.device, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.pread(descriptor, length, offset)
        finally:
            os.close(descriptor)

    def identity(self, iqn: str, initiator: str) -> tuple[str, int]:
        """What a logged-in initiator sees of LUN 1: its serial and its bytes."""
        target = self._session(iqn, initiator)
        return target.uuid, target.size_bytes

    def _session(self, iqn: str, initiator: str) -> Target:
        kept = self._kept.get(iqn)
        if kept is None or initiator not in kept.sessions:
            raise Rejected(f"{initiator} has no session with {iqn}")
        return kept.target

    def _check_running(self) -> None:
        if not self.running:
            raise Unreachable("the target daemon does not answer: start it")
