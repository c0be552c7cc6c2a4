"""When a host is ready for its VMs after a boot."""

import asyncio

from onelun.compute.readiness import Readiness


async def test_a_host_that_had_nothing_is_ready_at_once(tmp_path):
    assert await Readiness(str(tmp_path / "nas.json")).wait(0.05) == frozenset()


async def test_after_a_boot_each_nas_that_had_something_here_is_awaited(tmp_path):
    path = str(tmp_path / "nas.json")
    Readiness(path).holds({"nas1", "nas2"})
    booted = Readiness(path)
    waiting = asyncio.create_task(booted.wait(60))

    booted.synced("nas1")
    await asyncio.sleep(0)
    early = waiting.done()
    booted.synced("nas2")

    assert not early
    assert await waiting == frozenset()


async def test_a_nas_that_stays_away_holds_the_host_up_no_longer_than_its_limit(tmp_path):
    path = str(tmp_path / "nas.json")
    Readiness(path).holds({"nas1"})

    missing = await Readiness(path).wait(0.05)

    assert missing == {"nas1"}


async def test_a_nas_that_has_nothing_here_any_more_is_not_awaited(tmp_path):
    path = str(tmp_path / "nas.json")
    before = Readiness(path)
    before.holds({"nas1", "nas2"})
    before.holds({"nas2"})
    booted = Readiness(path)

    booted.synced("nas2")

    assert await booted.wait(0.05) == frozenset()


async def test_a_nas_that_has_not_come_back_yet_is_awaited_after_the_next_boot_too(tmp_path):
    path = str(tmp_path / "nas.json")
    Readiness(path).holds({"nas1"})
    Readiness(path).holds(set())

    assert await Readiness(path).wait(0.05) == {"nas1"}


async def test_a_damaged_file_holds_nobody_up(tmp_path):
    path = tmp_path / "nas.json"
    path.write_text("{")

    assert await Readiness(str(path)).wait(0.05) == frozenset()
