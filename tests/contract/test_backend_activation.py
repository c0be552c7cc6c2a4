"""Devices on every backend: there when they are asked for, and no trouble when nobody needs them."""

import asyncio
import os

import pytest
from tests.support.pools import AGENT, CLOUD, MIB, new, ready

from onelun.errors import NotFound
from onelun.model import Owner


async def test_an_activated_volume_has_its_device_where_it_is_told(pool):
    volume = await ready(pool, "one-1")

    path = await pool.backend.activate(volume)

    assert path == pool.backend.device(volume)
    assert not pool.devices or os.path.exists(path)


async def test_activating_again_gives_the_same_device(pool):
    volume = await ready(pool, "one-1", content=b"kept")

    first = await pool.backend.activate(volume)

    assert await pool.backend.activate(volume) == first
    successor = pool.again()
    await successor.open(AGENT, CLOUD)
    assert await successor.activate(volume) == first
    assert await pool.read(volume, 0, 4) == b"kept"


async def test_of_volumes_activated_at_once_one_that_is_gone_fails_alone(pool):
    volumes = [await ready(pool, f"one-{number}") for number in range(4)]
    await pool.backend.destroy(volumes[1])

    paths = await asyncio.gather(*map(pool.backend.activate, volumes), return_exceptions=True)

    assert isinstance(paths.pop(1), NotFound)
    del volumes[1]
    assert paths == [pool.backend.device(volume) for volume in volumes]
    assert not pool.devices or all(map(os.path.exists, paths))


async def test_a_building_volume_is_activated_for_its_builder(pool):
    built = await pool.backend.create("one-1", new(), MIB, Owner(kind="plain"))

    path = await pool.backend.activate(built)

    assert path == pool.backend.device(built)
    assert not pool.devices or os.path.exists(path)


async def test_activating_what_is_not_there_is_not_found(pool):
    volume = await ready(pool, "one-1")
    await pool.backend.destroy(volume)
    await ready(pool, "one-1")

    with pytest.raises(NotFound):
        await pool.backend.activate(volume)


async def test_deactivating_may_be_repeated_and_loses_nothing(pool):
    volume = await ready(pool, "one-1", content=b"kept")
    await pool.backend.activate(volume)

    await pool.backend.deactivate(volume)
    await pool.backend.deactivate(volume)

    assert await pool.backend.find("one-1") == volume
    assert await pool.read(volume, 0, 4) == b"kept"
    await pool.backend.destroy(volume)
    await pool.backend.deactivate(volume)


async def test_a_deactivated_volume_is_cloned_grown_and_destroyed(pool):
    volume = await ready(pool, "one-1", content=b"kept")
    await pool.backend.deactivate(volume)

    await pool.backend.snapshot(volume, "s1")
    grown = await pool.backend.grow(volume, 2 * MIB)
    reverted = await pool.backend.revert(grown, "s1")

    assert await pool.read(reverted, 0, 4) == b"kept"
    await pool.backend.deactivate(reverted)
    await pool.backend.destroy(reverted)
    assert await pool.backend.volumes() == []


async def test_an_open_device_stays_when_nobody_is_said_to_need_it(pool):
    volume = await ready(pool, "one-1", content=b"kept")
    path = await pool.backend.activate(volume)
    if not pool.devices:
        return
    descriptor = os.open(path, os.O_RDWR)

    try:
        await pool.backend.deactivate(volume)

        assert os.pread(descriptor, 4, 0) == b"kept"
        assert os.pwrite(descriptor, b"x" * 512, 0) == 512
        os.fsync(descriptor)
        assert os.path.exists(path)
    finally:
        os.close(descriptor)
    assert await pool.read(volume, 0, 512) == b"x" * 512
