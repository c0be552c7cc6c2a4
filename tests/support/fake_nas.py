"""NAS agents and hosts in memory, for tests of what oned meets: they keep volumes, placements and directories.

It is an Asker, and keeps the rules that actions rely on (owners, placements that outlive attachments, repeats). What it was
asked is in `asked`; `fail` makes a node raise.
"""

from __future__ import annotations

import asyncio
import uuid as uuids
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from onelun.deadline import Deadline
from onelun.errors import Conflict, InMaintenance, NotFound, OnelunError, Rejected, Unreachable
from onelun.model import Kind, Owner
from onelun.rpc import message as m
from onelun.rpc.schema import Reply, Request

GIB = 1 << 30


@dataclass
class Volume:
    size: int
    owner: Owner
    uuid: str = field(default_factory=lambda: str(uuids.uuid4()))
    hosts: dict[str, str] = field(default_factory=dict)  # host → path of disk.N
    readonly: bool = False
    origin: str | None = None
    filesystem: str | None = None
    filled_from: tuple[int, int] | None = None
    content: str = ""
    checkpoint: bytes = b""
    snapshots: dict[str, str] = field(default_factory=dict)  # name → content
    made: dict[str, float] = field(default_factory=dict)  # snapshot → when


@dataclass
class Placement:
    source: tuple[str, str, str]
    path: str
    host: str | None


