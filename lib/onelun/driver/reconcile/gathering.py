"""Asking oned, the NASes and the hosts for their views. Nothing is changed."""

from __future__ import annotations

import asyncio
import posixpath
import time
from collections.abc import Iterable
from typing import TypeVar

from onelun.config import Frontend, Limits
from onelun.deadline import Deadline
from onelun.driver.api import Api
from onelun.driver.asking import Asker
from onelun.driver.reconcile.views import Device, HostView, OnedView, View
from onelun.errors import OnelunError, ProtocolError
from onelun.model import Kind
from onelun.rpc.message import DevList, DirList, ListDev, ListDir, StockIs, TakeStock
from onelun.rpc.schema import Reply, Request

_HOST_S = 20.0
_AT_ONCE = 8

_R = TypeVar("_R", bound=Reply)


class Gathering:
    """The views of one front-end."""

    def __init__(self, config: Frontend, limits: Limits, api: Api, asker: Asker) -> None:
        self._config = config
        self._limits = limits
        self._api = api
        self._asker = asker
        self._turn = asyncio.Semaphore(_AT_ONCE)

    async def view(self) -> View:
        """All three, as they are now. Raises Unreachable when oned does not answer: without it nothing is concluded."""
        listed = await self._api.images(), await self._api.vm_ids()
        stocks = dict(zip(self._config.nas, await asyncio.gather(*map(self._stock, self._config.nas)), strict=True))
        told = [stock for stock in stocks.values() if isinstance(stock, StockIs)]
        agents = dict.fromkeys((*self._config.hosts.values(), *_hosts_of(told)))
        hosts = dict(zip(agents, await asyncio.gather(*(self._host(agent, told) for agent in agents)), strict=True))
        # oned last: what a NAS has was made after oned knew of it, so that who is missing there is really unknown.
        images = {image.id: image for image in listed[0]}
        vms = {vm_id: await self._api.vm(vm_id) for vm_id in sorted({*listed[1], *_vms_of(told)})}
        missing = {number: await self._api.image(number) for number in sorted(_images_of(told) - images.keys())}
        return View(
            cloud=self._config.cloud,
            now=time.time(),
            grace_s=self._limits.grace_s,
            oned=OnedView(images={**images, **missing}, vms=vms),
            stocks=stocks,
            hosts=hosts,
            agents=self._config.hosts,
        )

    async def _stock(self, nas: str) -> StockIs | str:
        try:
            return await self._ask(nas, TakeStock(cloud=self._config.cloud), StockIs, self._limits.finish_s)
        except OnelunError as error:
            return error.sentence

    async def _host(self, agent: str, stocks: Iterable[StockIs]) -> HostView | str:
        placed = {p.path for stock in stocks for p in stock.placements if p.host == agent}
        directories = sorted({posixpath.dirname(path) for path in placed})
        try:
            listed = await self._ask(agent, ListDev(), DevList, _HOST_S)
        except OnelunError as error:
            return error.sentence
        links: dict[str, str | None] = {}
        unseen = set()
        for directory, found in zip(
            directories, await asyncio.gather(*(self._links(agent, each) for each in directories)), strict=True
        ):
            if found is None:
                unseen.add(directory)
            else:
                links |= {path: text for path, text in found.items() if path in placed}
        devices = (
            Device(str(each.get("target")), each.get("nas"), alive=bool(each.get("alive"))) for each in listed.body
        )
        return HostView(tuple(devices), links, frozenset(unseen))

    async def _links(self, agent: str, directory: str) -> dict[str, str | None] | None:
        """What lies in a VM's directory, by path; None when it cannot be told."""
        try:
            listed = await self._ask(agent, ListDir(path=directory), DirList, _HOST_S)
        except OnelunError:
            return None
        return {f"{directory}/{entry.name}": entry.target if entry.kind == "link" else None for entry in listed.entries}

    async def _ask(self, node: str, request: Request, kind: type[_R], within_s: float) -> _R:
        async with self._turn:
            reply = await self._asker.ask(node, request, deadline=Deadline.after(within_s))
        if not isinstance(reply, kind):
            raise ProtocolError(f"{node} gave another answer than was asked for")
        return reply


def _hosts_of(stocks: Iterable[StockIs]) -> set[str]:
    return {row.remotehost for stock in stocks for row in stock.attachments if not row.agentless}


def _vms_of(stocks: Iterable[StockIs]) -> set[int]:
    found = {volume.owner.vm_id for stock in stocks for volume in stock.volumes} - {None}
    return {number for number in found if number is not None} | {p.vm for stock in stocks for p in stock.placements}


def _images_of(stocks: Iterable[StockIs]) -> set[int]:
    owners = [volume.owner for stock in stocks for volume in stock.volumes]
    return {owner.image_id for owner in owners if owner.kind is Kind.IMAGE and owner.image_id is not None}
