"""The pools of a datastore, and the choice of one for a new image."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from onelun.config import Frontend
from onelun.driver.attributes import POOLS, of_datastore
from onelun.driver.document import Datastore, Image
from onelun.driver.running import Run
from onelun.errors import Cancelled, InMaintenance, OnelunError, OutOfSpace, Rejected
from onelun.model import Attributes
from onelun.naming import Source, checked_name
from onelun.rpc.message import ListZvols, PoolCapacity, PoolCapacityIs, ZvolList

log = logging.getLogger(__name__)

GIB = 1 << 30

Pool = tuple[str, str]
"""A NAS and one of its pools."""


def pools_of(datastore: Datastore) -> list[Pool]:
    """The pools that ONELUN_POOLS names, in order. Raises Rejected, saying what to set, when it names none."""
    return pools_named(datastore.pools, f"datastore {datastore.name}")


def pools_for(image: Image, datastore: Datastore) -> list[Pool]:
    """The pools in which a new image may live: those that it names itself, of its datastore's. Raises Rejected, as above."""
    pools = pools_of(datastore)
    own = image.attributes.get(POOLS)
    if own is None:
        return pools
    chosen = pools_named(own, f"image {image.id}")
    for nas, pool in chosen:
        if (nas, pool) not in pools:
            raise Rejected(
                f"{POOLS} of image {image.id} has {nas}/{pool}, which its datastore {datastore.name} does not have"
            )
    return chosen


def pools_named(text: str, of: str) -> list[Pool]:
    """The pools that `text`, the ONELUN_POOLS of that datastore or image, names. Raises Rejected as above."""
    words = text.replace(",", " ").split()
    if not words:
        raise Rejected(f'{of} does not say where it lives: set ONELUN_POOLS="NAS/POOL …" in it (onedatastore update)')
    return named_pools(words, f"{POOLS} of {of}")


def system_pools(run: Run, datastore: Datastore | None, which: str) -> list[Pool]:
    """The pools of a system datastore, or else those of the configuration. Raises Rejected, saying what to set."""
    name = datastore.name if datastore is not None and datastore.pools.strip() else which
    return pools_of_system(datastore.pools if datastore is not None else "", name, run.config)


def pools_of_system(text: str, datastore: str, config: Frontend) -> list[Pool]:
    """The pools that `text`, the ONELUN_POOLS of that system datastore, names, or else those of the configuration.

    Raises Rejected, saying what to set.
    """
    if text.strip():
        return pools_named(text, f"datastore {datastore}")
    if not config.pools:
        raise Rejected(
            f"system datastore {datastore} does not say where volatile disks and checkpoints live:"
            ' set ONELUN_POOLS="NAS/POOL …" in it (onedatastore update), or frontend.pools'
        )
    return named_pools(config.pools, "frontend.pools")


async def own_system_pools(run: Run) -> list[Pool]:
    """The pools of the system datastore that the call names. Raises as system_pools."""
    return _of_call(run, await _own_system(run))


async def own_system(run: Run) -> tuple[list[Pool], Attributes]:
    """The pools of the system datastore that the call names, and what it asks of what is made there. Raises as system_pools."""
    datastore = await _own_system(run)
    return _of_call(run, datastore), of_datastore(datastore) if datastore is not None else Attributes()


async def _own_system(run: Run) -> Datastore | None:
    number = run.arguments.datastore_id
    return await run.api.datastore(number) if run.api is not None and number is not None else None


def _of_call(run: Run, datastore: Datastore | None) -> list[Pool]:
    number = run.arguments.datastore_id
    return system_pools(run, datastore, str(number) if number is not None else "of this VM")


def named_pools(words: Iterable[str], where: str) -> list[Pool]:
    """The pools of these words, in order, each once. Raises Rejected for a word that is no pool; `where` is where it stood."""
    pools: list[Pool] = []
    for word in words:
        nas, slash, pool = word.partition("/")
        if not slash:
            raise Rejected(f"{where} has {word[:80]!r}: it should be NAS/POOL")
        found = checked_name(nas, "name of a NAS"), checked_name(pool, "name of a pool")
        if found not in pools:
            pools.append(found)
    return pools


