"""What `onelun frontend check` asks of oned and of the agents: hosts without an agent, datastores and pools that cannot work."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from onelun.config import Frontend
from onelun.deadline import Deadline
from onelun.driver.api import Api
from onelun.driver.asking import Asker
from onelun.driver.attributes import POOLS, Where, read
from onelun.driver.document import Listed
from onelun.driver.frame import parse_version
from onelun.driver.location import Hosts
from onelun.driver.pools import Pool, pools_named, pools_of_system
from onelun.errors import OnelunError, Rejected
from onelun.rpc.message import ListDev, PoolCapacity, PoolCapacityIs
from onelun.rpc.schema import Request

# A check waits for a person: an agent that serves answers both at once.
_ANSWER_S = 10.0
_AT_ONCE = 16
# Attributes that OpenNebula copies from TM_MAD_CONF into an image datastore, beside those of the modes.
_COPIED = ("LN_TARGET", "CLONE_TARGET", "DISK_TYPE", "DRIVER", "ALLOW_ORPHANS")


class Checking:
    """The checks of one front-end. Each returns sentences; Unreachable when oned does not answer."""

    def __init__(self, config: Frontend, api: Api, asker: Asker, driver: str) -> None:
        """`driver` is the name under which OpenNebula knows onelun's scripts."""
        self._config = config
        self._api = api
        self._asker = asker
        self._driver = driver
        self._turn = asyncio.Semaphore(_AT_ONCE)

    async def release(self) -> list[str]:
        """Whether oned is of the release for which errors are written."""
        running = await self._api.version()
        if parse_version(running) == parse_version(self._config.opennebula_version):
            return []
        said = self._config.opennebula_version or "nothing"
        return [f'oned is {running}, and frontend.opennebula_version says {said}: make it "{running}"']

    async def hosts(self) -> list[str]:
        """Whether each host of oned has an agent, and the agent answers."""
        known = Hosts(self._config.hosts, self._config.names)
        found: list[str] = []
        agents: dict[str, str] = {}
        for host in await self._api.hosts():
            try:
                agents.setdefault(known.compute(host), host)
            except Rejected as error:
                found.append(error.sentence)
        asked = (self._answer(f"host {host}", agent, ListDev()) for agent, host in agents.items())
        return found + _flat(await asyncio.gather(*asked))

    async def datastores(self, wanted: Mapping[str, str]) -> list[str]:
        """Whether onelun's image datastores have what TM_MAD_CONF gives new ones (`wanted`), and each pool is served.

        System datastores have a pool too: volatile disks and checkpoints live there. OpenNebula gives them no DISK_TYPE.
        """
        found: list[str] = []
        pools: dict[Pool, str] = {}
        for listed in filter(self._is_ours, await self._api.datastores()):
            found += _attributes(listed, self._driver, wanted) if listed.is_image else _volatile(listed)
            try:
                read(listed.attributes, Where.DATASTORE, f"datastore {listed.name}")
                for pool in self._pools(listed):
                    pools.setdefault(pool, listed.name)
            except Rejected as error:
                found.append(error.sentence)
        asked = (
            self._answer(f"pool {at[0]}/{at[1]} of datastore {name}", at[0], PoolCapacity(zpool=at[1]))
            for at, name in pools.items()
        )
        found += _flat(await asyncio.gather(*asked))
        unnamed = {nas: name for (nas, _), name in pools.items() if nas not in self._config.nas}
        return found + [
            f"frontend.nas does not name {nas}, which datastore {name} uses: add it" for nas, name in unnamed.items()
        ]

    def _pools(self, listed: Listed) -> list[Pool]:
        named = listed.attributes.get(POOLS, "")
        if listed.is_image:
            return pools_named(named, f"datastore {listed.name}")
        return pools_of_system(named, listed.name, self._config)

    def _is_ours(self, listed: Listed) -> bool:
        return self._driver in (listed.ds_mad, listed.tm_mad)

    async def _answer(self, what: str, agent: str, request: Request) -> list[str]:
        async with self._turn:
            try:
                answer = await self._asker.ask(agent, request, deadline=Deadline.after(_ANSWER_S))
            except OnelunError as error:
                return [f"{what}: {error.sentence}"]
        if isinstance(answer, PoolCapacityIs) and answer.maintenance is not None:
            return [f"{what}: {answer.maintenance}"]
        return []


def _flat(found: list[list[str]]) -> list[str]:
    return [sentence for sentences in found for sentence in sentences]


def _volatile(listed: Listed) -> list[str]:
    # oned gives a system datastore FILE unless its template says otherwise, whatever TM_MAD_CONF has, and volatile disks follow
    # it (src/datastore/Datastore.cc): QEMU opens no block device that it is told is a file.
    if listed.attributes.get("DISK_TYPE", "").upper() == "BLOCK":
        return []
    lacking = f"system datastore {listed.name} has no DISK_TYPE = BLOCK, and VMs with volatile disks do not start"
    return [f"{lacking}: add it with `onedatastore update {listed.id}`"]


def _attributes(listed: Listed, driver: str, wanted: Mapping[str, str]) -> list[str]:
    if (listed.ds_mad, listed.tm_mad) != (driver, driver):
        has = f"datastore {listed.name} has DS_MAD {listed.ds_mad} and TM_MAD {listed.tm_mad}"
        return [f"{has}: onelun's image datastores have {driver} for both"]
    modes = [key for key in wanted if key.endswith(("_SSH", "_SHARED"))]
    lacking = [
        f"{key}={wanted[key]}"
        for key in (*_COPIED, "TM_MAD_SYSTEM", *modes)
        if key in wanted and listed.attributes.get(key, "").upper() != wanted[key].upper()
    ]
    if not lacking:
        return []
    return [f"datastore {listed.name} lacks {', '.join(lacking)}: add them with `onedatastore update {listed.id}`"]
