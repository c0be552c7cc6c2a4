"""The specification of Connector (lib/onelun/compute/connectors/base.py) as one suite for every connector."""

from __future__ import annotations

import asyncio
import os
import random
import time
import uuid as uuids
from collections.abc import AsyncIterator

import msgspec
import pytest
from tests.support.blocks import HOSTS, content, forget, leftovers, read, scribble, write
from tests.support.iscsi import MIB, Lab, initiator

from onelun.compute.connectors.base import Connector
from onelun.errors import Busy, Conflict, NotFound, Rejected, Unreachable


@pytest.fixture
async def hosts(lab: Lab) -> AsyncIterator[list[Connector]]:
    yield [lab.connector(name) for name in HOSTS]
    await forget(lab)


@pytest.fixture
def host(hosts: list[Connector]) -> Connector:
    return hosts[0]


# What is written


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_overlapping_random_writes_arrive_as_they_were_written(lab: Lab, host: Connector, seed: int) -> None:
    export = lab.offer("one-1", "node1", size=32 * MIB)
    device = await host.connect(export)
    expected = bytearray(32 * MIB)

    descriptor = os.open(device, os.O_WRONLY)
    scribble(descriptor, expected, seed)
    os.fsync(descriptor)
    os.close(descriptor)

    assert content(lab.backing(export)) == expected


async def test_what_was_not_synced_arrives_with_the_disconnect(lab: Lab, host: Connector) -> None:
    export = lab.offer("one-1", "node1")
    device = await host.connect(export)
    expected = bytearray(16 * MIB)
    descriptor = os.open(device, os.O_WRONLY)
    scribble(descriptor, expected, 4, count=100)
    os.close(descriptor)

    await host.disconnect(export.iqn)

    assert content(lab.backing(export)) == expected


async def test_a_second_host_reads_at_once_what_the_first_wrote(lab: Lab, hosts: list[Connector]) -> None:
    first = await hosts[0].connect(lab.offer("one-1", "node1", epoch=1))
    second = await hosts[1].connect(lab.offer("one-1", "node2", epoch=2))

    for turn in range(20):
        writer, reader = (first, second) if turn % 2 == 0 else (second, first)
        data = random.Random(turn).randbytes(8192)
        write(writer, data, 4096 * turn)
        assert read(reader, 8192, 4096 * turn) == data


async def test_a_volume_moves_from_host_to_host_with_its_content(lab: Lab, hosts: list[Connector]) -> None:
    first = lab.offer("one-1", "node1", epoch=1)
    data = random.Random(5).randbytes(MIB)
    write(await hosts[0].connect(first), data)
    await hosts[0].disconnect(first.iqn)

    device = await hosts[1].connect(lab.offer("one-1", "node2", epoch=2))

    assert read(device, MIB) == data


# What may be repeated


async def test_connecting_twice_gives_the_same_device(lab: Lab, host: Connector) -> None:
    export = lab.offer("one-1", "node1")

    first = await host.connect(export)
    second = await host.connect(export)

    assert first == second
    assert [connected.iqn for connected in await host.connections()] == [export.iqn]


async def test_disconnecting_an_absent_target_succeeds(lab: Lab, host: Connector) -> None:
    export = lab.offer("one-1", "node1")

    await host.disconnect(export.iqn)
    await host.connect(export)
    await host.disconnect(export.iqn)
    await host.disconnect(export.iqn)

    assert await host.connections() == []


async def test_a_new_agent_finds_what_an_earlier_one_connected(lab: Lab, host: Connector) -> None:
    export = lab.offer("one-1", "node1")
    device = await host.connect(export)

    successor = lab.connector("node1")

    assert [(c.iqn, c.device, c.alive) for c in await successor.connections()] == [(export.iqn, device, True)]
    assert await successor.connect(export) == device
    await successor.disconnect(export.iqn)
    assert await host.connections() == []


