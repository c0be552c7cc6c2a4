"""A compute agent over the in-memory connector, with every directory it uses in one place."""

from __future__ import annotations

import os
import uuid as uuids
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from onelun.compute.agent import ComputeAgent
from onelun.compute.connectors.memory import MemoryConnector
from onelun.config import Compute, Limits
from onelun.model import Portal, Target
from onelun.rpc.job import Job
from onelun.rpc.message import Held, Reply, Request, SetZvol, name_of

INITIATOR = "iqn.2026-11.io.onelun.host:node1"
PORTAL = Portal("127.0.0.1", 3260)
SECRET = "secret-of-16-chr"


class Bench:
    """One host and the NAS that offers it targets."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.targets: dict[str, Target] = {}
        self.closed: set[Portal] = set()
        (place / "datastores").mkdir()
        self.connector = MemoryConnector(str(place / "connected"), self.targets, closed=self.closed)
        self.agent = self.new_agent()

    def new_agent(self) -> ComputeAgent:
        config = Compute(
            name="node1",
            state=str(self.place / "state"),
            run=str(self.place / "run"),
            devices=str(self.place / "dev"),
            datastores=str(self.place / "datastores"),
            owner=f"{os.geteuid()}:{os.getegid()}",
            initiator=INITIATOR,
        )
        return ComputeAgent(config, Limits(), self.connector)

    def offer(self, volume: str = "one-1", *, epoch: int = 1, **other: Any) -> SetZvol:
        """Offer the volume, and the request that a NAS sends to have it attached."""
        path = self.place / volume
        path.touch()
        os.truncate(path, 1 << 20)
        target = Target(
            iqn=f"iqn.2026-11.io.onelun.nas1:tank.{volume}.e{epoch}",
            device=str(path),
            uuid=str(uuids.uuid5(uuids.NAMESPACE_URL, str(path))),
            size_bytes=1 << 20,
            initiator=INITIATOR,
            user=f"{volume}-e{epoch}",
            secret=SECRET,
        )
        self.targets[target.iqn] = target
        asked: dict[str, Any] = {
            "target": target.iqn,
            "nas": "nas1",
            "address": PORTAL.address,
            "port": PORTAL.port,
            "initiator": INITIATOR,
            "user": target.user,
            "secret": SECRET,
            "zpool": "tank",
            "zvol": volume,
            "uuid": target.uuid,
            "size_bytes": target.size_bytes,
        }
        return SetZvol(**{**asked, **other})

    def held(self, request: SetZvol, *links: str) -> Held:
        """The same as one of the attachments in force."""
        fields = {name: getattr(request, name) for name in Held.__struct_fields__ if name != "links"}
        return Held(**fields, links=links)

    async def ask(self, request: Request) -> Any:
        """The agent's reply."""
        job = Job("id", action=name_of(type(request)), caller=None, limit_s=30)
        reply = await self.agent.handlers()[type(request)](request, job)
        assert isinstance(reply, Reply)
        return reply

    def device(self, volume: str = "one-1") -> str:
        """The lasting name."""
        return f"{self.place}/dev/nas1/tank/{volume}"

    def disk(self, number: int = 0) -> str:
        """The path of a VM's disk."""
        return f"{self.place}/datastores/103/5/disk.{number}"

    def names(self) -> list[str]:
        """What is below the directory of lasting names."""
        return sorted(str(path.relative_to(self.place / "dev")) for path in (self.place / "dev").rglob("*"))


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    one = Bench(tmp_path)
    await one.agent.start()
    yield one
    one.agent.close()
