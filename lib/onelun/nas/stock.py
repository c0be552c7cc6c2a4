"""The requests by which the front-end compares this NAS with oned and the hosts: what is there, settling, and the trash."""

from __future__ import annotations

import asyncio
import logging
import time

from onelun.deadline import Deadline
from onelun.errors import Busy, Conflict, OnelunError, Stalled
from onelun.model import State, Usage, Volume
from onelun.naming import checked_name, checked_uuid, target_iqn
from onelun.nas.catalogue import AttachmentRow, Catalogue
from onelun.nas.exporters.base import Exported, Exporter
from onelun.nas.locks import Locks
from onelun.nas.offers import Offers, is_without_agent
from onelun.nas.ownership import describe
from onelun.nas.placements import Placements
from onelun.nas.pools import Pools
from onelun.nas.rounds import Rounds
from onelun.nas.startup import Startup
from onelun.nas.volumes import lock_name
from onelun.rpc.job import Job
from onelun.rpc.message import (
    Settle,
    Settled,
    StockAttachment,
    StockIs,
    StockPlacement,
    StockTarget,
    StockVolume,
    TakeStock,
    TrashZvol,
    ZvolTrashed,
)

log = logging.getLogger(__name__)

# What one pool may take to tell its snapshots: LVM reads all of its thin pool's metadata for that.
_USAGE_S = 20.0


