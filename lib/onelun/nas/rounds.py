"""What a NAS agent does by itself, at intervals: hosts that are back, targets that are missing, leases, trash, debts."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid as uuids
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from onelun.config import Limits
from onelun.deadline import Deadline
from onelun.errors import NoReply, OnelunError, Unreachable
from onelun.model import Volume
from onelun.naming import target_account
from onelun.nas.ageing import Ageing
from onelun.nas.catalogue import ATTACHED, ATTACHING, DETACHING, UNKNOWN, AttachmentRow, Catalogue
from onelun.nas.hosts import Hosts
from onelun.nas.leases import Leases
from onelun.nas.locks import Locks
from onelun.nas.offers import Offers, is_without_agent
from onelun.nas.placements import Placements
from onelun.nas.pools import Pools
from onelun.nas.startup import Startup
from onelun.nas.volumes import lock_name
from onelun.rpc.message import DevList, Held, ListDev, SyncZvols, ZvolsSynced

log = logging.getLogger(__name__)

# A disk.N in a VM's directory.
_DISK = re.compile(r"/.*/([0-9]{1,12})/disk\.([0-9]{1,6})")
# Trash is looked at this often.
_PURGE_S = 3600.0


class Rounds:
    """The agent's own work."""

    def __init__(
        self,
        pools: Pools,
        locks: Locks,
        catalogue: Catalogue,
        offers: Offers,
        hosts: Hosts,
        placements: Placements,
        leases: Leases,
        startup: Startup,
        limits: Limits,
    ) -> None:
        self._pools = pools
        self._locks = locks
        self._catalogue = catalogue
        self._hosts = hosts
        self._offers = offers
        self._placements = placements
        self._leases = leases
        self._startup = startup
        self._limits = limits
        self._seen: dict[str, str] = {}
        self._learned: set[str] = set()
        self._purged = 0.0
        self._ageing = Ageing(catalogue, limits.trash_s)

    async def run(self) -> None:
        """Go round until cancelled. A failure is logged and met again in the next round."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._round(self._leases.end_overdue, self._startup.export_missing, self._probe))
            # A volume may be wiped for hours; hosts and leases do not wait for that.
            tasks.create_task(self._round(self._purge))

    async def _round(self, *steps: Callable[[], Awaitable[object]]) -> None:
        while True:
            for step in steps:
                try:
                    await step()
                except OnelunError as error:
                    log.warning("round step=%s failed=%s", step.__name__, error)
                except Exception:
                    log.exception("round step=%s failed", step.__name__)
            await asyncio.sleep(self._limits.probe_s)

    async def _probe(self) -> None:
        hosts = {row.host for row in self._catalogue.attachments()} | {debt.host for debt in self._catalogue.debts()}
        await asyncio.gather(*(self._host(host) for host in sorted(hosts) if not is_without_agent(host)))

    async def _host(self, host: str) -> None:
        try:
            said = await self._hosts.hello(host, deadline=Deadline.after(self._limits.accept_s))
        except (Unreachable, NoReply):
            self._seen.pop(host, None)
            return
        except OnelunError as error:
            log.warning("probe host=%s failed=%s", host, error)
            return
        try:
            if self._startup.cautious and host not in self._learned:
                await self._learn_placements(host)
                self._learned.add(host)
            if self._seen.get(host) != said.instance or await self._is_doubtful(host):
                await self.sync(host)
        except OnelunError as error:
            log.warning("sync host=%s failed=%s", host, error)
            return
        self._seen[host] = said.instance

    async def _is_doubtful(self, host: str) -> bool:
        """Whether the host may have something else than it should: it owes, it did not answer, or a device of its died."""
        if self._catalogue.debts(host=host):
            return True
        rows = self._catalogue.attachments(host=host)
        if any(row.state in (UNKNOWN, DETACHING) for row in rows):
            return True
        alive = {entry.get("target") for entry in await self._devices(host) if entry.get("alive")}
        return any(row.state == ATTACHED and row.iqn not in alive for row in rows)

    async def _learn_placements(self, host: str) -> None:
        """Learn from a host's links which VM's disk is which volume: a lost catalogue knows none, an older one wrong ones."""
        rows = {row.iqn: row for row in self._catalogue.attachments(host=host)}
        for entry in await self._devices(host):
            row = rows.get(str(entry.get("target")))
            volume = await self._pools.backend(row.pool).find_uuid(row.uuid) if row else None
            if volume is None or volume.owner.cloud is None:
                continue
            links = entry.get("links")
            for path in map(str, links if isinstance(links, list) else ()):
                if match := _DISK.fullmatch(path):
                    vm, disk = int(match[1]), int(match[2])
                    log.warning("learned disk=%s vm=%s zvol=%s host=%s", disk, vm, volume.name, host)
                    self._placements.put(volume, cloud=volume.owner.cloud, vm=vm, disk=disk, path=path, host=host)

    async def _devices(self, host: str) -> list[dict[str, Any]]:
        deadline = Deadline.after(2 * self._limits.accept_s)
        listed = await self._hosts.ask(host, ListDev(), DevList, deadline=deadline, of=str(uuids.uuid4()), step="look")
        return listed.body

    async def sync(self, host: str) -> dict[str, str]:
        """Tell a host what it is to have from this NAS; then its debts are paid and doubts are gone.

        Return what it could not do, IQNs with sentences.
        """
        async with self._hosts.turn(host, alone=True):
            rows = self._catalogue.attachments(host=host)
            debts = self._catalogue.debts(host=host)
            volumes = await self._pools.volumes_of(row.pool for row in rows)
            held = [
                self._held(row, volumes[row.uuid])
                for row in rows
                if row.state not in (ATTACHING, DETACHING) and row.uuid in volumes
            ]
            request = SyncZvols(nas=self._offers.nas, held=tuple(held), fenced=tuple(debt.iqn for debt in debts))
            of = str(uuids.uuid4())
            deadline = Deadline.after(self._limits.finish_s / 2)
            done = await self._hosts.ask(host, request, ZvolsSynced, deadline=deadline, of=of, step="sync")
            for row in rows:
                self._settle(row, done)
            self._catalogue.drop(*(debt for debt in debts if debt.iqn not in done.failed))
        # Not inside the host's turn: a job may hold the volume and wait for that.
        for row in rows:
            if row.state in (ATTACHING, DETACHING) and row.iqn not in done.failed:
                await self._finish(row)
        log.info("sync host=%s held=%s dropped=%s failed=%s", host, len(held), len(done.dropped), len(done.failed))
        return done.failed

    def _settle(self, row: AttachmentRow, done: ZvolsSynced) -> None:
        if row.iqn in done.failed:
            log.warning("sync host=%s iqn=%s failed=%s", row.host, row.iqn, done.failed[row.iqn])
            self._catalogue.put(msgspec.structs.replace(row, state=UNKNOWN))
        elif row.state == UNKNOWN:
            self._catalogue.put(msgspec.structs.replace(row, state=ATTACHED))

    async def _finish(self, row: AttachmentRow) -> None:
        """The host has let go of what was on its way out. A job may have seen to the rest meanwhile."""
        backend = self._pools.backend(row.pool)
        async with self._locks.hold(lock_name(backend, row.zvol)):
            if row in self._catalogue.attachments(iqn=row.iqn):
                await self._offers.end(backend, row)

    def _held(self, row: AttachmentRow, volume: Volume) -> Held:
        links = tuple(p.path for p in self._catalogue.placements(uuid=row.uuid, host=row.host))
        portal = self._offers.portal
        return Held(
            target=row.iqn,
            address=portal.address,
            port=portal.port,
            initiator=row.initiator,
            user=target_account(row.iqn),
            secret=self._offers.secret_of(row.iqn),
            zpool=row.pool,
            zvol=row.zvol,
            uuid=row.uuid,
            size_bytes=volume.size_bytes,
            readonly=row.readonly,
            lun=self._offers.lun,
            links=links,
        )

    async def _purge(self) -> None:
        if time.monotonic() - self._purged < _PURGE_S and self._purged:
            return
        self._purged = time.monotonic()
        older_than = self._ageing.older_than()
        for backend in self._pools:
            try:
                count = await backend.purge(older_than)
            except OnelunError as error:
                log.warning("trash kept=all pool=%s reason=%s", backend.pool, error)
            else:
                if count:
                    log.info("trash purged=%s pool=%s", count, backend.pool)
