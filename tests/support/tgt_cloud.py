"""The NAS in memory, with real targets for imports and for what is read: contents are in files, and can be looked at."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tests.support.fake_nas import GIB, Cloud, Volume
from tests.support.tgt import PrivateTgtd

from onelun.errors import NotFound, Unreachable
from onelun.model import Portal, Target
from onelun.naming import Source, target_account, target_iqn
from onelun.nas.exporters.tgt.exporter import TgtExporter
from onelun.rpc import message as m
from onelun.rpc.schema import Reply, Request


class TgtCloud(Cloud):
    """The NAS `nas1` and `nas2`, each with a pool `tank` of 100 GiB; a tgtd on `port` exports the imports of both."""

    def __init__(self, directory: Path, tgtd: PrivateTgtd, port: int) -> None:
        super().__init__({"nas1": {"tank": 100 * GIB}, "nas2": {"tank": 100 * GIB}})
        self.directory = directory
        self.exporters = {
            nas: TgtExporter(nas, tgtd.control_socket, Portal("127.0.0.1", port)) for nas in ("nas1", "nas2")
        }
        self.exporter = self.exporters["nas1"]
        self.targets: dict[str, Target] = {}
        self.lease_s = 3.0
        self.epoch = 0

    def file(self, source: str) -> Path:
        """The content of a volume."""
        return self.directory / source.replace("/", "-")

    async def ask(self, node: str, request: Request, **more: Any) -> Reply:
        if isinstance(
            request, m.ImportZvol | m.RestoreZvol | m.ReadZvol | m.FinishImport | m.AbortImport | m.RenewImport
        ):
            self.asked.append((node, request, more.get("id")))
            if node not in self.exporters or node in self.dead:
                raise Unreachable(f"nobody serves {node}")
            for failure in self.failures:
                if failure[0] == node and isinstance(request, failure[1]):
                    self.failures.remove(failure)
                    raise failure[2]
            handler = getattr(self, f"_{m.name_of(type(request))}")
            return await handler(node, request)
        return await super().ask(node, request, **more)

    async def _import_zvol(self, nas: str, r: m.ImportZvol) -> Reply:
        for uuid in [uuid for uuid, (key, _) in self.imports.items() if key == (nas, r.zpool, r.zvol)]:
            await self._abort_import(nas, m.AbortImport(zpool=r.zpool, uuid=uuid))
        target = await self._offer(nas, Source(nas, r.zpool, r.zvol), Volume(r.size_bytes, r.owner), r.initiator)
        return m.ZvolImporting(
            uuid=target.uuid,
            iqn=target.iqn,
            address=self.exporter.portal.address,
            port=self.exporter.portal.port,
            user=target.user,
            secret=target.secret,
            lease_s=self.lease_s,
        )

    async def _restore_zvol(self, nas: str, r: m.RestoreZvol) -> Reply:
        disk = self._of(nas, r)
        size = max(r.size_bytes, disk.size)
        return await self._import_zvol(
            nas,
            m.ImportZvol(zvol=r.zvol, zpool=r.zpool or "", size_bytes=size, owner=disk.owner, initiator=r.initiator),
        )

    async def _read_zvol(self, nas: str, r: m.ReadZvol) -> Reply:
        volume = self.volumes.get((nas, r.zpool, r.zvol))
        if volume is None:
            raise NotFound(f"there is no volume {r.zvol} in pool {r.zpool} to clone")
        content = self.file(f"{nas}/{r.zpool}/{r.zvol}").read_bytes()
        copy = Source(nas, r.zpool, f"read-{self.epoch}")
        target = await self._offer(nas, copy, Volume(volume.size, volume.owner), r.initiator, content)
        return m.ZvolReadable(
            uuid=target.uuid,
            size_bytes=volume.size,
            iqn=target.iqn,
            address=self.exporter.portal.address,
            port=self.exporter.portal.port,
            user=target.user,
            secret=target.secret,
            lease_s=self.lease_s,
        )

    async def _offer(self, nas: str, source: Source, volume: Volume, initiator: str, content: bytes = b"") -> Target:
        self.epoch += 1
        device = self.directory / volume.uuid
        with device.open("wb") as file:
            file.write(content)
            file.truncate(volume.size)
        iqn = target_iqn(source, self.epoch)
        target = Target(
            iqn=iqn,
            device=str(device),
            uuid=volume.uuid,
            size_bytes=volume.size,
            initiator=initiator,
            user=target_account(iqn),
            secret="0123456789abcdef",
        )
        await self.exporters[nas].export(target)
        self.imports[volume.uuid] = ((nas, source.pool, source.volume), volume)
        self.targets[volume.uuid] = target
        return target

    async def _renew_import(self, nas: str, r: m.RenewImport) -> Reply:
        if r.uuid not in self.imports:
            raise NotFound("the import has ended: nobody renewed it in time, or it was begun anew")
        return m.ImportRenewed(lease_s=self.lease_s)

    async def _finish_import(self, nas: str, r: m.FinishImport) -> Reply:
        if r.uuid not in self.imports:
            raise NotFound("the import has ended: nobody renewed it in time, or it was begun anew")
        await self.exporters[nas].unexport(self.targets[r.uuid].iqn)
        key, volume = self.imports.pop(r.uuid)
        self.volumes[key] = volume
        os.rename(self.directory / r.uuid, self.file("/".join(key)))
        return m.ImportFinished(uuid=volume.uuid, size_bytes=volume.size)

    async def _abort_import(self, nas: str, r: m.AbortImport) -> Reply:
        if self.imports.pop(r.uuid, None) is not None:
            await self.exporters[nas].unexport(self.targets[r.uuid].iqn)
            (self.directory / r.uuid).unlink()
        return m.ImportAborted()

    def nothing_left(self) -> bool:
        """Whether no import, volume or file is left."""
        return not self.imports and not self.volumes and not [f for f in self.directory.iterdir() if f.is_file()]
