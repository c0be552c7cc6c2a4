"""One volume takes the place of another that is a VM's disk, which its host has had."""

from __future__ import annotations

import msgspec

from onelun.errors import Busy, Conflict
from onelun.model import Kind, Volume
from onelun.naming import is_snapshot_of_opennebula
from onelun.nas.attachments import Attachments
from onelun.nas.backends.base import Backend
from onelun.nas.catalogue import Catalogue
from onelun.nas.placements import Placements
from onelun.rpc.job import Job


class Replacing:
    """What replacing a volume means for hosts and placements. The caller holds the volume's lock."""

    def __init__(self, catalogue: Catalogue, attachments: Attachments, placements: Placements) -> None:
        self._catalogue = catalogue
        self._attachments = attachments
        self._placements = placements

    async def check(self, backend: Backend, volume: Volume, host: str | None) -> None:
        """Raise Conflict for a volume that another host has than `host`, and for one that OpenNebula would miss."""
        for row in self._catalogue.attachments(uuid=volume.uuid):
            if row.host != host:
                raise Conflict(f"volume {volume.name} is mapped to {row.host}: unmap it there before it is restored")
        if volume.owner.kind is Kind.IMAGE:
            kept = [one.name for one in await backend.snapshots(volume) if is_snapshot_of_opennebula(one.name)]
            if kept:
                raise Conflict(
                    f"{volume.name} is an image with snapshots ({', '.join(kept[:5])}), which would be gone with what is"
                    " replaced: delete them, or restore the backup as a new image"
                )

    async def leave(self, backend: Backend, uuid: str, job: Job) -> None:
        """Every host lets go of the volume, and keeps its links. Raises Busy while it is open, and what `detach` raises."""
        for row in self._catalogue.attachments(uuid=uuid):
            try:
                await self._attachments.detach(
                    backend, row, path=None, keep_link=True, force=False, deadline=job.deadline, of=job.id
                )
            except Busy as error:
                raise Busy(
                    f"{row.zvol} is in use on {row.host} ({error.sentence}): power its VM off first", host=row.host
                ) from error
            self._placements.leave_host(uuid, row.host, None)

    def succeed(self, uuid: str, volume: Volume) -> None:
        """`volume` stands where the one of that UUID stood, of the same name; on no host yet."""
        placed = self._catalogue.placements(uuid=uuid)
        self._catalogue.put(*(msgspec.structs.replace(one, uuid=volume.uuid, host=None) for one in placed))
