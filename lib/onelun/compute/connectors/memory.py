"""The connector without iSCSI: targets are values in memory, devices are names of the files behind them.

It keeps the rules of Connector (who may connect, what the device must be, busy while open, found again by the next
agent), so that agents are tried without root.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Mapping
from pathlib import Path

import msgspec

from onelun.compute.connectors.base import Connected, Connector, Export
from onelun.errors import Busy, Conflict, NotFound, Rejected, Unreachable
from onelun.model import Portal, Target

_LUN = 1


class MemoryConnector(Connector):
    """See Connector. `targets` is what the NAS offers now, by IQN; `closed` are portals where nobody listens."""

    def __init__(self, run_dir: str, targets: Mapping[str, Target], *, closed: Collection[Portal] = ()) -> None:
        self._run_dir = run_dir
        self._targets = targets
        self._closed = closed

    async def check(self) -> list[str]:
        """See Connector."""
        if os.path.lexists(self._run_dir) and not os.path.isdir(self._run_dir):
            return [f"{self._run_dir} is no directory: remove it, or configure another one"]
        return []

    async def settle(self) -> None:
        """See Connector. A state without its device is a dead connection, so nothing is half-made."""

    async def connect(self, export: Export) -> str:
        """See Connector."""
        device = self._device(export.iqn)
        try:
            target = self._login(export)
        except (Conflict, NotFound):
            if not _open_by_us(device):
                self._remove(export.iqn)
            raise
        if os.path.lexists(device) and os.readlink(device) != target.device:
            await self.disconnect(export.iqn)
        if not os.path.lexists(device):
            os.makedirs(self._run_dir, exist_ok=True)
            Path(f"{device}.state").write_bytes(msgspec.json.encode(Connected(export.iqn, device)))
            os.symlink(target.device, device)
        return device

    async def grow(self, iqn: str, size_bytes: int) -> str:
        """See Connector. The device is the file itself, so it has grown with it, open or not."""
        device = self._device(iqn)
        if not os.path.exists(device):
            raise NotFound(f"{iqn} is not connected", target=iqn)
        if os.path.getsize(device) != size_bytes:
            raise Conflict(f"{iqn} has {os.path.getsize(device)} bytes, not {size_bytes}", target=iqn)
        return device

    async def disconnect(self, iqn: str, *, force: bool = False) -> None:
        """See Connector."""
        device = self._device(iqn)
        if not force and _open_by_us(device):
            raise Busy(f"{device} is in use", device=device)
        self._remove(iqn)

    async def connections(self) -> list[Connected]:
        """See Connector. A device is dead when the file behind it is gone."""
        found = []
        for name in sorted(os.listdir(self._run_dir)) if os.path.isdir(self._run_dir) else ():
            if name.endswith(".state"):
                known = msgspec.json.decode(Path(f"{self._run_dir}/{name}").read_bytes(), type=Connected)
                found.append(msgspec.structs.replace(known, alive=os.path.exists(known.device)))
        return found

    def _device(self, iqn: str) -> str:
        return f"{self._run_dir}/{hashlib.sha256(iqn.encode()).hexdigest()[:16]}"

    def _login(self, export: Export) -> Target:
        if export.portal in self._closed:
            raise Unreachable(f"cannot reach the portal {export.portal}: nobody listens there")
        target = self._targets.get(export.iqn)
        if target is None:
            raise NotFound(f"{export.portal} has no target {export.iqn}", target=export.iqn)
        if target.initiator != export.initiator:
            raise Rejected(f"{export.portal} refuses {export.iqn} to the initiator {export.initiator}")
        if target.user and (target.user, target.secret) != (export.user, export.secret):
            raise Rejected(f"{export.portal} refuses the login to {export.iqn}: the account or its secret is wrong")
        if export.lun not in (None, _LUN):
            raise NotFound(f"target {export.iqn} has no disk as LUN {export.lun}", target=export.iqn)
        size = os.path.getsize(target.device)
        if export.uuid not in (None, target.uuid) or export.size_bytes not in (None, size):
            raise Conflict(
                f"target {export.iqn} shows volume {target.uuid} of {size} bytes, "
                f"expected {export.uuid} of {export.size_bytes}",
                target=export.iqn,
            )
        return target

    def _remove(self, iqn: str) -> None:
        for path in (self._device(iqn), f"{self._device(iqn)}.state"):
            if os.path.lexists(path):
                os.unlink(path)


def _open_by_us(device: str) -> bool:
    """Whether this process has the file behind `device` open."""
    try:
        wanted = os.stat(device)
    except OSError:
        return False
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            status = os.stat(f"/proc/self/fd/{descriptor}")
        except OSError:
            continue
        if os.path.samestat(status, wanted):
            return True
    return False
