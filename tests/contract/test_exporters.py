"""One suite for every exporter: what nas/exporters/base.py promises, seen from the initiator's side."""

import asyncio
import os
import secrets

import msgspec
import pytest
from tests.support.targets import MemoryNas, RefusedError

from onelun.errors import Conflict, NotFound, OnelunError, Rejected, Unreachable

MIB = 1 << 20
NODE1 = "iqn.2026-11.io.onelun.host:node1"
NODE2 = "iqn.2026-11.io.onelun.host:node2"


async def off(act, *args):
    """Let a blocking initiator work beside the loop."""
    return await asyncio.to_thread(act, *args)


def content_of(target, offset, length):
    with open(target.device, "rb") as file:
        file.seek(offset)
        return file.read(length)


# Exporting


async def test_the_right_initiator_writes_and_reads(nas, target):
    one = target()

    await nas.exporter.export(one)

    await off(nas.write, one, 4096, b"\x07" * 512)
    assert await off(nas.read, one, 4096, 512) == b"\x07" * 512
    assert content_of(one, 4096, 512) == b"\x07" * 512


async def test_the_unit_has_the_volumes_uuid_and_size(nas, target):
    one = target(size=5 * MIB + 512)

    await nas.exporter.export(one)

    assert await off(nas.identity, one) == (one.uuid, 5 * MIB + 512)


async def test_another_initiator_name_is_refused(nas, target):
    one = target()
    await nas.exporter.export(one)

    # Not in other letters: they are the same name (RFC 3722), and LIO takes them so.
    for name in (NODE2, NODE1 + "0", NODE1[:-1]):
        with pytest.raises(RefusedError):
            await off(nas.identity, msgspec.structs.replace(one, initiator=name))


async def test_a_wrong_secret_is_refused_and_so_is_none(nas, target):
    one = target()
    await nas.exporter.export(one)

    for secret in (secrets.token_hex(8), one.secret[:-1], ""):
        with pytest.raises(RefusedError):
            await off(nas.identity, msgspec.structs.replace(one, secret=secret))


async def test_the_account_of_one_target_does_not_open_another(nas, target):
    one = target("one-1")
    other = target("one-2")
    await nas.exporter.export(one)
    await nas.exporter.export(other)

    with pytest.raises(RefusedError):
        await off(nas.identity, msgspec.structs.replace(other, user=one.user, secret=one.secret))


async def test_a_read_only_target_refuses_writes(nas, target):
    one = target(readonly=True)
    await nas.exporter.export(one)

    with pytest.raises(RefusedError):
        await off(nas.write, one, 0, b"\x07" * 512)

    assert content_of(one, 0, 512) == bytes(512)
    assert await off(nas.identity, one) == (one.uuid, MIB)


async def test_exporting_again_changes_nothing(nas, target):
    one = target()
    await nas.exporter.export(one)
    before = await nas.exporter.exports()

    await nas.exporter.export(one)
    await nas.again().export(one)

    assert await nas.exporter.exports() == before
    assert await off(nas.identity, one) == (one.uuid, MIB)


async def test_exporting_again_with_a_new_secret_makes_it_the_one_that_counts(nas, target):
    one = target()
    await nas.exporter.export(one)
    anew = msgspec.structs.replace(one, secret=secrets.token_hex(8))

    await nas.again().export(anew)

    assert await off(nas.identity, anew) == (one.uuid, MIB)
    with pytest.raises(RefusedError):
        await off(nas.identity, one)


async def test_exporting_again_leaves_a_session_alone(nas, target):
    one = target()
    await nas.exporter.export(one)
    session = await off(nas.login, one)

    await nas.exporter.export(one)
    await nas.again().export(msgspec.structs.replace(one, secret=secrets.token_hex(8)))

    await off(session.write, 0, 9, 512)
    assert content_of(one, 0, 1) == b"\x09"
    session.close()


async def test_a_target_of_that_name_for_another_device_or_initiator_is_a_conflict(nas, target):
    one = target()
    other = target("one-2")
    await nas.exporter.export(one)
    before = await nas.exporter.exports()

    with pytest.raises(Conflict):
        await nas.exporter.export(msgspec.structs.replace(one, device=other.device))
    with pytest.raises(Conflict):
        await nas.exporter.export(msgspec.structs.replace(one, initiator=NODE2))

    assert await nas.exporter.exports() == before


