"""Destroying a volume, or leaving it to the trash where its blocks are to be wiped first: that may take hours."""

from __future__ import annotations

from onelun.model import Volume
from onelun.nas.backends.base import Backend


async def destroy(backend: Backend, volume: Volume) -> None:
    """Take the volume away for good: now, or with the next purge when it is wiped. Absent: nothing. Raises Busy."""
    if volume.attributes.wiped:
        await backend.trash(volume)
    else:
        await backend.destroy(volume)