async def test_many_targets_connect_at_the_same_time(lab: Lab, host: Connector) -> None:
    exports = [lab.offer(f"one-{number}", "node1", size=MIB) for number in range(6)]

    connected = await asyncio.gather(*(host.connect(export) for export in exports))

    assert len(set(connected)) == 6
    for number, (device, export) in enumerate(zip(connected, exports, strict=True)):
        write(device, bytes([number]) * 4096)
        assert content(lab.backing(export))[:4096] == bytes([number]) * 4096
    await asyncio.gather(*(host.disconnect(export.iqn) for export in exports))
    assert await host.connections() == []


# What is refused, leaving nothing


async def test_a_wrong_secret_is_rejected(lab: Lab, host: Connector) -> None:
    export = msgspec.structs.replace(lab.offer("one-1", "node1"), secret="another-secret-16")

    with pytest.raises(Rejected, match="secret is wrong"):
        await host.connect(export)

    assert leftovers(lab) == []


async def test_a_foreign_initiator_is_rejected(lab: Lab, host: Connector) -> None:
    export = msgspec.structs.replace(lab.offer("one-1", "node1"), initiator=initiator("node2"))

    with pytest.raises(Rejected, match="node2"):
        await host.connect(export)

    assert leftovers(lab) == []


async def test_an_absent_target_is_not_found(lab: Lab, host: Connector) -> None:
    export = msgspec.structs.replace(lab.offer("one-1", "node1"), iqn="iqn.2026-11.io.onelun.nas1:tank.one-10.e1")

    with pytest.raises(NotFound, match="one-10"):
        await host.connect(export)

    assert leftovers(lab) == []


async def test_a_closed_portal_is_unreachable_at_once(lab: Lab, host: Connector) -> None:
    export = msgspec.structs.replace(lab.offer("one-1", "node1"), portal=lab.closed)
    begun = time.monotonic()

    with pytest.raises(Unreachable, match=str(lab.closed.port)):
        await host.connect(export)

    # What waits for an answer waits for 3 s or longer.
    assert time.monotonic() - begun < 3
    assert leftovers(lab) == []


async def test_another_volume_behind_the_target_is_a_conflict(lab: Lab, host: Connector) -> None:
    export = msgspec.structs.replace(lab.offer("one-1", "node1"), uuid=str(uuids.uuid4()))

    with pytest.raises(Conflict, match=export.uuid):
        await host.connect(export)

    assert leftovers(lab) == []


async def test_another_size_is_a_conflict(lab: Lab, host: Connector) -> None:
    export = msgspec.structs.replace(lab.offer("one-1", "node1"), size_bytes=8 * MIB)

    with pytest.raises(Conflict, match=str(8 * MIB)):
        await host.connect(export)

    assert leftovers(lab) == []


async def test_a_target_that_became_another_volume_does_not_stay_connected(lab: Lab, host: Connector) -> None:
    export = lab.offer("one-1", "node1")
    await host.connect(export)
    lab.exchange(export, uuid=str(uuids.uuid4()))

    with pytest.raises(Conflict):
        await host.connect(export)

    assert leftovers(lab) == []


async def test_without_a_uuid_and_a_size_nothing_is_compared(lab: Lab, host: Connector) -> None:
    export = msgspec.structs.replace(lab.offer("one-1", "node1"), uuid=None, size_bytes=None)

    device = await host.connect(export)

    assert len(read(device, 4096)) == 4096


async def test_an_open_device_is_busy_and_stays_intact(lab: Lab, host: Connector) -> None:
    export = lab.offer("one-1", "node1")
    device = await host.connect(export)
    descriptor = os.open(device, os.O_RDWR)

    with pytest.raises(Busy, match="in use"):
        await host.disconnect(export.iqn)

    assert os.pwrite(descriptor, b"x" * 512, 0) == 512
    os.fsync(descriptor)
    os.close(descriptor)
    assert content(lab.backing(export))[:512] == b"x" * 512
    await host.disconnect(export.iqn)
    assert leftovers(lab) == []


async def test_force_disconnects_an_open_device(lab: Lab, host: Connector) -> None:
    export = lab.offer("one-1", "node1")
    descriptor = os.open(await host.connect(export), os.O_RDONLY)

    await host.disconnect(export.iqn, force=True)

    os.close(descriptor)
    assert await host.connections() == []
