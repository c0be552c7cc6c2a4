"""The compute agent's round over its connections."""

from __future__ import annotations

import asyncio
import contextlib
import os

import pytest

from onelun.cli import compute as command
from onelun.compute.connectors.memory import MemoryConnector
from onelun.compute.connectors.userspace.connector import UserspaceConnector
from onelun.compute.tending import tending
from onelun.config import Broker, Compute, Config


class Tended(MemoryConnector):
    """Counts the rounds, the first of which fails."""

    rounds = 0

    async def tend(self) -> None:
        self.rounds += 1
        if self.rounds == 1:
            raise RuntimeError("a defect")


async def test_connections_are_tended_again_and_again_and_after_a_defect_too(tmp_path, caplog):
    connector = Tended(str(tmp_path), {})

    async with tending(connector, every_s=0.001), asyncio.timeout(60):
        while connector.rounds < 3:
            await asyncio.sleep(0.001)
    after = connector.rounds
    await asyncio.sleep(0.01)

    assert connector.rounds == after
    assert "tend failed" in caplog.messages


async def test_the_agent_tends_its_connector_while_the_broker_is_away_too(tmp_path, monkeypatch):
    connector = Tended(str(tmp_path / "connected"), {})
    monkeypatch.setattr(command, "connector_of", lambda _: connector)
    mine = Compute(
        name="node1",
        state=str(tmp_path / "state"),
        run=str(tmp_path / "run"),
        devices=str(tmp_path / "dev"),
        datastores=str(tmp_path),
        owner=f"{os.geteuid()}:{os.getegid()}",
        initiator="iqn.2026-11.io.onelun.host:node1",
    )
    config = Config(broker=Broker(url="amqp://a:b@127.0.0.1:1/v"), compute=mine)

    serving = asyncio.create_task(command._serve(config, mine))
    async with asyncio.timeout(60):
        while not connector.rounds:
            assert not serving.done(), serving.exception()
            await asyncio.sleep(0.01)

    serving.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await serving


@pytest.mark.parametrize("kind", ["memory", "userspace"])
async def test_a_connector_without_anything_to_tend_inherits_that(tmp_path, kind):
    connector = MemoryConnector(str(tmp_path), {}) if kind == "memory" else UserspaceConnector(str(tmp_path), node="n")

    await connector.tend()

    assert list(tmp_path.iterdir()) == []
