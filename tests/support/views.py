"""A small cloud whose three views agree, for tests that let one of them say something else."""

from __future__ import annotations

import msgspec

from onelun.driver.document import Vm, VmDisk
from onelun.driver.reconcile.views import Device, HostView, OnedView, View
from onelun.driver.registered import Registered
from onelun.model import Kind, Owner
from onelun.naming import Source, target_iqn
from onelun.rpc.message import StockAttachment, StockIs, StockPlacement, StockTarget, StockVolume

CLOUD = "4f2c1f0e-7a55-4c58-9b5c-0c7f3a6f1a01"
NOW = 1_800_000_000.0
LONG_AGO = NOW - 1_000_000
DONE, RUNNING, HOTPLUG, STOPPED = (6, 0), (3, 3), (3, 17), (4, 0)


def vm_disk(number: int, source: str = "nas1/tank/one-1", *, clone: bool | None = True) -> VmDisk:
    return VmDisk(number, "" if clone is None else source, clone, False, 1, 1, tm_mad="onelun")


class Cloud:
    """VM 7 runs on host01 with disk 0 (a clone of image 1), disk 1 (image 2 itself) and disk 2 (volatile)."""

    def __init__(self) -> None:
        self.images: dict[int, Registered | None] = {n: Registered(n, 1, f"nas1/tank/one-{n}", 100 + n) for n in (1, 2)}
        self.vms: dict[int, Vm | None] = {}
        self.vm(7, disks=[vm_disk(0), vm_disk(1, "nas1/tank/one-2", clone=False), vm_disk(2, clone=None)])
        self.volumes: dict[str, StockVolume] = {}
        self.attachments: dict[tuple[str, str], StockAttachment] = {}
        self.placements: dict[tuple[int, int], StockPlacement] = {}
        self.targets: dict[str, StockTarget] = {}
        self.devices: dict[str, dict[str, Device]] = {"node1": {}, "node2": {}}
        self.links: dict[str, dict[str, str | None]] = {"node1": {}, "node2": {}}
        self.away: dict[str, str] = {}
        self.failed: dict[str, str] = {}
        self.cautious = False
        self.grace_s = 3600.0
        for number in (1, 2):
            self.volume(f"one-{number}", Owner(Kind.IMAGE, CLOUD, image_id=number, regtime=100 + number))
        self.volume("one-1-7-0", Owner(Kind.DISK, CLOUD, image_id=1, vm_id=7, disk_id=0))
        self.volume("one-vm-7-2", Owner(Kind.VOLATILE, CLOUD, vm_id=7, disk_id=2))
        for disk, name in enumerate(("one-1-7-0", "one-2", "one-vm-7-2")):
            self.attach(name, "node1", 7, disk)

    def vm(
        self, number: int, state: tuple[int, int] = RUNNING, host: str = "host01", disks: list[VmDisk] | None = None
    ) -> None:
        before = self.vms.get(number)
        kept = before.disks if before is not None else {}
        told = kept if disks is None else {disk.id: disk for disk in disks}
        etime = int(LONG_AGO) if state == DONE else 0
        self.vms[number] = Vm(number, *state, host, "", told, {}, stime=int(LONG_AGO) - 10, etime=etime)

    def volume(self, name: str, owner: Owner, **changes: object) -> StockVolume:
        facts = {"state": "ready", "made_at": LONG_AGO, "snapshots": (), **changes}
        self.volumes[name] = StockVolume(zvol=name, zpool="tank", uuid=f"uuid-of-{name}", owner=owner, **facts)  # type: ignore[arg-type]
        return self.volumes[name]

    def attach(self, name: str, host: str, vm: int, disk: int, epoch: int = 1) -> str:
        """The volume is on that host in every view, and the VM is placed there."""
        iqn = target_iqn(Source("nas1", "tank", name), epoch)
        uuid, path = f"uuid-of-{name}", f"/ds/103/{vm}/disk.{disk}"
        self.attachments[name, host] = StockAttachment(
            zvol=name, zpool="tank", uuid=uuid, remotehost=host, iscsi_target=iqn, state="attached", cloud=CLOUD
        )
        self.placements[vm, disk] = StockPlacement(
            vm=vm, disk=disk, path=path, zvol=name, zpool="tank", uuid=uuid, host=host
        )
        self.targets[iqn] = StockTarget(iscsi_target=iqn, sessions=(f"iqn.2026-11.io.onelun.host:{host}",))
        self.devices[host][iqn] = Device(iqn, "nas1", alive=True)
        self.links[host][path] = f"/dev/onelun/nas1/tank/{name}"
        return iqn

    def forget(self, name: str) -> None:
        """Nobody has the volume any more, but for its pool."""
        for key in [key for key in self.attachments if key[0] == name]:
            row = self.attachments.pop(key)
            self.targets.pop(row.iscsi_target, None)
            self.devices[row.remotehost].pop(row.iscsi_target, None)
        self.placements = {key: p for key, p in self.placements.items() if p.zvol != name}

    def change(self, name: str, host: str = "node1", **changes: object) -> None:
        row = self.attachments[name, host]
        self.attachments[name, host] = msgspec.structs.replace(row, **changes)

    def view(self) -> View:
        stock = StockIs(
            volumes=tuple(self.volumes.values()),
            attachments=tuple(self.attachments.values()),
            placements=tuple(self.placements.values()),
            targets=tuple(self.targets.values()),
            failed=self.failed,
            cautious=self.cautious,
        )
        hosts = {n: HostView(tuple(self.devices[n].values()), dict(self.links[n])) for n in self.devices}
        return View(
            cloud=CLOUD,
            now=NOW,
            grace_s=self.grace_s,
            oned=OnedView(dict(self.images), dict(self.vms)),
            stocks={"nas1": self.away.get("nas1", stock)},
            hosts={name: self.away.get(name, host) for name, host in hosts.items()},
            agents={"host01": "node1", "host02": "node2"},
        )
