"""Whose a pool is: facts of the pool's own dataset."""

from __future__ import annotations

import asyncio

from onelun.errors import Rejected
from onelun.nas.backends import rules
from onelun.nas.backends.zfs.command import Zfs
from onelun.nas.backends.zfs.properties import AGENT, CLOUD, SERIAL
from onelun.nas.backends.zfs.tree import Seen, Tree


class Ownership:
    """The agent, the cloud and the serial number of one pool."""

    def __init__(self, zfs: Zfs, tree: Tree) -> None:
        self._zfs = zfs
        self._tree = tree
        self._adopting = asyncio.Lock()
        self._adopted = False
        self.agent: str | None = None

    async def open(self, seen: Seen, agent: str, cloud: str | None) -> None:
        """Make an unowned pool this agent's. Raises Conflict for another's, or another cloud's."""
        owner = seen.pool.user(AGENT)
        rules.check_owner(self._zfs.pool, owner, agent)
        rules.check_cloud(self._zfs.pool, seen.pool.user(CLOUD), cloud)
        if owner is None:
            await self._set(f"{AGENT}={agent}", *_without_partitions(seen))
        self.agent = agent

    async def take(self, agent: str) -> None:
        """Make it this agent's, whoever's it was."""
        await self._set(f"{AGENT}={agent}")

    def check(self, seen: Seen) -> str:
        """This agent, when it may change the pool. Raises Rejected before `open`, Conflict when another one took it."""
        if self.agent is None:
            raise Rejected(f"pool {self._zfs.pool} is not open")
        rules.check_owner(self._zfs.pool, seen.pool.user(AGENT), self.agent)
        return self.agent

    async def serve(self, seen: Seen, cloud: str | None) -> None:
        """Check that the pool serves that cloud, or none yet: then it does from now on. Raises Conflict."""
        rules.check_cloud(self._zfs.pool, seen.pool.user(CLOUD), cloud)
        if cloud is None or seen.pool.user(CLOUD) is not None:
            return
        async with self._adopting:
            # Two volumes of two clouds may come at once: then the second has to look again.
            serves = (await self._tree.look()).pool.user(CLOUD) if self._adopted else None
            rules.check_cloud(self._zfs.pool, serves, cloud)
            if serves is None:
                self._adopted = True
                await self._set(f"{CLOUD}={cloud}")

    async def serial(self) -> int:
        """The catalogue's serial number."""
        return int((await self._tree.look()).pool.user(SERIAL) or 0)

    async def set_serial(self, serial: int) -> None:
        """Keep it. `zfs set` returns when the transaction group is on disk."""
        self.check(await self._tree.look())
        await self._set(f"{SERIAL}={serial}")

    async def _set(self, *settings: str) -> None:
        await self._zfs.run("set", *settings, self._zfs.dataset)


def _without_partitions(seen: Seen) -> tuple[str, ...]:
    """What keeps the NAS from looking for partitions in its guests' disks, where nobody decided otherwise.

    It is set once above all volumes: given to a new zvol, it would take the device away again and make another.
    """
    volmode = seen.pool.values.get("volmode")
    return ("volmode=dev",) if volmode is not None and volmode.source == "default" else ()
