"""Which volume stands behind a VM's disk."""

from __future__ import annotations

import msgspec

from onelun.errors import Conflict
from onelun.model import Volume
from onelun.nas.catalogue import Catalogue, Placement


class Placements:
    """Which volume stands behind a VM's disk; they outlive attachments."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    def put(self, volume: Volume, *, cloud: str, vm: int, disk: int, path: str, host: str | None) -> None:
        """Write that the VM's disk is this volume, at `path` on `host`."""
        self._catalogue.put(
            Placement(
                cloud=cloud,
                vm=vm,
                disk=disk,
                path=path,
                pool=volume.pool,
                zvol=volume.name,
                uuid=volume.uuid,
                host=host,
            )
        )

    def must_not_be_moving(self, volume: Volume, disk: tuple[str, int, int], host: str) -> None:
        """Raise Conflict when `host` has the volume for a VM that moves to or from it, and `disk` (cloud, VM, disk) is another's.

        OpenNebula may have given the image back although the migration, and perhaps the VM, never ended.
        """
        writers = [row.host for row in self._catalogue.attachments(uuid=volume.uuid) if not row.readonly]
        others = [writer for writer in writers if writer != host]
        if not others or host not in writers:
            return
        for one in self._catalogue.placements(uuid=volume.uuid):
            if (one.cloud, one.vm, one.disk) != disk:
                raise Conflict(
                    f"volume {volume.name} is mapped to {others[0]} too, as disk {one.disk} of VM {one.vm}, whose migration"
                    " never ended: end it (onelun reconcile --apply) before another VM has the volume"
                )

    def move(self, placed: list[Placement], host: str) -> None:
        """Those disks are on that host now."""
        self._catalogue.put(*(msgspec.structs.replace(p, host=host) for p in placed))

    def leave_host(self, uuid: str, host: str, path: str | None) -> None:
        """The disk at `path` is on no host now, but is still the VM's."""
        gone = [p for p in self._catalogue.placements(uuid=uuid, host=host) if path in (None, p.path)]
        self._catalogue.put(*(msgspec.structs.replace(p, host=None) for p in gone))

    def end(self, uuid: str, path: str | None) -> None:
        """The VM has that disk no more."""
        self._catalogue.drop(*(p for p in self._catalogue.placements(uuid=uuid) if path in (None, p.path)))

    def end_absent(self, pool: str, zvol: str, cloud: str, vm: int, disk: int) -> None:
        """The VM has that disk no more, whose volume is gone."""
        self._catalogue.drop(*self._catalogue.placements(pool=pool, zvol=zvol, cloud=cloud, vm=vm, disk=disk))