class Stock:
    """take_stock, settle and trash_zvol."""

    def __init__(
        self,
        pools: Pools,
        locks: Locks,
        catalogue: Catalogue,
        exporter: Exporter,
        offers: Offers,
        placements: Placements,
        startup: Startup,
        rounds: Rounds,
    ) -> None:
        self._pools = pools
        self._locks = locks
        self._catalogue = catalogue
        self._exporter = exporter
        self._offers = offers
        self._placements = placements
        self._startup = startup
        self._rounds = rounds

    async def take(self, request: TakeStock, job: Job) -> StockIs:
        """All of it. Targets and attachments are looked at twice, and what is not the same both times is left out."""
        failed: dict[str, str] = {}
        targets, rows = await self._exporter.exports(), self._catalogue.attachments()
        volumes: dict[str, Volume] = {}
        told: dict[str, Usage] = {}
        for backend in self._pools:
            try:
                found = [volume for volume in await backend.volumes() if volume.state is not State.BUILDING]
                volumes |= {volume.uuid: volume for volume in found}
                told |= await self._usages(backend.pool, job.deadline)
            except OnelunError as error:
                log.warning("stock pool=%s failed=%s", backend.pool, error)
                failed[backend.pool] = error.sentence
        # Rows last: a row is written before its target is made, and dropped after its target has gone.
        again = await self._exporter.exports()
        now = set(self._catalogue.attachments())
        leased = {row.iqn for row in self._catalogue.imports()}
        return StockIs(
            volumes=tuple(_volume(v, told.get(v.uuid)) for v in volumes.values() if v.owner.cloud == request.cloud),
            attachments=tuple(_attachment(row, volumes.get(row.uuid)) for row in rows if row in now),
            placements=tuple(
                StockPlacement(vm=p.vm, disk=p.disk, path=p.path, zvol=p.zvol, zpool=p.pool, uuid=p.uuid, host=p.host)
                for p in self._catalogue.placements(cloud=request.cloud)
            ),
            targets=tuple(_target(each, leased) for iqn, each in again.items() if iqn in targets),
            failed=failed,
            cautious=self._startup.cautious,
        )

    async def settle(self, request: Settle, job: Job) -> Settled:
        """Targets first, then each host by itself: one that does not answer keeps no other."""
        hosts = [checked_name(host, "name of a host") for host in dict.fromkeys(request.remotehosts)]
        exported = await self._startup.export_missing()
        ended = await self._startup.end_unknown()
        failed: dict[str, str] = {}
        for host, answer in zip(hosts, await asyncio.gather(*map(self._sync, hosts)), strict=True):
            failed |= answer
            job.progress(f"told {host}")
        return Settled(exported=exported, ended=tuple(ended), failed=failed)

    async def trash(self, request: TrashZvol, job: Job) -> ZvolTrashed:
        """Look at everything that speaks against it once more, under the volume's lock."""
        backend = self._pools.backend(request.zpool)
        name, uuid = checked_name(request.zvol, "volume name"), checked_uuid(request.uuid)
        if request.owner.cloud is None:
            raise Conflict(f"{name} would have to be a cloud's: a volume of none goes by del_zvol")
        if self._startup.cautious:
            raise Conflict(
                f"{name} stays: this NAS lost its catalogue and removes nothing; read its log and restart its agent"
            )
        if self._locks.held(lock_name(backend, name)):
            raise Busy(f"somebody works on {name}: it is not put into the trash")
        async with self._locks.hold(lock_name(backend, name)):
            volume = await backend.find(name)
            if volume is None or volume.uuid != uuid:
                return ZvolTrashed(trashed=False)
            await self._must_be_nobodys(volume, request)
            self._placements.end(volume.uuid, None)
            await backend.trash(volume)
        log.info("volume trashed=%s pool=%s uuid=%s kind=%s", name, backend.pool, uuid, volume.owner.kind)
        return ZvolTrashed(trashed=True)

    async def _must_be_nobodys(self, volume: Volume, request: TrashZvol) -> None:
        if volume.owner != request.owner:
            raise Conflict(f"{volume.name} is {describe(volume.owner)}, not {describe(request.owner)}: it stays")
        age_s = time.time() - volume.made_at
        if not volume.made_at or age_s < request.older_s:
            since = f"made {age_s:.0f} s ago" if volume.made_at else "of unknown age"
            raise Conflict(f"{volume.name} is {since}, and {request.older_s:.0f} s are asked for: it stays")
        hosts = {row.host for row in self._catalogue.attachments(uuid=volume.uuid)} | {
            attachment.host for attachment in volume.attachments
        }
        if hosts:
            raise Conflict(f"{volume.name} is mapped to {', '.join(sorted(hosts))}: it stays")
        stem = target_iqn(self._offers.source(volume), 1).removesuffix("1")
        exported = [iqn for iqn in await self._exporter.exports() if iqn.startswith(stem)]
        if exported:
            raise Conflict(f"{volume.name} is exported as {exported[0]}: it stays")

    async def _sync(self, host: str) -> dict[str, str]:
        try:
            return await self._rounds.sync(host)
        except OnelunError as error:
            return {host: error.sentence}

    async def _usages(self, pool: str, deadline: Deadline) -> dict[str, Usage]:
        try:
            async with asyncio.timeout(deadline.earlier(_USAGE_S).left_s()):
                return await self._pools.backend(pool).usages()
        except TimeoutError:
            raise Stalled(f"pool {pool} did not tell its snapshots within {_USAGE_S:g} s") from None


def _volume(volume: Volume, usage: Usage | None) -> StockVolume:
    return StockVolume(
        zvol=volume.name,
        zpool=volume.pool,
        uuid=volume.uuid,
        state=str(volume.state),
        owner=volume.owner,
        made_at=volume.made_at,
        snapshots=None if usage is None else tuple(sorted(usage.snapshots)),
    )


def _attachment(row: AttachmentRow, volume: Volume | None) -> StockAttachment:
    return StockAttachment(
        zvol=row.zvol,
        zpool=row.pool,
        uuid=row.uuid,
        remotehost=row.host,
        iscsi_target=row.iqn,
        state=row.state,
        cloud=volume.owner.cloud if volume else None,
        agentless=is_without_agent(row.host),
    )


def _target(exported: Exported, leased: set[str]) -> StockTarget:
    return StockTarget(
        iscsi_target=exported.iqn, sessions=tuple(sorted(exported.sessions)), leased=exported.iqn in leased
    )