class Cloud:
    """Some NAS agents with their pools, and some hosts with their directories."""

    def __init__(self, pools: dict[str, dict[str, int]], hosts: tuple[str, ...] = ("node1", "node2")) -> None:
        self.free = {(nas, pool): free for nas, named in pools.items() for pool, free in named.items()}
        self.volumes: dict[tuple[str, str, str], Volume] = {}
        self.placements: dict[tuple[int, int], Placement] = {}
        self.directories: dict[str, dict[str, dict[str, m.Entry]]] = {host: {} for host in hosts}
        self.contents: dict[tuple[str, str, str], bytes] = {}
        self.imports: dict[str, tuple[tuple[str, str, str], Volume]] = {}
        self.asked: list[tuple[str, Request, str | None]] = []
        self.failures: list[tuple[str, type[Request], OnelunError]] = []
        self.dead: set[str] = set()
        self.hang: asyncio.Event | None = None
        self.hanging: type[Request] = Request
        self.cancelled: list[str] = []
        self.frozen: dict[str, str | None] = {}  # guest → why it cannot be frozen
        self.silent_pools: dict[str, dict[str, str]] = {}  # NAS → pool → why it does not tell
        self.maintenance: dict[tuple[str, str], str] = {}  # (NAS, pool) → the sentence that says so
        self.portal = ("127.0.0.1", 1)
        self.now = 1000.0
        self.changes: list[tuple[int, int, bool]] = [(0, 4096, True), (65536, 4096, False)]
        self.read: dict[str, str] = {}  # UUID of what is offered to be read → its content
        self.files: dict[tuple[str, str], str] = {}  # host and path of a backup's file → its content

    def fail(self, node: str, kind: type[Request], *errors: OnelunError) -> None:
        """The next requests of that kind at the node raise these, one each."""
        self.failures += [(node, kind, error) for error in errors]

    def requests(self, kind: type[Request]) -> list[Any]:
        return [request for _, request, _ in self.asked if isinstance(request, kind)]

    def volume(self, source: str) -> Volume | None:
        nas, pool, name = source.split("/")
        return self.volumes.get((nas, pool, name))

    def names(self) -> list[str]:
        return sorted("/".join(key) for key in self.volumes)

    def link(self, host: str, path: str) -> str | None:
        directory, _, name = path.rpartition("/")
        entry = self.directories[host].get(directory, {}).get(name)
        return entry.target if entry else None

    async def ask(
        self,
        node: str,
        request: Request,
        *,
        deadline: Deadline,
        id: str | None = None,
        on_progress: Callable[[str], None] | None = None,
    ) -> Reply:
        self.asked.append((node, request, id))
        known = {nas for nas, _ in self.free} | set(self.directories)
        if node not in known or node in self.dead:
            raise Unreachable(f"nobody serves {node}")
        for failure in self.failures:
            if failure[0] == node and isinstance(request, failure[1]):
                self.failures.remove(failure)
                raise failure[2]
        if self.hang is not None and isinstance(request, self.hanging):
            try:
                async with asyncio.timeout(30):
                    await self.hang.wait()
            except asyncio.CancelledError:
                self.cancelled.append(m.name_of(type(request)))
                raise
        handler: Callable[[str, Any], Reply] = getattr(self, m.name_of(type(request)))
        return handler(node, request)

    def _pool(self, nas: str, pool: str | None) -> str:
        if pool is None or (nas, pool) not in self.free:
            raise NotFound(f"{nas} has no pool {pool}")
        return pool

    def _admits(self, nas: str, pool: str) -> None:
        if (nas, pool) in self.maintenance:
            raise InMaintenance(self.maintenance[nas, pool])

    def create_zvol(self, nas: str, r: m.CreateZvol) -> Reply:
        key = (nas, self._pool(nas, r.zpool), r.zvol)
        found = self.volumes.get(key)
        if found is not None and r.owner.kind is Kind.CHECKPOINT and found.owner == r.owner:
            found = self.volumes.pop(key) and None
        if found is not None and (found.size, found.owner) != (r.size_bytes, r.owner):
            raise Conflict(f"{r.zvol} exists in pool {r.zpool} already")
        if found is None:
            self._admits(nas, r.zpool)
        volume = self.volumes.setdefault(key, Volume(r.size_bytes, r.owner, filesystem=r.filesystem))
        return m.ZvolCreated(uuid=volume.uuid, size_bytes=volume.size)

    def clone_zvol(self, nas: str, r: m.CloneZvol) -> Reply:
        key = (nas, self._pool(nas, r.zpool), r.zvol)
        origin = self.volumes.get((nas, r.zpool, r.origin))
        if origin is None:
            raise NotFound(f"there is no volume {r.origin} in pool {r.zpool} to clone")
        found = self.volumes.get(key)
        if found is not None and found.owner != r.owner:
            raise Conflict(f"{r.zvol} exists in pool {r.zpool} already")
        if found is None:
            self._admits(nas, r.zpool)
        size = max(origin.size, r.size_bytes or 0)
        volume = self.volumes.setdefault(key, Volume(size, r.owner, origin=r.origin))
        return m.ZvolCloned(uuid=volume.uuid, size_bytes=volume.size)

    def resize_zvol(self, nas: str, r: m.ResizeZvol) -> Reply:
        volume = self.volumes.get((nas, self._pool(nas, r.zpool), r.zvol))
        if volume is None:
            raise NotFound(f"there is no volume {r.zvol} in pool {r.zpool}")
        if r.size_bytes < volume.size:
            raise Rejected(f"{r.zvol} has {volume.size} bytes; it cannot be shrunk to {r.size_bytes}")
        volume.size = r.size_bytes
        return m.ZvolResized(uuid=volume.uuid, size_bytes=volume.size)

    def del_zvol(self, nas: str, r: m.DelZvol) -> Reply:
        key = (nas, self._pool(nas, r.zpool), r.zvol)
        found = self.volumes.get(key)
        if found is not None:
            if found.owner != r.owner:
                raise Conflict(f"{r.zvol} belongs to somebody else")
            if found.hosts:
                raise Conflict(f"volume {r.zvol} is mapped to {', '.join(found.hosts)}: unmap it first")
            del self.volumes[key]
        return m.ZvolDeleted()

    def list_zvols(self, nas: str, r: m.ListZvols) -> Reply:
        body = [
            {"zvol": key[2], "zpool": key[1], "uuid": v.uuid, "size_bytes": v.size, "kind": str(v.owner.kind)}
            for key, v in sorted(self.volumes.items())
            if key[0] == nas and r.name in ("", key[2]) and r.zpool in (None, key[1])
        ]
        return m.ZvolList(body=body)

    def list_dev(self, node: str, request: m.ListDev) -> Reply:
        return m.DevList(body=[])

    def pool_capacity(self, nas: str, r: m.PoolCapacity) -> Reply:
        pool = self._pool(nas, r.zpool)
        used = sum(v.size for key, v in self.volumes.items() if key[:2] == (nas, pool))
        maintenance = self.maintenance.get((nas, pool))
        free = self.free[nas, pool] - used if maintenance is None else 0
        total = self.free[nas, pool]
        return m.PoolCapacityIs(total_bytes=total, used_bytes=used, free_bytes=max(0, free), maintenance=maintenance)

    def list_disks(self, nas: str, r: m.ListDisks) -> Reply:
        body = [
            {
                "vm": vm,
                "disk": disk,
                "path": p.path,
                "zpool": p.source[1],
                "zvol": p.source[2],
                "used_bytes": self.volumes[p.source].size,
                "snapshots": dict.fromkeys(self.volumes[p.source].snapshots, 1 << 20),
            }
            for (vm, disk), p in self.placements.items()
            if p.source[0] == nas and p.source in self.volumes
        ]
        return m.DiskList(body=body, failed=self.silent_pools.get(nas, {}))

    def find_placements(self, nas: str, r: m.FindPlacements) -> Reply:
        body = [
            {
                "vm": vm,
                "disk": disk,
                "path": p.path,
                "host": p.host,
                "zpool": p.source[1],
                "zvol": p.source[2],
                "kind": str(self.volumes[p.source].owner.kind) if p.source in self.volumes else None,
            }
            for (vm, disk), p in self.placements.items()
            if p.source[0] == nas and r.vm in (None, vm) and r.disk in (None, disk)
        ]
        if not body and None not in (r.vm, r.disk):
            # What says of itself that it is that disk.
            body = [
                {"vm": r.vm, "disk": r.disk, "zpool": key[1], "zvol": key[2], "kind": str(v.owner.kind)}
                for key, v in self.volumes.items()
                if key[0] == nas and (v.owner.vm_id, v.owner.disk_id) == (r.vm, r.disk)
            ]
        return m.PlacementList(body=body)

    def map_zvol(self, nas: str, r: m.MapZvol) -> Reply:
        key = (nas, self._pool(nas, r.zpool), r.zvol)
        volume = self.volumes.get(key)
        if volume is None:
            raise NotFound(f"there is no volume {r.zvol} in pool {r.zpool}")
        if r.remotehost not in self.directories or r.remotehost in self.dead:
            raise Unreachable(f"nobody serves {r.remotehost}")
        others = [host for host in volume.hosts if host not in (r.remotehost, r.beside)]
        if others and not r.shareable and not (r.readonly and volume.readonly):
            raise Conflict(f"volume {r.zvol} is mapped to {others[0]}: unmap it there first")
        device = f"/dev/onelun/{nas}/{r.zpool}/{r.zvol}"
        volume.readonly = r.readonly
        if volume.owner.kind is Kind.CHECKPOINT:
            assert (r.path, r.vm, r.disk) == (None, None, None)
            volume.hosts[r.remotehost] = ""
            return m.ZvolMapped(bdev="/dev/loop0", device=device, uuid=volume.uuid, size_bytes=volume.size, epoch=1)
        assert None not in (r.path, r.vm, r.disk)
        volume.hosts[r.remotehost] = r.path
        directory, _, name = r.path.rpartition("/")
        self.directories[r.remotehost].setdefault(directory, {})[name] = m.Entry(name=name, kind="link", target=device)
        self.placements[r.vm, r.disk] = Placement(key, r.path, r.remotehost)
        return m.ZvolMapped(bdev="/dev/loop0", device=device, uuid=volume.uuid, size_bytes=volume.size, epoch=1)

    def unmap_zvol(self, nas: str, r: m.UnmapZvol) -> Reply:
        volume = self.volumes.get((nas, self._pool(nas, r.zpool), r.zvol))
        if volume is None:
            return m.ZvolUnmapped(absent=True)
        absent = r.remotehost not in volume.hosts
        debt = self._detach(volume, r.remotehost, r.path, keep_link=r.keep_link, force=r.force)
        for key, placement in list(self.placements.items()):
            if placement.path == r.path and placement.source[2] == r.zvol:
                if r.stays is not None:
                    placement.host = r.stays
                elif r.keep_link:
                    placement.host = None
                else:
                    del self.placements[key]
        return m.ZvolUnmapped(debt=debt, absent=absent)

    def _detach(self, volume: Volume, host: str | None, path: str | None, *, keep_link: bool, force: bool) -> bool:
        debt = False
        for mapped in [h for h in volume.hosts if host in (None, h)]:
            if mapped in self.dead:
                if not force:
                    raise Unreachable(f"{mapped} did not confirm that it let go")
                debt = True
            elif not keep_link and path is not None:
                directory, _, name = path.rpartition("/")
                self.directories[mapped].get(directory, {}).pop(name, None)
            del volume.hosts[mapped]
        return debt

    def remove_disk(self, nas: str, r: m.RemoveDisk) -> Reply:
        key = (nas, self._pool(nas, r.zpool), r.zvol)
        volume = self.volumes.get(key)
        if volume is None:
            return m.DiskRemoved(destroyed=False)
        own = (volume.owner.vm_id, volume.owner.disk_id) == (r.vm, r.disk)
        if not own and volume.owner.kind is not Kind.IMAGE:
            raise Conflict(f"{r.zvol} is not disk {r.disk} of VM {r.vm}")
        debt = self._detach(volume, None if own else r.remotehost, r.path, keep_link=False, force=r.force)
        self.placements.pop((r.vm, r.disk), None)
        if own:
            del self.volumes[key]
        return m.DiskRemoved(destroyed=own, debt=debt)

    def save_zvol(self, nas: str, r: m.SaveZvol) -> Reply:
        target = self.volumes.get((nas, r.zpool, r.target))
        disk = self.volumes.pop((nas, r.zpool, r.zvol), None)
        if target is None:
            raise NotFound(f"there is no image {r.target}")
        if disk is None and target.filled_from != (r.vm, r.disk):
            raise NotFound(f"there is no volume {r.zvol}")
        if disk is not None:
            self._detach(disk, None, r.path, keep_link=False, force=False)
        target.filled_from = (r.vm, r.disk)
        self.placements.pop((r.vm, r.disk), None)
        return m.ZvolSaved(uuid=target.uuid)

    def _of(self, nas: str, r: m.OfVolume) -> Volume:
        volume = self.volumes.get((nas, self._pool(nas, r.zpool), r.zvol))
        if volume is None:
            raise NotFound(f"there is no volume {r.zvol} in pool {r.zpool}")
        cloud = r.cloud if r.owner is None else r.owner.cloud
        if volume.owner.cloud != cloud or r.owner not in (None, volume.owner):
            raise Conflict(f"{r.zvol} is another's")
        return volume

    def _snapshot(self, nas: str, r: m.RevertZvol | m.FlattenZvol) -> tuple[Volume, str]:
        volume = self._of(nas, r)
        if r.snapshot not in volume.snapshots:
            raise NotFound(f"{r.zvol} in pool {r.zpool} has no snapshot {r.snapshot}")
        return volume, volume.snapshots[r.snapshot]

    def snapshot_zvol(self, nas: str, r: m.SnapshotZvol) -> Reply:
        volume = self._of(nas, r)
        if r.snapshot not in volume.snapshots:
            self.now += 1
            volume.snapshots[r.snapshot], volume.made[r.snapshot] = volume.content, self.now
        made_at = volume.made.get(r.snapshot, 0.0)
        return m.ZvolSnapshotted(uuid=volume.uuid, made_at=made_at, size_bytes=volume.size)

    def list_snapshots(self, nas: str, r: m.ListSnapshots) -> Reply:
        volume = self._of(nas, r)
        body = [{"snapshot": name, "made_at": volume.made.get(name, 0.0)} for name in volume.snapshots]
        return m.SnapshotList(uuid=volume.uuid, body=body)

    def list_changes(self, nas: str, r: m.ListChanges) -> Reply:
        volume = self._of(nas, r)
        assert {r.since, r.until} <= volume.snapshots.keys()
        return m.ChangeList(uuid=volume.uuid, size_bytes=volume.size, body=self.changes)

    def read_zvol(self, nas: str, r: m.ReadZvol) -> Reply:
        volume = self.volumes[nas, self._pool(nas, r.zpool), r.zvol]
        if r.snapshot is not None and r.snapshot not in volume.snapshots:
            raise NotFound(f"{r.zvol} in pool {r.zpool} has no snapshot {r.snapshot}")
        uuid = str(uuids.uuid4())
        self.read[uuid] = volume.content if r.snapshot is None else volume.snapshots[r.snapshot]
        address, port = self.portal
        return m.ZvolReadable(
            uuid=uuid,
            size_bytes=volume.size,
            iqn=f"iqn.2026-11.io.onelun.{nas}:{r.zpool}.read-{uuid}.e1",
            address=address,
            port=port,
            user="e1",
            secret="secret-of-twelve",
            lease_s=1.0,
        )

    def hello(self, node: str, r: m.Hello) -> Reply:
        initiator = f"iqn.2026-11.io.onelun.host:{node}" if node in self.directories else None
        role = "compute" if initiator else "nas"
        return m.HelloIs(node=node, role=role, instance="1", version="0", initiator=initiator)

    def write_backup(self, host: str, r: m.WriteBackup) -> Reply:
        uuid = r.target.partition("read-")[2].removesuffix(".e1")
        self.files[host, f"{r.path}/{r.name}"] = self.read[uuid]
        return m.BackupWritten(size_bytes=len(self.read[uuid]))

    def revert_zvol(self, nas: str, r: m.RevertZvol) -> Reply:
        volume, content = self._snapshot(nas, r)
        if others := [host for host in volume.hosts if host != r.remotehost]:
            raise Conflict(f"volume {r.zvol} is mapped to {others[0]}: unmap it there before it is reverted")
        volume.content = content
        return m.ZvolReverted(uuid=volume.uuid, size_bytes=volume.size)

    def flatten_zvol(self, nas: str, r: m.FlattenZvol) -> Reply:
        volume = self._of(nas, r)
        if volume.content != f"flattened {r.snapshot}":
            self._snapshot(nas, r)
        volume.content, volume.snapshots = f"flattened {r.snapshot}", {}
        return m.ZvolFlattened(uuid=volume.uuid, size_bytes=volume.size)

    def del_snapshot(self, nas: str, r: m.DelSnapshot) -> Reply:
        if (nas, self._pool(nas, r.zpool), r.zvol) in self.volumes:
            volume = self._of(nas, r)
            volume.snapshots.pop(r.snapshot, None)
            volume.made.pop(r.snapshot, None)
        return m.SnapshotDeleted()

    def copy_zvol(self, nas: str, r: m.CopyZvol) -> Reply:
        disk = self._of(nas, r)
        target = self.volumes.get((nas, self._pool(nas, r.zpool), r.target))
        if target is None:
            raise NotFound(f"there is no image {r.target} in pool {r.zpool} to save to")
        if r.snapshot is not None and r.snapshot not in disk.snapshots:
            raise NotFound(f"{r.zvol} in pool {r.zpool} has no snapshot {r.snapshot}")
        target.content = disk.content if r.snapshot is None else disk.snapshots[r.snapshot]
        return m.ZvolCopied(uuid=target.uuid, size_bytes=target.size)

    def import_zvol(self, nas: str, r: m.ImportZvol) -> Reply:
        self._admits(nas, r.zpool)
        volume = Volume(r.size_bytes, r.owner)
        self.imports[volume.uuid] = ((nas, self._pool(nas, r.zpool), r.zvol), volume)
        address, port = self.portal
        return m.ZvolImporting(
            uuid=volume.uuid,
            iqn=f"iqn.2026-11.io.onelun.{nas}:{r.zpool}.{r.zvol}.e1",
            address=address,
            port=port,
            user="e1",
            secret="secret-of-twelve",
            lease_s=1.0,
        )

    def restore_zvol(self, nas: str, r: m.RestoreZvol) -> Reply:
        disk = self._of(nas, r)
        if others := [host for host in disk.hosts if host != r.remotehost]:
            raise Conflict(f"volume {r.zvol} is mapped to {others[0]}: unmap it there before it is restored")
        size = max(r.size_bytes, disk.size)
        request = m.ImportZvol(
            zvol=r.zvol, zpool=r.zpool or "", size_bytes=size, owner=disk.owner, initiator=r.initiator
        )
        return self.import_zvol(nas, request)

    def renew_import(self, nas: str, r: m.RenewImport) -> Reply:
        if r.uuid not in self.imports and r.uuid not in self.read:
            raise NotFound("the import has ended")
        return m.ImportRenewed(lease_s=1.0)

    def finish_import(self, nas: str, r: m.FinishImport) -> Reply:
        key, volume = self.imports.pop(r.uuid)
        self.volumes[key] = volume
        return m.ImportFinished(uuid=volume.uuid, size_bytes=volume.size)

    def abort_import(self, nas: str, r: m.AbortImport) -> Reply:
        self.imports.pop(r.uuid, None)
        self.read.pop(r.uuid, None)
        return m.ImportAborted()

    def freeze_guest(self, host: str, r: m.FreezeGuest) -> Reply:
        return m.GuestFrozen(missing=self.frozen.get(r.domain, "there is no virsh on its host"))

    def thaw_guest(self, host: str, r: m.ThawGuest) -> Reply:
        return m.GuestThawed(held=self.frozen.get(r.domain, "") is None)

    def list_dir(self, host: str, r: m.ListDir) -> Reply:
        entries = self.directories[host].get(r.path)
        return m.DirList(exists=entries is not None, entries=tuple((entries or {}).values()))

    def read_file(self, host: str, r: m.ReadFile) -> Reply:
        if r.name not in self.directories[host].get(r.path, {}):
            raise NotFound(f"{r.path}/{r.name} does not exist")
        data = self.contents.get((host, r.path, r.name), b"")
        return m.FileRead(data=data[r.offset : r.offset + (1 << 20)])

    def put_entry(self, host: str, r: m.PutEntry) -> Reply:
        directory = self.directories[host].setdefault(r.path, {})
        key = (host, r.path, r.entry.name)
        if r.entry.kind == "file":
            before = self.contents.get(key, b"") if r.offset else b""
            assert len(before) == r.offset
            self.contents[key] = before + r.data
        directory[r.entry.name] = r.entry
        return m.EntryPut()

    def remove_entry(self, host: str, r: m.RemoveEntry) -> Reply:
        if r.name is None:
            self.directories[host].pop(r.path, None)
        else:
            inside = self.directories[host].get(r.path, {})
            for name in [name for name in inside if name == r.name or name.startswith(f"{r.name}/")]:
                del inside[name]
        gone = r.path if r.name is None else f"{r.path}/{r.name}"
        for key in [key for key in self.files if key[0] == host and f"{key[1]}/".startswith(f"{gone}/")]:
            del self.files[key]
        return m.EntryRemoved()

    def _connected(self, host: str, r: m.StoreFile | m.FetchFile) -> Volume:
        volume = self.volumes.get((r.nas, r.zpool, r.zvol))
        if volume is None or host not in volume.hosts or volume.uuid != r.uuid:
            raise Conflict(f"{r.zvol} is not connected here")
        return volume

    def store_file(self, host: str, r: m.StoreFile) -> Reply:
        data = self.contents[host, r.path, r.name]
        volume = self._connected(host, r)
        assert len(data) == r.size_bytes <= volume.size
        volume.checkpoint = data + bytes(volume.size - len(data))
        return m.FileStored()

    def fetch_file(self, host: str, r: m.FetchFile) -> Reply:
        data = self._connected(host, r).checkpoint[: r.size_bytes]
        self.contents[host, r.path, r.name] = data
        entry = m.Entry(name=r.name, kind="file", mode=r.mode, size=len(data))
        self.directories[host].setdefault(r.path, {})[r.name] = entry
        return m.FileFetched()
