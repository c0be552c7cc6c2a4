"""The attachments of one host: devices by a connector, lasting names, links of VMs, and the record that joins them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from contextlib import AsyncExitStack

import msgspec

from onelun.beneath import Owner
from onelun.compute import devices
from onelun.compute.attachments import Attached, Attachments
from onelun.compute.connectors.base import Connected, Connector
from onelun.compute.names import Names
from onelun.compute.turns import Turns
from onelun.compute.wanted import Wanted
from onelun.directory import Directory
from onelun.errors import Conflict, OnelunError
from onelun.naming import epoch_of

log = logging.getLogger(__name__)


class Host:
    """Attaches and detaches. `owner` may open the devices; everything may be repeated."""

    def __init__(
        self, connector: Connector, attachments: Attachments, names: Names, directory: Directory, owner: Owner
    ) -> None:
        self._connector = connector
        self._attachments = attachments
        self._names = names
        self._directory = directory
        self._owner = owner
        self._turns = Turns()

    async def settle(self) -> None:
        """Make names and records agree with what is connected. Nothing is connected and nothing disconnected.

        Except for what an agent that was killed had connected only half-way.
        """
        await self._connector.settle()
        connected = {one.iqn: one for one in await self._connector.connections()}
        for known in self._attachments.all():
            there = connected.get(known.iqn)
            if there is None:
                log.info("settle target=%s state=gone", known.iqn)
                self._attachments.remove(known.iqn)
            elif there.alive:
                self._attachments.save(msgspec.structs.replace(known, device=there.device))
        named = {known.name: known.device for known in self._attachments.all() if _alive(connected.get(known.iqn))}
        for name, device in self._names.all().items():
            if named.get(name) != device:
                self._names.remove(name)
        for known in self._attachments.all():
            if known.name in named:
                self._show(known)

    async def attached(self) -> list[tuple[Connected, Attached | None]]:
        """Every connected target with what is known of it."""
        return [(one, self._attachments.get(one.iqn)) for one in await self._connector.connections()]

    def nases(self) -> set[str]:
        """The NASes of which something is attached."""
        return {known.nas for known in self._attachments.all()}

    async def attach(self, wanted: Wanted) -> Attached:
        """Connect the target, verify it, name its device, and make the links. An earlier epoch of the volume goes first.

        Raises what the connector's `connect` raises; Busy while the earlier epoch is open; Conflict when a later epoch is
        attached; and Rejected for a link that cannot be. What was not attached before is then not attached.
        """
        for link in wanted.links:
            self._directory.split(link)
        async with self._turns.of(wanted.name), self._turns.of(wanted.export.iqn):
            await self._replace_earlier(wanted)
            return await self._attach(wanted)

    async def detach(self, iqn: str, *, link: str | None = None, keep_link: bool = False, force: bool = False) -> None:
        """Disconnect the target, with its name and, unless `keep_link`, its links and `link`. Absent: success.

        Raises Busy while the device is open, unless `force`, and CommandFailed when its last writes fail: nothing is
        changed then.
        """
        if link is not None:
            self._directory.split(link)
        async with self._turns.of(iqn):
            known = self._attachments.get(iqn)
            await self._disconnect(iqn, known, force=force)
            for path in {*(known.links if known else ()), *((link,) if link else ())} if not keep_link else ():
                await self._unlink(path, known)
            self._attachments.remove(iqn)

    async def grow(self, iqn: str, size_bytes: int) -> str:
        """Let the target's device be `size_bytes` long; return it. Raises what the connector's `grow` raises."""
        async with self._turns.of(iqn):
            device = await self._connector.grow(iqn, size_bytes)
            known = self._attachments.get(iqn)
            if known is not None:
                grown = msgspec.structs.replace(known, device=device)
                self._attachments.save(grown)
                # Also under its old path it may be a device made anew, which is root's.
                self._show(grown)
            return device

    async def unlink(self, iqn: str, link: str) -> None:
        """Remove the link alone, when it leads to the target's device. Absent: success."""
        self._directory.split(link)
        async with self._turns.of(iqn):
            known = self._attachments.get(iqn)
            await self._unlink(link, known, stays=True)
            if known is not None:
                left = tuple(path for path in known.links if path != link)
                self._attachments.save(msgspec.structs.replace(known, links=left))

    async def _replace_earlier(self, wanted: Wanted) -> None:
        for other in self._attachments.all():
            if other.name != wanted.name or other.iqn == wanted.export.iqn:
                continue
            if epoch_of(other.iqn) > epoch_of(wanted.export.iqn):
                raise Conflict(f"{wanted.export.iqn} is out of date: {other.iqn} is attached here", target=other.iqn)
            async with self._turns.of(other.iqn):
                await self._disconnect(other.iqn, other, force=not await self._is_alive(other.iqn))
                self._attachments.remove(other.iqn)
                log.info("attach target=%s replaced=%s", wanted.export.iqn, other.iqn)

    async def _attach(self, wanted: Wanted) -> Attached:
        before = self._attachments.get(wanted.export.iqn)
        name = before.name if before and wanted.bare else wanted.name
        if before and (before.name != name or not await self._is_alive(before.iqn)):
            self._names.remove(before.name)
        async with AsyncExitStack() as undo:
            undo.push_async_callback(self._undo, wanted, before)
            device = await self._connector.connect(wanted.export)
            links = dict.fromkeys((*(before.links if before else ()), *wanted.links))
            attached = Attached(
                wanted.export.iqn,
                before.nas if before and wanted.bare else wanted.nas,
                name,
                device,
                uuid=wanted.export.uuid or (before.uuid if before else None),
                readonly=wanted.export.readonly,
                links=tuple(links),
            )
            self._attachments.save(attached)
            self._show(attached)
            for link in wanted.links:
                await self._must_be_free(link, attached)
                await asyncio.to_thread(self._directory.put_link, *self._directory.split(link), self._names.path(name))
            undo.pop_all()
        log.info("attach target=%s device=%s name=%s links=%s", attached.iqn, device, attached.name, wanted.links)
        return attached

    async def _must_be_free(self, link: str, attached: Attached) -> None:
        """Raise Conflict when the link leads to a device that is here of another NAS, or to what is none of onelun's."""
        text = await asyncio.to_thread(self._directory.link_text, *self._directory.split(link))
        if text is None:
            return
        if not self._names.holds(text):
            raise Conflict(f"{link} leads to {text[:200]!r}, which is no device of onelun's: remove that link first")
        name = text.removeprefix(self._names.path(""))
        if name.partition("/")[0] != attached.nas and self._names.device(name) is not None:
            raise Conflict(
                f"{link} leads to {text}, which is attached here and none of {attached.nas}'s: detach that first"
            )

    async def _undo(self, wanted: Wanted, before: Attached | None) -> None:
        """Back to what was before: nothing, or the attachment that was, as far as it is still connected."""
        iqn = wanted.export.iqn
        connected = {one.iqn: one for one in await self._connector.connections()}
        if before is not None and iqn in connected:
            restored = msgspec.structs.replace(before, device=connected[iqn].device)
            self._attachments.save(restored)
            if connected[iqn].alive:
                self._show(restored)
            return
        known = self._attachments.get(iqn)
        if known is not None:
            self._names.remove(known.name, known.device)
        # A failure to disconnect must not hide why the attachment failed; the next request finds the connection.
        with contextlib.suppress(OnelunError):
            await self._connector.disconnect(iqn)
            self._attachments.remove(iqn)

    async def _disconnect(self, iqn: str, known: Attached | None, *, force: bool) -> None:
        """The name goes before the device, so the device is looked at before the name goes."""
        if known is not None and not force:
            await devices.refuse_if_open(known.device)
        if known is not None:
            self._names.remove(known.name, known.device)
        try:
            await self._connector.disconnect(iqn, force=force)
        except BaseException:
            if known is not None and await self._is_alive(iqn):
                self._show(known)
            raise
        log.info("detach target=%s force=%s", iqn, force)

    async def _unlink(self, path: str, known: Attached | None, *, stays: bool = False) -> None:
        """Remove a link of the target's, and of nothing that has been attached since under the same name."""
        directory, name = self._directory.split(path)
        text = await asyncio.to_thread(self._directory.link_text, directory, name)
        if text is None or not self._names.holds(text):
            return
        if known is not None and text != self._names.path(known.name):
            return
        in_use = self._names.device(text.removeprefix(self._names.path(""))) is not None
        if in_use and not (stays and known is not None):
            return
        await asyncio.to_thread(self._directory.remove, directory, name)

    async def _is_alive(self, iqn: str) -> bool:
        return any(one.alive for one in await self._connector.connections() if one.iqn == iqn)

    def _show(self, attached: Attached) -> None:
        devices.give(attached.device, self._owner, readonly=attached.readonly)
        self._names.put(attached.name, attached.device)


def _alive(connected: Connected | None) -> bool:
    return connected is not None and connected.alive