def contains(pools: list[Pool], source: Source) -> bool:
    """Whether `source` is in one of the pools."""
    return (source.nas, source.pool) in pools


async def holding(run: Run, pools: list[Pool], volume: str) -> Pool | None:
    """The pool that has a volume of that name; of pools that cannot be asked nothing is known, and they are passed over."""
    asked = (run.ask(nas, ListZvols(name=volume, zpool=pool), ZvolList) for nas, pool in pools)
    answers = await asyncio.gather(*asked, return_exceptions=True)
    found: Pool | None = None
    for (nas, pool), answer in zip(pools, answers, strict=True):
        if isinstance(answer, OnelunError) and not isinstance(answer, Cancelled):
            run.note(f"passing over {nas}/{pool}: {answer.sentence}")
        elif isinstance(answer, BaseException):
            raise answer
        elif answer.body and found is None:
            found = nas, pool
    return found


async def choose(run: Run, pools: list[Pool], size_bytes: int, volume: str, *, beside: str | None = None) -> Pool:
    """Of the pools that can be asked, the one with the most room; of equals, the one that is named first.

    An action that is begun again stays with the pool in which it made the volume before; what will be filled from the
    volume `beside` goes to that one's pool. Raises OutOfSpace when every pool answered and none has room (InMaintenance when
    no pool takes anything new), else the reason why one could not be asked.
    """
    if run.call.attempt > 0:
        for nas, pool in pools:
            listed = await run.ask(nas, ListZvols(name=volume, zpool=pool), ZvolList)
            if listed.body:
                return nas, pool
    if beside is not None and len(pools) > 1:
        found = await _holding(run, pools, beside)
        if found is not None:
            return found
    told, unasked = await _capacities(run, pools)
    free = {found: capacity.free_bytes for found, capacity in told.items() if capacity.maintenance is None}
    fitting = [found for found in free if free[found] >= size_bytes]
    if fitting:
        chosen = max(fitting, key=free.__getitem__)
        log.info("choose volume=%s pool=%s/%s free=%s of=%s", volume, *chosen, free[chosen], len(pools))
        return chosen
    if unasked:
        raise unasked[0]
    closed = [f"on {nas}, {each.maintenance}" for (nas, _), each in told.items() if each.maintenance is not None]
    if not free:
        raise InMaintenance("; ".join(closed))
    rooms = [f"{nas}/{pool} has {room / GIB:.1f} GiB free" for (nas, pool), room in free.items()]
    raise OutOfSpace(
        f"{size_bytes / GIB:.1f} GiB are needed: {'; '.join((', '.join(rooms), *closed))}", needed=size_bytes
    )


async def _holding(run: Run, pools: list[Pool], volume: str) -> Pool | None:
    """The pool with that volume. One that cannot be asked is an error: it may have the volume."""
    asked = (run.ask(nas, ListZvols(name=volume, zpool=pool), ZvolList) for nas, pool in pools)
    answers = await asyncio.gather(*asked, return_exceptions=True)
    for found, answer in zip(pools, answers, strict=True):
        if isinstance(answer, ZvolList) and answer.body:
            return found
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return None


async def _capacities(run: Run, pools: list[Pool]) -> tuple[dict[Pool, PoolCapacityIs], list[OnelunError]]:
    """What each pool can give, and why others could not be asked."""
    asked = (run.ask(nas, PoolCapacity(zpool=pool), PoolCapacityIs) for nas, pool in pools)
    answers = await asyncio.gather(*asked, return_exceptions=True)
    told: dict[Pool, PoolCapacityIs] = {}
    unasked: list[OnelunError] = []
    for (nas, pool), answer in zip(pools, answers, strict=True):
        if isinstance(answer, OnelunError) and not isinstance(answer, Cancelled):
            unasked.append(answer)
            run.note(f"passing over {nas}/{pool}: {answer.sentence}")
        elif isinstance(answer, BaseException):
            raise answer
        else:
            if answer.maintenance is not None:
                run.note(f"passing over {nas}/{pool}: {answer.maintenance}")
            told[nas, pool] = answer
    return told, unasked