async def test_an_absent_device_is_not_found_and_nothing_is_made(nas, target, tmp_path):
    one = msgspec.structs.replace(target(), device=str(tmp_path / "absent"))

    with pytest.raises(NotFound):
        await nas.exporter.export(one)

    assert await nas.exporter.exports() == {}


async def test_a_device_of_another_size_is_a_conflict_and_nothing_is_made(nas, target):
    one = msgspec.structs.replace(target(), size_bytes=2 * MIB)

    with pytest.raises(Conflict):
        await nas.exporter.export(one)

    assert await nas.exporter.exports() == {}


async def test_a_grown_volume_is_exported_with_its_new_size(nas, target):
    one = target()
    await nas.exporter.export(one)
    os.truncate(one.device, 8 * MIB)

    await nas.exporter.export(msgspec.structs.replace(one, size_bytes=8 * MIB))

    assert await off(nas.identity, one) == (one.uuid, 8 * MIB)


async def test_a_grown_volume_in_use_is_a_conflict(nas, target):
    one = target()
    await nas.exporter.export(one)
    session = await off(nas.login, one)
    os.truncate(one.device, 8 * MIB)

    with pytest.raises(Conflict):
        await nas.exporter.export(msgspec.structs.replace(one, size_bytes=8 * MIB))
    session.close()


async def test_a_target_in_use_does_not_become_read_only_or_writable(nas, target):
    one = target()
    await nas.exporter.export(one)
    session = await off(nas.login, one)

    with pytest.raises(Conflict):
        await nas.exporter.export(msgspec.structs.replace(one, readonly=True))

    await off(session.write, 0, 9, 512)
    session.close()


async def test_an_idle_target_becomes_read_only(nas, target):
    one = target()
    await nas.exporter.export(one)

    await nas.exporter.export(msgspec.structs.replace(one, readonly=True))

    with pytest.raises(RefusedError):
        await off(nas.write, one, 0, b"\x07" * 512)


@pytest.mark.parametrize(
    "changes",
    [
        {"iqn": "iqn.2026-11.io.onelun.nas2:tank.one-1.e1"},
        {"iqn": "iqn.2026-11.io.onelun.nas1:tank.one-1"},
        {"iqn": "iqn.2001-04.com.example:disk"},
        {"user": "somebody"},
        {"secret": "short"},
        {"secret": "with,comma,in,it"},
        {"secret": "with\nnewline-in-it"},
        {"initiator": "iqn.2026-11.x:A,B"},
        {"initiator": "ALL"},
        {"initiator": NODE1.upper()},
        {"uuid": "one,two"},
        {"device": "relative"},
        {"device": "/tmp/a,bstype=null"},
        {"device": "/tmp/a\nb"},
        {"device": "/dev/null"},
    ],
)
async def test_what_cannot_be_a_target_is_refused_and_nothing_is_made(nas, target, changes):
    with pytest.raises(Rejected) as caught:
        await nas.exporter.export(msgspec.structs.replace(target(), **changes))

    assert "secret" not in changes or changes["secret"] not in str(caught.value)
    assert await nas.exporter.exports() == {}


# Listing


async def test_the_list_tells_devices_initiators_and_sessions(nas, target):
    one = target()
    await nas.exporter.export(one)
    (idle,) = (await nas.exporter.exports()).values()
    session = await off(nas.login, one)

    (busy,) = (await nas.exporter.exports()).values()

    assert (idle.iqn, idle.device, idle.initiators, idle.sessions) == (one.iqn, one.device, (NODE1,), ())
    assert busy.sessions == (NODE1,)
    session.close()


async def test_names_are_compared_whole(nas, target):
    targets = [target(f"one-{number}", epoch=epoch) for number in (1, 10, 100) for epoch in (1, 10)]
    for one in targets:
        await nas.exporter.export(one)

    await nas.exporter.unexport(targets[0].iqn)

    assert set(await nas.exporter.exports()) == {one.iqn for one in targets[1:]}
    assert await off(nas.identity, targets[1]) == (targets[1].uuid, MIB)


