"""The pools of a datastore, and the choice of one for a new image."""

from __future__ import annotations

from onelun.driver.document import Datastore
from onelun.driver.running import Run
from onelun.errors import NoReply, OutOfSpace, Rejected, Unreachable
from onelun.naming import Source, checked_name
from onelun.rpc.message import ListZvols, PoolCapacity, PoolCapacityIs, ZvolList

GIB = 1 << 30

Pool = tuple[str, str]
"""A NAS and one of its pools."""


def pools_of(datastore: Datastore) -> list[Pool]:
    """The pools that ONELUN_POOLS names, in order. Raises Rejected, saying what to set, when it names none."""
    words = datastore.pools.replace(",", " ").split()
    if not words:
        raise Rejected(
            f'datastore {datastore.name} does not say where it lives: set ONELUN_POOLS="NAS/POOL …" in it (onedatastore update)'
        )
    pools: list[Pool] = []
    for word in words:
        nas, slash, pool = word.partition("/")
        if not slash:
            raise Rejected(f"ONELUN_POOLS of datastore {datastore.name} has {word[:80]!r}: it should be NAS/POOL")
        found = checked_name(nas, "name of a NAS"), checked_name(pool, "name of a pool")
        if found not in pools:
            pools.append(found)
    return pools


def contains(pools: list[Pool], source: Source) -> bool:
    """Whether `source` is in one of the pools."""
    return (source.nas, source.pool) in pools


async def choose(run: Run, pools: list[Pool], size_bytes: int, volume: str) -> Pool:
    """The first pool that can be asked and has room.

    An action that is begun again stays with the pool in which it made the volume before. Raises OutOfSpace when every
    pool answered and none has room, else the reason why one could not be asked.
    """
    if run.call.attempt > 0:
        for nas, pool in pools:
            listed = await run.ask(nas, ListZvols(name=volume, zpool=pool), ZvolList)
            if listed.body:
                return nas, pool
    unasked: Unreachable | NoReply | None = None
    rooms = []
    for nas, pool in pools:
        try:
            capacity = await run.ask(nas, PoolCapacity(zpool=pool), PoolCapacityIs)
        except (Unreachable, NoReply) as error:
            unasked = error
            run.note(f"passing over {nas}/{pool}: {error.sentence}")
            continue
        if capacity.free_bytes >= size_bytes:
            return nas, pool
        rooms.append(f"{nas}/{pool} has {capacity.free_bytes / GIB:.1f} GiB free")
    if unasked is not None:
        raise unasked
    raise OutOfSpace(f"{size_bytes / GIB:.1f} GiB are needed: {', '.join(rooms)}", needed=size_bytes)
