"""The logging double shows what was asked of a real object, in order."""

import asyncio

import pytest
from tests.support import recording

from onelun.errors import CommandFailed
from onelun.model import Kind, Owner
from onelun.nas.backends.memory.backend import MemoryBackend

AGENT = "0b6a4e0e-57a1-4d7c-9a64-4d9d5f1d7a10"
UUID = "6b2f7a52-6a04-4e9b-9d0b-3a2f0c0a7a11"
PLAIN = Owner(kind=Kind.PLAIN)


@pytest.fixture
def log():
    return recording.Log()


@pytest.fixture
async def pool(log):
    made = recording.backend(MemoryBackend("tank"), log)
    await made.open(AGENT, None)
    return made


async def test_calls_are_kept_with_their_parameters_and_do_their_work(pool, log):
    await pool.create("one-1", UUID, 512, owner=PLAIN)
    await pool.publish(UUID)

    assert [entry["action"] for entry in log.all_logs()] == ["backend.create", "backend.publish"]
    assert log.logs_like("backend.create", name="one-1", size_bytes=512) == log.all_logs()[:1]
    assert log.logs_like("backend.create", name="one-2") == []
    assert (await pool.find("one-1")).uuid == UUID
    assert pool.pool == "tank"


async def test_looking_is_not_recorded_and_logs_are_cleared(pool, log):
    await pool.volumes()
    assert log.all_logs() == []

    await pool.create("one-1", UUID, 512, PLAIN)
    log.clear_logs()
    assert log.all_logs() == []


async def test_a_call_that_is_to_fail_does_nothing_or_has_done_its_work(pool, log):
    log.fail("backend.create", CommandFailed("no"))
    with pytest.raises(CommandFailed):
        await pool.create("one-1", UUID, 512, PLAIN)
    assert await pool.volumes() == []

    log.fail("backend.create", CommandFailed("no"), after=True)
    with pytest.raises(CommandFailed):
        await pool.create("one-1", UUID, 512, PLAIN)
    assert len(await pool.volumes()) == 1

    await pool.create("one-1", UUID, 512, PLAIN)


async def test_what_was_true_as_a_call_began_is_seen(pool, log):
    log.watch = lambda: len(pool.inner._shelf.by_uuid)

    await pool.create("one-1", UUID, 512, PLAIN)
    await pool.publish(UUID)

    assert [entry["seen"] for entry in log.all_logs()] == [0, 1]


async def test_calls_that_overlap_have_no_order(log):
    class Slow:
        async def export(self, target):
            await asyncio.sleep(0.01)

    slow = recording.exporter(Slow(), log)
    await asyncio.gather(slow.export("one"), slow.export("two"))

    with pytest.raises(AssertionError, match="began before"):
        log.actions()