async def test_two_epochs_of_one_volume_live_side_by_side(nas, target):
    old = target(epoch=1)
    now = target(epoch=2, initiator=NODE2, uuid=old.uuid)
    await nas.exporter.export(old)
    await nas.exporter.export(now)

    await off(nas.write, old, 0, b"\x01" * 512)
    assert await off(nas.read, now, 0, 512) == b"\x01" * 512

    await nas.exporter.unexport(old.iqn)
    assert await off(nas.identity, now) == (old.uuid, MIB)
    with pytest.raises(RefusedError):
        await off(nas.identity, old)


@pytest.mark.long
async def test_a_hundred_targets_are_made_at_once(nas, target):
    targets = [target(f"one-{number}") for number in range(100)]

    await asyncio.gather(*(nas.exporter.export(one) for one in targets))

    assert set(await nas.exporter.exports()) == {one.iqn for one in targets}
    for one in (targets[1], targets[10], targets[99]):
        assert await off(nas.identity, one) == (one.uuid, MIB)
    await asyncio.gather(*(nas.exporter.unexport(one.iqn) for one in targets))
    assert await nas.exporter.exports() == {}


# Fencing


async def test_an_unexported_target_is_gone(nas, target):
    one = target()
    await nas.exporter.export(one)

    await nas.exporter.unexport(one.iqn)

    assert await nas.exporter.exports() == {}
    with pytest.raises(RefusedError):
        await off(nas.identity, one)


async def test_unexporting_again_or_what_never_was_succeeds(nas, target):
    one = target()
    await nas.exporter.unexport(one.iqn)
    await nas.exporter.export(one)
    await nas.exporter.unexport(one.iqn)

    await nas.exporter.unexport(one.iqn)

    assert await nas.exporter.exports() == {}


async def test_after_unexport_a_session_writes_no_more(nas, target):
    one = target()
    await nas.exporter.export(one)
    session = await off(nas.login, one)
    await off(session.write, 0, 1, 512)

    await nas.exporter.unexport(one.iqn)

    assert await nas.exporter.exports() == {}
    if isinstance(nas, MemoryNas):
        with pytest.raises(RefusedError):
            session.write(0, 2, 512)
    else:
        # It tries to log in again and again, and its write hangs in it until then.
        writing = asyncio.create_task(off(session.write, 0, 2, 512))
        await asyncio.sleep(0.5)
        session.kill()
        with pytest.raises(RefusedError):
            await writing
    assert content_of(one, 0, 512) == b"\x01" * 512


async def test_the_next_epoch_is_not_reached_by_the_old_session(nas, target):
    old = target(epoch=1)
    await nas.exporter.export(old)
    session = await off(nas.login, old)

    await nas.exporter.unexport(old.iqn)
    now = target(epoch=2, initiator=NODE2, uuid=old.uuid)
    await nas.exporter.export(now)

    await off(nas.write, now, 0, b"\x05" * 512)
    # The writer has logged out; LIO may list its session for a moment more.
    assert old.initiator not in (await nas.exporter.exports())[now.iqn].sessions
    session.close()
    assert content_of(old, 0, 512) == b"\x05" * 512


async def test_only_targets_of_this_nas_are_unexported(nas):
    for iqn in ("iqn.2026-11.io.onelun.nas2:tank.one-1.e1", "iqn.2001-04.com.example:disk", ""):
        with pytest.raises(Rejected):
            await nas.exporter.unexport(iqn)


# The daemon


async def test_without_the_daemon_everything_is_unreachable(nas, target):
    one = target()
    await nas.exporter.export(one)
    nas.stop()

    for asked in (nas.exporter.export(one), nas.exporter.unexport(one.iqn), nas.exporter.exports()):
        with pytest.raises(Unreachable, match=r"start it|modprobe"):
            await asked


async def test_a_secret_is_in_no_error_and_no_representation(nas, target):
    one = target()
    nas.stop()

    with pytest.raises(OnelunError) as caught:
        await nas.exporter.export(one)

    assert one.secret not in str(caught.value) + repr(caught.value.facts) + repr(one)
