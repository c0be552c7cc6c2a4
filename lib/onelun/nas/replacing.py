"""One volume takes the place of another that is a VM's disk, which its host has had."""

from __future__ import annotations

import msgspec

from onelun.errors import Busy, Conflict, NotFound
from onelun.model import OF_A_VM, Kind, State, Volume
from onelun.naming import is_snapshot_of_opennebula
from onelun.nas.attachments import Attachments
from onelun.nas.backends.base import Backend
from onelun.nas.catalogue import AttachmentRow, Catalogue
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
                raise _mapped(volume, [row])
        await _must_be_missed_by_nobody(backend, volume)

    async def leave(self, backend: Backend, new: Volume, uuid: str, job: Job) -> Volume | None:
        """Every host lets go of the volume of that UUID, and keeps its links, so that `new` may take its place; the volume.

        Hours have passed since `check`. None: it is an image that is gone, which nobody misses. Raises NotFound for a VM's
        disk that is gone, with its VM; Conflict for what was mapped elsewhere meanwhile, or got snapshots; Busy while it is
        open; and what `detach` raises.
        """
        volume = await backend.find(new.name)
        if volume is None or volume.uuid != uuid or volume.state is not State.READY:
            if new.owner.kind in OF_A_VM:
                raise NotFound(f"volume {new.name} has just been removed", zvol=new.name)
            return None
        rows = self._catalogue.attachments(uuid=uuid)
        if len(rows) > 1:
            raise _mapped(volume, rows)
        await _must_be_missed_by_nobody(backend, volume)
        for row in rows:
            try:
                await self._attachments.detach(
                    backend, row, path=None, keep_link=True, force=False, deadline=job.deadline, of=job.id
                )
            except Busy as error:
                raise Busy(
                    f"{row.zvol} is in use on {row.host} ({error.sentence}): power its VM off first", host=row.host
                ) from error
            self._placements.leave_host(uuid, row.host, None)
        return volume

    def succeed(self, uuid: str, volume: Volume) -> None:
        """`volume` stands where the one of that UUID stood, of the same name; on no host yet."""
        placed = self._catalogue.placements(uuid=uuid)
        self._catalogue.put(*(msgspec.structs.replace(one, uuid=volume.uuid, host=None) for one in placed))


def _mapped(volume: Volume, rows: list[AttachmentRow]) -> Conflict:
    hosts = ", ".join(row.host for row in rows)
    return Conflict(f"volume {volume.name} is mapped to {hosts}: unmap it there before it is restored")


async def _must_be_missed_by_nobody(backend: Backend, volume: Volume) -> None:
    """Raise Conflict for an image whose snapshots OpenNebula would go on listing."""
    if volume.owner.kind is Kind.IMAGE:
        kept = [one.name for one in await backend.snapshots(volume) if is_snapshot_of_opennebula(one.name)]
        if kept:
            raise Conflict(
                f"{volume.name} is an image with snapshots ({', '.join(kept[:5])}), which would be gone with what is"
                " replaced: delete them, or restore the backup as a new image"
            )
