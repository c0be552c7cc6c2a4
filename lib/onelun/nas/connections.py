"""Connections of initiators that have no compute agent: the call and the dictionary that OpenStack's drivers have.

Such a connection is an attachment like any other (one target, one initiator, one secret, one epoch), of a host whose name
tells that nobody is to be asked there.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import msgspec

from onelun.ending import to_its_end
from onelun.errors import Conflict, OnelunError, Rejected
from onelun.model import Attachment, Target, Volume
from onelun.naming import checked_initiator, checked_uuid
from onelun.nas.backends.base import Backend
from onelun.nas.catalogue import ATTACHED, ATTACHING, Catalogue
from onelun.nas.locks import Locks
from onelun.nas.offers import WITHOUT_AGENT, Offers, same
from onelun.nas.pools import Pools, pinned, still
from onelun.nas.volumes import lock_name
from onelun.rpc.job import Job
from onelun.rpc.message import ConnectionInitialized, ConnectionTerminated, InitializeConnection, TerminateConnection

log = logging.getLogger(__name__)


class Connections:
    """initialize_connection and terminate_connection."""

    def __init__(self, pools: Pools, locks: Locks, catalogue: Catalogue, offers: Offers) -> None:
        self._pools = pools
        self._locks = locks
        self._catalogue = catalogue
        self._offers = offers

    async def initialize(self, request: InitializeConnection, job: Job) -> ConnectionInitialized:
        """Offer a volume to an initiator and tell how to log in."""
        initiator = _initiator(request.connector)
        backend, meant = await self._pools.get(request.zvol, request.zpool)
        pinned(meant, request.uuid)
        if meant.owner.cloud is not None:
            raise Conflict(f"{meant.name} is an OpenNebula cloud's volume: its disks are attached by map_zvol")
        async with self._locks.hold(lock_name(backend, meant.name), preemptible=True):
            volume = await still(backend, meant)
            wanted = Attachment(host=WITHOUT_AGENT + initiator, initiator=initiator, epoch=0, readonly=request.readonly)
            target = await self._offer(backend, volume, wanted)
        log.info("connection initialized=%s initiator=%s", target.iqn, initiator)
        return ConnectionInitialized(driver_volume_type="iscsi", data=self._data(target))

    async def terminate(self, request: TerminateConnection, job: Job) -> ConnectionTerminated:
        """End what `initialize` offered."""
        initiator = _initiator(request.connector)
        found = await self._pools.locate(request.zvol, request.zpool)
        if found is None or (request.uuid is not None and found[1].uuid != checked_uuid(request.uuid)):
            return ConnectionTerminated()
        backend, volume = found
        async with self._locks.hold(lock_name(backend, volume.name), preempts=True):
            for row in self._catalogue.attachments(uuid=volume.uuid, host=WITHOUT_AGENT + initiator):
                await self._offers.withdraw(backend, row)
                log.info("connection terminated=%s initiator=%s", row.iqn, initiator)
        return ConnectionTerminated()

    async def _offer(self, backend: Backend, volume: Volume, wanted: Attachment) -> Target:
        row = self._offers.standing(volume, wanted)
        if row is not None and not same(row, wanted):
            await self._offers.end(backend, row)
            row = None
        row = row or await self._offers.intend(volume, wanted)
        try:
            target = await self._offers.make(backend, volume, row)
        except (OnelunError, asyncio.CancelledError):
            if row.state == ATTACHING:
                await to_its_end(self._offers.take_back(backend, row), wait_s=None)
            raise
        self._catalogue.put(msgspec.structs.replace(row, state=ATTACHED))
        return target

    def _data(self, target: Target) -> dict[str, Any]:
        portal, lun = self._offers.portal, self._offers.lun
        return {
            "target_discovered": False,
            "target_iqn": target.iqn,
            "target_portal": str(portal),
            "target_lun": lun,
            "volume_id": target.uuid,
            "auth_method": "CHAP",
            "auth_username": target.user,
            "auth_password": target.secret,
            "access_mode": "ro" if target.readonly else "rw",
            "encrypted": False,
            "qos_specs": None,
        }


def _initiator(connector: dict[str, Any]) -> str:
    """The connector's initiator. Raises Rejected, naming the key, when it has none."""
    initiator = connector.get("initiator")
    if not isinstance(initiator, str):
        raise Rejected("the connector has no initiator: its iSCSI name is needed, because the target is bound to it")
    return checked_initiator(initiator)
