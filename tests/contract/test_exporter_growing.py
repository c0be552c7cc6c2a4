"""Growing under an exporter, and what it says that it lacks: what nas/exporters/base.py promises."""

import asyncio
import os

import msgspec
import pytest
from tests.support.targets import RefusedError

from onelun.errors import Busy, Conflict, NotFound, Unreachable

MIB = 1 << 20


def longer(one, size=8 * MIB):
    """The target of the volume, which has grown."""
    os.truncate(one.device, size)
    return msgspec.structs.replace(one, size_bytes=size)


def content_of(target):
    with open(target.device, "rb") as file:
        return file.read()


async def off(act, *args):
    """Let a blocking initiator work beside the loop."""
    return await asyncio.to_thread(act, *args)


async def test_a_grown_volume_is_seen_in_its_new_size(nas, target):
    one = target()
    await nas.exporter.export(one)
    await off(nas.write, one, 0, b"\x07" * 512)
    grown = longer(one)

    await nas.exporter.grow(grown)

    assert await off(nas.identity, grown) == (one.uuid, 8 * MIB)
    await off(nas.write, grown, 8 * MIB - 512, b"\x09" * 512)
    assert await off(nas.read, grown, 0, 512) == b"\x07" * 512
    assert content_of(one)[-512:] == b"\x09" * 512


async def test_growing_again_does_nothing(nas, target):
    one = target()
    await nas.exporter.export(one)
    grown = longer(one)
    await nas.exporter.grow(grown)
    before = await nas.exporter.exports()

    await nas.exporter.grow(grown)
    await nas.again().grow(grown)
    await nas.exporter.export(grown)

    assert await nas.exporter.exports() == before
    assert await off(nas.identity, grown) == (one.uuid, 8 * MIB)


async def test_growing_by_one_block_is_seen(nas, target):
    one = target()
    await nas.exporter.export(one)
    grown = longer(one, MIB + 512)

    await nas.exporter.grow(grown)

    assert await off(nas.identity, grown) == (one.uuid, MIB + 512)


async def test_a_session_grows_or_is_busy_and_is_never_hurt(nas, target):
    one = target()
    await nas.exporter.export(one)
    session = await off(nas.login, one)
    await off(session.write, 0, 1, 512)
    grown = longer(one)

    (outcome,) = await asyncio.gather(nas.exporter.grow(grown), return_exceptions=True)

    assert outcome is None or (isinstance(outcome, Busy) and "detach" in str(outcome))
    await off(session.write, 512, 2, 512)
    assert content_of(one)[:1024] == b"\x01" * 512 + b"\x02" * 512
    (listed,) = (await nas.exporter.exports()).values()
    assert listed.sessions == (one.initiator,)
    session.close()


async def test_what_was_busy_grows_when_the_session_has_ended(nas, target):
    one = target()
    await nas.exporter.export(one)
    session = await off(nas.login, one)
    grown = longer(one)
    await asyncio.gather(nas.exporter.grow(grown), return_exceptions=True)
    session.close()
    async with asyncio.timeout(60):
        while (await nas.exporter.exports())[one.iqn].sessions:
            await asyncio.sleep(0.05)

    await nas.exporter.grow(grown)

    assert await off(nas.identity, grown) == (one.uuid, 8 * MIB)


async def test_only_the_volume_that_grew_is_touched(nas, target):
    one, ten = target("one-1"), target("one-10")
    await nas.exporter.export(one)
    await nas.exporter.export(ten)
    session = await off(nas.login, ten)

    await nas.exporter.grow(longer(one))

    await off(session.write, 0, 9, 512)
    session.close()
    assert await off(nas.identity, ten) == (ten.uuid, MIB)


async def test_growing_an_absent_target_is_not_found_and_makes_none(nas, target):
    with pytest.raises(NotFound):
        await nas.exporter.grow(target())

    assert await nas.exporter.exports() == {}


async def test_a_device_of_another_size_is_a_conflict_and_nothing_changes(nas, target):
    one = target()
    await nas.exporter.export(one)

    with pytest.raises(Conflict):
        await nas.exporter.grow(msgspec.structs.replace(one, size_bytes=2 * MIB))

    assert await off(nas.identity, one) == (one.uuid, MIB)


async def test_a_grown_target_admits_whom_it_admitted_and_nobody_else(nas, target):
    one = target()
    await nas.exporter.export(one)
    grown = longer(one)

    await nas.exporter.grow(grown)

    with pytest.raises(RefusedError):
        await off(nas.identity, msgspec.structs.replace(grown, secret="another-secret-16"))
    with pytest.raises(RefusedError):
        await off(nas.identity, msgspec.structs.replace(grown, initiator="iqn.2026-11.io.onelun.host:node2"))


async def test_a_grown_read_only_target_stays_read_only(nas, target):
    one = target(readonly=True)
    await nas.exporter.export(one)
    grown = longer(one)

    await nas.exporter.grow(grown)

    assert await off(nas.identity, grown) == (one.uuid, 8 * MIB)
    with pytest.raises(RefusedError):
        await off(nas.write, grown, 0, b"\x07" * 512)


# What is missing


async def test_of_a_target_daemon_in_order_nothing_is_said(nas, target):
    assert await nas.exporter.check() == []

    await nas.exporter.export(target())

    assert await nas.exporter.check() == []


async def test_checking_changes_nothing(nas, target):
    one = target()
    await nas.exporter.export(one)
    before = await nas.exporter.exports()

    await nas.exporter.check()

    assert await nas.exporter.exports() == before


async def test_a_target_daemon_that_is_not_there_is_one_sentence(nas, target):
    nas.stop()

    found = await nas.exporter.check()

    assert len(found) == 1
    assert "\n" not in found[0]
    with pytest.raises(Unreachable):
        await nas.exporter.grow(target())
