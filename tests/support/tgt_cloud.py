"""The NAS in memory, with real targets for imports: what an import wrote is in a file, and can be looked at."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tests.support.fake_nas import GIB, Cloud, Volume
from tests.support.tgt import PrivateTgtd

from onelun.errors import NotFound
from onelun.model import Portal, Target
from onelun.naming import Source, target_account, target_iqn
from onelun.nas.exporters.tgt.exporter import TgtExporter
from onelun.rpc import message as m
from onelun.rpc.schema import Reply, Request


class TgtCloud(Cloud):
    """The NAS `nas1` and `nas2`, each with a pool `tank` of 100 GiB; imports of nas1 are exported by a tgtd on `port`."""

    def __init__(self, directory: Path, tgtd: PrivateTgtd, port: int) -> None:
        super().__init__({"nas1": {"tank": 100 * GIB}, "nas2": {"tank": 100 * GIB}})
        self.directory = directory
        self.exporter = TgtExporter("nas1", tgtd.control_socket, Portal("127.0.0.1", port))
        self.targets: dict[str, Target] = {}
        self.lease_s = 3.0
        self.epoch = 0

    def file(self, source: str) -> Path:
        """The content of a volume."""
        return self.directory / source.replace("/", "-")

    async def ask(self, node: str, request: Request, **more: Any) -> Reply:
        if isinstance(request, m.ImportZvol | m.FinishImport | m.AbortImport | m.RenewImport):
            self.asked.append((node, request, more.get("id")))
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
        self.epoch += 1
        volume = Volume(r.size_bytes, r.owner)
        source = Source(nas, r.zpool, r.zvol)
        device = self.directory / volume.uuid
        with device.open("wb") as file:
            file.truncate(r.size_bytes)
        iqn = target_iqn(source, self.epoch)
        target = Target(
            iqn=iqn,
            device=str(device),
            uuid=volume.uuid,
            size_bytes=r.size_bytes,
            initiator=r.initiator,
            user=target_account(iqn),
            secret="0123456789abcdef",
        )
        await self.exporter.export(target)
        self.imports[volume.uuid] = ((nas, r.zpool, r.zvol), volume)
        self.targets[volume.uuid] = target
        return m.ZvolImporting(
            uuid=volume.uuid,
            iqn=iqn,
            address=self.exporter.portal.address,
            port=self.exporter.portal.port,
            user=target.user,
            secret=target.secret,
            lease_s=self.lease_s,
        )

    async def _renew_import(self, nas: str, r: m.RenewImport) -> Reply:
        if r.uuid not in self.imports:
            raise NotFound("the import has ended: nobody renewed it in time, or it was begun anew")
        return m.ImportRenewed(lease_s=self.lease_s)

    async def _finish_import(self, nas: str, r: m.FinishImport) -> Reply:
        if r.uuid not in self.imports:
            raise NotFound("the import has ended: nobody renewed it in time, or it was begun anew")
        await self.exporter.unexport(self.targets[r.uuid].iqn)
        key, volume = self.imports.pop(r.uuid)
        self.volumes[key] = volume
        os.rename(self.directory / r.uuid, self.file("/".join(key)))
        return m.ImportFinished(uuid=volume.uuid, size_bytes=volume.size)

    async def _abort_import(self, nas: str, r: m.AbortImport) -> Reply:
        if self.imports.pop(r.uuid, None) is not None:
            await self.exporter.unexport(self.targets[r.uuid].iqn)
            (self.directory / r.uuid).unlink()
        return m.ImportAborted()

    def nothing_left(self) -> bool:
        """Whether no import, volume or file is left."""
        return not self.imports and not self.volumes and not [f for f in self.directory.iterdir() if f.is_file()]
