"""Which volume stands behind a VM's disk."""

from __future__ import annotations

import msgspec

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
