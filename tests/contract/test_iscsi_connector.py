"""What only the kernel's initiator can show: sessions that outlive their NAS, records, iscsid, and others on the same host.

The twenty behaviours of initiators that are known from Cinder's os-brick, and where each is held to account here. M is
tests/contract/test_connectors.py, U are those in tests/unit/compute/connectors/iscsi.

 1 the order of steps             test_one_connect_is_one_login_and_no_discovery
 2 a session that exists          M connecting twice; test_a_session_with_an_old_secret_is_made_anew
 3 the portal in another spelling test_a_portal_in_another_spelling_is_the_same_session
 4 a login that fails             M a wrong secret is rejected; U a record never logs in by itself
 5 a database that is locked      test_a_lock_that_a_killed_iscsiadm_left_is_broken
 6 number and time of scans       test_an_absent_lun_is_not_found_in_time (one scan, and a stop at the deadline)
 7 clean-up before the error      the same, and M whatever is refused leaves nothing
 8 some paths of several fail     no: there is one path; a NAS's portal that is to survive a cable is bonded or moved
 9 our LUN among a session's      test_a_session_whose_other_lun_is_in_use_stays_without_ours
10 a session in use by others     the same
11 force goes through every step  test_force_ends_in_time_without_an_answer_of_iscsid
12 nothing to clean               M disconnecting an absent target succeeds
13 a record that is gone already   test_a_session_ends_although_its_record_is_gone
14 a flush that fails             test_a_flush_that_fails_removes_nothing
15 multipathd keeps a path        no: there is no multipath device (see 8)
16 a device that does not go      test_force_frees_a_writer_behind_a_cut_cable_in_time
17 only the used path is flushed  no: there is one path
18 parsers survive noise          U noise is passed over
19 no secret in a log             test_nothing_shows_the_secret
20 a disk, not its partition      test_a_partitioned_volume_is_the_disk_and_its_partitions_count_as_use; LUNs above 255 are
                                  refused where a request is read (compute/wanted.py)
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest
from tests.support.blocks import content, forget, leftovers, open_device, read, run, start_writer, write, write_to
from tests.support.cable import Cable
from tests.support.iscsi import MIB, SECRET, Lab
from tests.support.iscsi import lab as make_lab
from tests.support.iscsi_open import (
    NODES,
    OpenIscsiLab,
    iscsid_pid,
    records,
    sessions,
    without_iscsid,
)
from tests.support.requires import guest

from onelun.compute.connectors.base import Export
from onelun.compute.connectors.iscsi import stop
from onelun.compute.connectors.iscsi.connector import IscsiConnector
from onelun.compute.tending import tending
from onelun.errors import Busy, CommandFailed, Conflict, NotFound, OnelunError, Unreachable
from onelun.model import Portal

pytestmark = guest("iscsi")

FOREIGN = "iqn.2001-04.com.example:foreign"


@pytest.fixture
async def iscsi() -> AsyncIterator[OpenIscsiLab]:
    with make_lab(OpenIscsiLab) as place:
        assert isinstance(place, OpenIscsiLab)
        yield place
        await forget(place)


@pytest.fixture
async def lio() -> AsyncIterator[Lab]:
    # rtslib is there in a guest alone.
    from tests.support.iscsi_lio import LioLab

    with make_lab(LioLab) as place:
        yield place
        await forget(place)


@pytest.fixture
def node1(iscsi: OpenIscsiLab) -> IscsiConnector:
    return iscsi.connector("node1")


@pytest.fixture
def cable(iscsi: OpenIscsiLab) -> Iterator[Cable]:
    with Cable(iscsi.portal) as made:
        yield made
        made.heal()


def by(cable: Cable, export: Export) -> Export:
    return msgspec.structs.replace(export, portal=cable.portal)


async def open_up(connector: IscsiConnector, export: Export) -> tuple[str, int]:
    device = await connector.connect(export)
    return device, os.open(device, os.O_RDWR)


async def comes(*wanted: object, within_s: float = 30.0) -> None:
    """Wait until every condition holds."""
    until = time.monotonic() + within_s
    while not all(met() for met in wanted):  # type: ignore[operator]
        assert time.monotonic() < until, "it did not come about in time"
        await asyncio.sleep(0.1)


def state(export: Export) -> str:
    for place in Path("/sys/class/iscsi_session").glob("session*"):
        if (place / "targetname").read_text().strip() == export.iqn:
            return (place / "state").read_text().strip()
    return "gone"


# Login


async def test_one_connect_is_one_login_and_no_discovery(
    iscsi: OpenIscsiLab, node1: IscsiConnector, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    export = iscsi.offer("one-1", "node1")

    await node1.connect(export)
    await node1.connect(export)

    asked = [line for line in caplog.messages if line.startswith("command argv=iscsiadm")]
    assert len(asked) == 1
    assert asked[0].startswith(f"command argv=iscsiadm -m node -T {export.iqn} -p {iscsi.portal} --login ")
    scans = [line for line in caplog.messages if "scsi_host" in line]
    assert len(scans) == 1
    assert len(sessions("node1")) == 1


async def test_a_session_is_of_our_initiator_and_not_of_the_hosts_own(
    iscsi: OpenIscsiLab, node1: IscsiConnector
) -> None:
    own = Path("/etc/iscsi/initiatorname.iscsi").read_text()
    export = iscsi.offer("one-1", "node1")
    assert export.initiator not in own

    await node1.connect(export)

    assert export.initiator in iscsi.sessions()


async def test_nothing_shows_the_secret(
    iscsi: OpenIscsiLab, node1: IscsiConnector, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    export = iscsi.offer("one-1", "node1")

    await node1.connect(export)
    await node1.disconnect(export.iqn)
    with pytest.raises(OnelunError) as caught:
        await node1.connect(msgspec.structs.replace(export, secret="another-secret-16"))

    assert any("iscsiadm" in line for line in caplog.messages)
    assert SECRET not in caplog.text
    assert "another-secret-16" not in caplog.text + caught.value.sentence


async def test_a_record_is_roots_alone_and_logs_in_only_when_asked(iscsi: OpenIscsiLab, node1: IscsiConnector) -> None:
    await node1.connect(iscsi.offer("one-1", "node1"))

    (path,) = records("node1")
    shown = iscsiadm("-m", "node", "-T", Path(path).parent.name, "-p", str(iscsi.portal))

    assert os.stat(path).st_mode & 0o777 == 0o600
    assert "node.startup = manual" in shown
    assert "node.session.scan = manual" in shown
    assert "node.session.timeo.replacement_timeout = 86400" in shown
    assert "node.session.auth.authmethod = CHAP" in shown
    assert "iface.iscsi_ifacename = onelun.node1" in shown


async def test_a_portal_in_another_spelling_is_the_same_session(iscsi: OpenIscsiLab, node1: IscsiConnector) -> None:
    with Cable(iscsi.portal, "::1") as cable:
        export = by(cable, iscsi.offer("one-1", "node1"))
        device = await node1.connect(export)
        spelt = Portal("0:0:0:0:0:0:0:1", cable.portal.port)

        again = await node1.connect(msgspec.structs.replace(export, portal=spelt))

        assert again == device
        assert len(sessions("node1")) == 1
        await node1.disconnect(export.iqn)


async def test_a_session_with_an_old_secret_is_made_anew(iscsi: OpenIscsiLab, node1: IscsiConnector) -> None:
    export = iscsi.offer("one-1", "node1")
    await node1.connect(export)
    before = sessions("node1")
    # As an account of tgt does, the new one counts from the next login.
    other = iscsi.account(export, "one-1-other", "another-secret-16")

    device = await node1.connect(other)

    assert sessions("node1") != before
    assert len(sessions("node1")) == len(records("node1")) == 1
    assert len(read(device, 512)) == 512


async def test_a_session_with_an_old_secret_stays_while_it_is_in_use(
    iscsi: OpenIscsiLab, node1: IscsiConnector
) -> None:
    export = iscsi.offer("one-1", "node1")
    device, descriptor = await open_up(node1, export)
    before = sessions("node1")

    again = await node1.connect(iscsi.account(export, "one-1-other", "another-secret-16"))

    assert (again, sessions("node1")) == (device, before)
    assert len(os.pread(descriptor, 512, 0)) == 512
    os.close(descriptor)


async def test_an_absent_lun_is_not_found_in_time(iscsi: OpenIscsiLab, node1: IscsiConnector) -> None:
    export = msgspec.structs.replace(iscsi.offer("one-1", "node1"), lun=7)
    begun = time.monotonic()

    with pytest.raises(NotFound, match="LUN 7"):
        await node1.connect(export)

    assert time.monotonic() - begun < 10
    assert leftovers(iscsi) == []


async def test_a_portal_that_takes_connections_and_says_nothing_is_unreachable(
    iscsi: OpenIscsiLab, node1: IscsiConnector, cable: Cable
) -> None:
    cable.cut()
    begun = time.monotonic()

    with pytest.raises(Unreachable, match="answers no login"):
        await node1.connect(by(cable, iscsi.offer("one-1", "node1")))

    assert time.monotonic() - begun < 10
    assert leftovers(iscsi) == []


@pytest.mark.timeout(300)
async def test_a_dead_portal_holds_up_no_other(iscsi: OpenIscsiLab, node1: IscsiConnector, cable: Cable) -> None:
    cable.cut()
    dead = [by(cable, iscsi.offer(f"one-{number}", "node1", size=MIB)) for number in range(100, 112)]
    good = [iscsi.offer(f"one-{number}", "node1", size=MIB) for number in range(4)]
    failing = [asyncio.create_task(node1.connect(export)) for export in dead]

    connected = await asyncio.gather(*(node1.connect(export) for export in good))

    assert len(set(connected)) == 4
    answers = await asyncio.gather(*failing, return_exceptions=True)
    assert all(isinstance(answer, Unreachable) for answer in answers)
    assert len(sessions("node1")) == len(records("node1")) == 4


@pytest.mark.timeout(600)
@pytest.mark.long
async def test_fifty_targets_come_and_go_at_once(iscsi: OpenIscsiLab, node1: IscsiConnector) -> None:
    exports = [iscsi.offer(f"one-{number}", "node1", size=MIB) for number in range(50)]

    connected = await asyncio.gather(*(node1.connect(export) for export in exports))

    assert len(set(connected)) == len(sessions("node1")) == len(records("node1")) == 50
    for number, (device, export) in enumerate(zip(connected, exports, strict=True)):
        write(device, bytes([number]) * 512)
        assert content(iscsi.backing(export))[:512] == bytes([number]) * 512
    await asyncio.gather(*(node1.disconnect(export.iqn) for export in exports))
    assert leftovers(iscsi) == []


@pytest.mark.parametrize("delay_ms", [0, 5, 20, 50, 100, 150, 200, 300, 400, 600, 900])
async def test_a_cancelled_connect_leaves_nothing(iscsi: OpenIscsiLab, node1: IscsiConnector, delay_ms: int) -> None:
    export = iscsi.offer("one-1", "node1")
    connecting = asyncio.create_task(node1.connect(export))
    await asyncio.sleep(delay_ms / 1000)

    connecting.cancel()
    await asyncio.wait([connecting])

    if not connecting.cancelled():
        await node1.disconnect(export.iqn)
    assert leftovers(iscsi) == []
    assert len(read(await node1.connect(export), 512)) == 512


async def test_a_lock_that_a_killed_iscsiadm_left_is_broken(iscsi: OpenIscsiLab, node1: IscsiConnector) -> None:
    Path("/run/lock/iscsi").mkdir(parents=True, exist_ok=True)
    Path("/run/lock/iscsi/lock").touch()
    os.link("/run/lock/iscsi/lock", "/run/lock/iscsi/lock.write")
    await asyncio.sleep(10.5)

    device = await node1.connect(iscsi.offer("one-1", "node1"))

    assert len(read(device, 512)) == 512


# The device


async def test_a_partitioned_volume_is_the_disk_and_its_partitions_count_as_use(
    iscsi: OpenIscsiLab, node1: IscsiConnector
) -> None:
    export = iscsi.offer("one-1", "node1")
    table = bytearray(512)
    table[446:462] = struct.pack("<B3sB3sII", 0, b"", 0x83, b"", 2048, 8192)
    table[510:] = b"\x55\xaa"
    Path(iscsi.backing(export)).write_bytes(table + bytes(16 * MIB - 512))

    device = await node1.connect(export)

    partition = f"{device}1"
    await comes(lambda: os.path.exists(partition))
    descriptor = os.open(partition, os.O_RDONLY)
    with pytest.raises(Busy, match="in use"):
        await node1.disconnect(export.iqn)
    os.close(descriptor)
    await node1.disconnect(export.iqn)
    assert not os.path.exists(partition)


async def test_a_mounted_device_is_busy(iscsi: OpenIscsiLab, node1: IscsiConnector) -> None:
    export = iscsi.offer("one-1", "node1")
    device = await node1.connect(export)
    run("mkfs.ext4", "-q", device)
    place = f"{iscsi.directory}/mounted"
    os.mkdir(place)
    run("mount", device, place)

    try:
        with pytest.raises(Busy, match=f"mounted on {place}"):
            await node1.disconnect(export.iqn)
    finally:
        run("umount", place)

    await node1.disconnect(export.iqn)
    assert leftovers(iscsi) == []


async def test_a_readonly_export_takes_no_write(iscsi: OpenIscsiLab, node1: IscsiConnector) -> None:
    device = await node1.connect(iscsi.offer("one-1", "node1", readonly=True))

    with pytest.raises(OSError, match=r"not permitted|Read-only"):
        write(device, b"x" * 4096)

    assert len(read(device, 4096)) == 4096


async def test_a_readonly_export_of_a_target_that_would_take_writes_takes_none(
    iscsi: OpenIscsiLab, node1: IscsiConnector
) -> None:
    device = await node1.connect(msgspec.structs.replace(iscsi.offer("one-1", "node1"), readonly=True))

    with pytest.raises(OSError, match=r"not permitted|Read-only"):
        write(device, b"x" * 4096)


async def test_udev_is_through_with_a_device_that_connect_returns(iscsi: OpenIscsiLab, node1: IscsiConnector) -> None:
    device = await node1.connect(iscsi.offer("one-1", "node1"))
    os.chown(device, 1234, 1235)

    await asyncio.sleep(1)

    assert (os.stat(device).st_uid, os.stat(device).st_gid) == (1234, 1235)


async def test_the_identity_is_the_targets_of_now_and_not_the_kernels_of_then(
    iscsi: OpenIscsiLab, node1: IscsiConnector
) -> None:
    """What a LUN is may change under a session that stays; the kernel does not look again by itself."""
    export = iscsi.offer("one-1", "node1")
    _, descriptor = await open_up(node1, export)
    iscsi.rename(export, "11111111-1111-1111-1111-111111111111")

    with pytest.raises(Conflict, match="11111111"):
        await node1.connect(export)

    assert len(os.pread(descriptor, 512, 0)) == 512
    os.close(descriptor)


@pytest.mark.guest("lio")
async def test_a_device_grows_while_it_is_open(lio: Lab) -> None:
    node1 = lio.connector("node1")
    export = lio.offer("one-1", "node1")
    device = await node1.connect(export)
    descriptor = os.open(device, os.O_RDWR)
    lio.grow(export, 32 * MIB)
    assert os.lseek(descriptor, 0, os.SEEK_END) == 16 * MIB

    assert await node1.grow(export.iqn, 32 * MIB) == device
    assert await node1.grow(export.iqn, 32 * MIB) == device

    assert os.pwrite(descriptor, b"g" * 4096, 32 * MIB - 4096) == 4096
    os.fsync(descriptor)
    os.close(descriptor)
    assert content(lio.backing(export))[-4096:] == b"g" * 4096


@pytest.mark.guest("lio")
async def test_a_device_grows_to_no_other_size_than_its_luns(lio: Lab) -> None:
    node1 = lio.connector("node1")
    export = lio.offer("one-1", "node1")
    await node1.connect(export)

    with pytest.raises(Conflict, match=str(16 * MIB)):
        await node1.grow(export.iqn, 32 * MIB)
    with pytest.raises(NotFound):
        await node1.grow("iqn.2026-11.io.onelun.nas1:tank.one-10.e1", 32 * MIB)


@pytest.mark.guest("lio")
async def test_connecting_again_takes_over_a_size_that_has_grown(lio: Lab) -> None:
    node1 = lio.connector("node1")
    export = lio.offer("one-1", "node1")
    device = await node1.connect(export)
    lio.grow(export, 32 * MIB)

    assert await node1.connect(msgspec.structs.replace(export, size_bytes=32 * MIB)) == device

    assert len(read(device, 4096, 32 * MIB - 4096)) == 4096


@pytest.mark.guest("lio")
async def test_the_lun_is_the_one_that_is_asked_for_or_the_one_there_is(lio: Lab) -> None:
    node1 = lio.connector("node1")
    export = lio.offer("one-1", "node1")

    with pytest.raises(NotFound, match="LUN 1"):
        await node1.connect(msgspec.structs.replace(export, lun=1))
    assert leftovers(lio) == []
    device = await node1.connect(msgspec.structs.replace(export, lun=0))
    assert await node1.connect(export) == device


# Others on the same host


async def test_a_session_whose_other_lun_is_in_use_stays_without_ours(
    iscsi: OpenIscsiLab, node1: IscsiConnector
) -> None:
    export = iscsi.offer("one-1", "node1")
    await node1.connect(export)
    other = iscsi.second_lun(export, 3)
    descriptor = os.open(other, os.O_RDONLY)

    await node1.disconnect(export.iqn)
    await node1.disconnect(export.iqn)

    assert await node1.connections() == []
    assert len(sessions("node1")) == 1
    assert len(os.pread(descriptor, 512, 0)) == 512
    assert len(read(await node1.connect(export), 512)) == 512
    assert [one.alive for one in await node1.connections()] == [True]
    os.close(descriptor)
    await node1.disconnect(export.iqn)
    assert leftovers(iscsi) == []


async def test_sessions_and_records_of_others_are_left_alone(iscsi: OpenIscsiLab, node1: IscsiConnector) -> None:
    export = iscsi.offer("one-1", "node1")
    by_hand = ("-m", "node", "-T", FOREIGN, "-p", str(iscsi.portal))
    with iscsi.foreign(FOREIGN):
        iscsiadm(*by_hand, "--op", "new")
        iscsiadm(*by_hand, "--login")
        try:
            await node1.settle()
            await node1.connect(export)
            assert [one.iqn for one in await node1.connections()] == [export.iqn]
            await node1.disconnect(export.iqn)
            await node1.disconnect(FOREIGN, force=True)
            await node1.settle()

            assert FOREIGN in iscsiadm("-m", "session")
            assert os.path.exists(f"{NODES}/{FOREIGN}")
        finally:
            iscsiadm(*by_hand, "--logout")
            iscsiadm(*by_hand, "--op", "delete")


async def test_one_hosts_sessions_are_none_of_anothers(iscsi: OpenIscsiLab, node1: IscsiConnector) -> None:
    other = iscsi.connector("node2")
    await node1.connect(iscsi.offer("one-1", "node1"))
    await other.connect(iscsi.offer("one-12", "node2"))

    await node1.settle()
    await node1.disconnect("iqn.2026-11.io.onelun.nas1:tank.one-12.e1", force=True)

    assert [one.iqn for one in await other.connections()] == ["iqn.2026-11.io.onelun.nas1:tank.one-12.e1"]
    assert [one.alive for one in await other.connections()] == [True]


# What an agent that was killed left


async def test_a_start_clears_away_what_was_not_verified(iscsi: OpenIscsiLab, node1: IscsiConnector) -> None:
    kept, half = iscsi.offer("one-1", "node1"), iscsi.offer("one-2", "node1")
    await node1.connect(kept)
    await node1.connect(half)
    os.unlink(f"{iscsi.directory}/node1/{half.iqn}")

    await iscsi.connector("node1").settle()

    assert [(one.iqn, one.alive) for one in await node1.connections()] == [(kept.iqn, True)]
    assert len(sessions("node1")) == len(records("node1")) == 1


async def test_a_start_leaves_what_was_not_verified_and_is_open(iscsi: OpenIscsiLab, node1: IscsiConnector) -> None:
    export = iscsi.offer("one-1", "node1")
    _, descriptor = await open_up(node1, export)
    os.unlink(f"{iscsi.directory}/node1/{export.iqn}")

    await iscsi.connector("node1").settle()

    assert len(os.pread(descriptor, 512, 0)) == 512
    os.close(descriptor)
    await node1.settle()
    assert leftovers(iscsi) == []


async def test_a_start_removes_records_and_notes_without_a_session(iscsi: OpenIscsiLab, node1: IscsiConnector) -> None:
    export = iscsi.offer("one-1", "node1")
    await node1.connect(export)
    # As after a reboot: the database is on a disk, the sessions are not.
    iscsiadm("-m", "node", "-T", export.iqn, "-p", str(iscsi.portal), "--logout")
    assert len(records("node1")) == 1

    await iscsi.connector("node1").settle()

    assert leftovers(iscsi) == []


async def test_a_session_ends_although_its_record_is_gone(iscsi: OpenIscsiLab, node1: IscsiConnector) -> None:
    export = iscsi.offer("one-1", "node1")
    await node1.connect(export)
    iscsiadm("-m", "node", "-T", export.iqn, "-p", str(iscsi.portal), "--op", "delete", check=False)
    for path in records("node1"):
        os.unlink(path)

    await node1.disconnect(export.iqn)

    assert leftovers(iscsi) == []


# A NAS that is away


async def test_a_writer_goes_on_when_the_nas_is_back(iscsi: OpenIscsiLab, node1: IscsiConnector) -> None:
    export = iscsi.offer("one-1", "node1")
    # Opened before the NAS goes away: whoever opens a device only then may wait in the kernel, where nobody sees it.
    descriptor = open_device(await node1.connect(export), os.O_WRONLY)
    write_to(descriptor, b"1" * 4096)
    iscsi.restart()
    await comes(lambda: state(export) == "FAILED")

    writing = asyncio.create_task(asyncio.to_thread(write_to, descriptor, b"2" * 4096, 4096))
    async with tending(node1, every_s=1):
        # Refused by a NAS that is there and has no targets yet, which may leave it to the agent to wake the session.
        await asyncio.sleep(15)
        assert not writing.done()
        assert [one.alive for one in await node1.connections()] == [True]
        iscsi.offer("one-1", "node1")
        await asyncio.wait_for(writing, 40)
    os.close(descriptor)

    assert content(iscsi.backing(export))[:8192] == b"1" * 4096 + b"2" * 4096


async def test_a_session_that_has_just_come_back_is_not_woken(iscsi: OpenIscsiLab, node1: IscsiConnector) -> None:
    """iscsid would not hear of it, and leave the session down for ever."""
    export = iscsi.offer("one-1", "node1")
    device = await node1.connect(export)
    handle = Path("/sys/class/iscsi_transport/tcp/handle").read_text().strip()
    (session,) = (one.split()[0].removeprefix("session") for one in sessions("node1"))

    stopping = await asyncio.create_subprocess_exec(sys.executable, stop.__file__, handle, session, "onelun.node1")

    assert await asyncio.wait_for(stopping.wait(), 10) == errno.EISCONN
    assert state(export) == "LOGGED_IN"
    await asyncio.wait_for(asyncio.to_thread(write, device, b"2" * 4096), 10)


async def test_a_session_survives_the_end_of_iscsid_and_then_that_of_the_nas(
    iscsi: OpenIscsiLab, node1: IscsiConnector
) -> None:
    """A restarted iscsid takes the sessions over, and logs in by our record when the NAS is back."""
    export = iscsi.offer("one-1", "node1")
    device = await node1.connect(export)

    with without_iscsid():
        write(device, b"1" * 4096)
    iscsi.restart()
    await comes(lambda: state(export) == "FAILED")
    iscsi.offer("one-1", "node1")
    await asyncio.wait_for(asyncio.to_thread(write, device, b"2" * 4096, 4096), 40)

    assert content(iscsi.backing(export))[:8192] == b"1" * 4096 + b"2" * 4096


async def test_a_cut_cable_delays_a_writer_and_no_more(
    iscsi: OpenIscsiLab, node1: IscsiConnector, cable: Cable
) -> None:
    export = by(cable, iscsi.offer("one-1", "node1"))
    device = await node1.connect(export)
    cable.cut()
    writing = asyncio.create_task(asyncio.to_thread(write, device, b"2" * 4096))
    await comes(lambda: state(export) == "FAILED")

    cable.heal()
    await asyncio.wait_for(writing, 40)

    assert content(iscsi.backing(export))[:4096] == b"2" * 4096


async def test_a_device_in_use_is_kept_while_its_nas_is_away(iscsi: OpenIscsiLab, node1: IscsiConnector) -> None:
    export = iscsi.offer("one-1", "node1")
    device, descriptor = await open_up(node1, export)
    before = sessions("node1")
    iscsi.stop()
    await comes(lambda: state(export) == "FAILED")

    with pytest.raises(Unreachable):
        await node1.connect(export)
    assert [(one.device, one.alive) for one in await node1.connections()] == [(device, True)]
    iscsi.restart()
    iscsi.offer("one-1", "node1")

    assert await node1.connect(export) == device
    assert sessions("node1") == before
    os.close(descriptor)


async def test_a_device_in_use_is_kept_when_its_target_is_gone(iscsi: OpenIscsiLab, node1: IscsiConnector) -> None:
    # Without any target, tgtd ends a login without a word.
    iscsi.offer("one-2", "node1")
    export = iscsi.offer("one-1", "node1")
    device, descriptor = await open_up(node1, export)
    iscsi.withdraw(export)
    await comes(lambda: state(export) == "FAILED")

    with pytest.raises(NotFound):
        await node1.connect(export)

    assert [(one.device, one.alive) for one in await node1.connections()] == [(device, True)]
    os.close(descriptor)
    assert [one.alive for one in await node1.connections()] == [False]


async def test_a_dead_session_that_nobody_uses_is_made_anew(iscsi: OpenIscsiLab, node1: IscsiConnector) -> None:
    export = iscsi.offer("one-1", "node1")
    await node1.connect(export)
    before = sessions("node1")
    with paused():
        iscsi.restart()
        await comes(lambda: state(export) == "FAILED")
        iscsi.offer("one-1", "node1")
    assert [one.alive for one in await node1.connections()] in ([False], [True])

    device = await node1.connect(export)

    write(device, b"n" * 4096)
    assert content(iscsi.backing(export))[:4096] == b"n" * 4096
    assert len(sessions("node1")) == len(before)


async def test_a_target_that_is_late_with_an_answer_keeps_its_session(
    iscsi: OpenIscsiLab, node1: IscsiConnector
) -> None:
    export = iscsi.offer("one-1", "node1")
    device = await node1.connect(export)
    before = sessions("node1")
    with paused(iscsi.pid):
        again = asyncio.create_task(node1.connect(export))
        await asyncio.sleep(7)

    assert await again == device
    assert sessions("node1") == before


# Disconnecting from what is dead


async def test_a_flush_that_fails_removes_nothing(iscsi: OpenIscsiLab, node1: IscsiConnector) -> None:
    export = iscsi.offer("one-1", "node1")
    await node1.connect(export)
    iscsi.withdraw(export)
    await comes(lambda: state(export) == "FAILED")

    with pytest.raises(CommandFailed, match="flush"):
        await node1.disconnect(export.iqn)

    assert [one.iqn for one in await node1.connections()] == [export.iqn]
    assert len(records("node1")) == 1


async def test_force_frees_a_writer_whose_target_is_gone_and_drops_its_writes(
    iscsi: OpenIscsiLab, node1: IscsiConnector
) -> None:
    export = iscsi.offer("one-1", "node1")
    device = await node1.connect(export)
    iscsi.withdraw(export)
    await comes(lambda: state(export) == "FAILED")
    writer = start_writer(device)
    await asyncio.sleep(0.5)
    assert writer.poll() is None

    begun = time.monotonic()
    await node1.disconnect(export.iqn, force=True)

    assert time.monotonic() - begun < 10
    assert writer.wait(10) != 0
    assert leftovers(iscsi) == []
    iscsi.offer("one-1", "node1")
    assert len(read(await node1.connect(export), 512)) == 512
    assert content(iscsi.backing(export)) == bytes(16 * MIB)


async def test_force_frees_a_writer_behind_a_cut_cable_in_time(
    iscsi: OpenIscsiLab, node1: IscsiConnector, cable: Cable
) -> None:
    """The session does not know yet that it is dead: its commands are under way."""
    export = by(cable, iscsi.offer("one-1", "node1"))
    device = await node1.connect(export)
    cable.cut()
    writer = start_writer(device)
    await asyncio.sleep(0.5)
    assert state(export) == "LOGGED_IN"

    begun = time.monotonic()
    await node1.disconnect(export.iqn, force=True)

    assert time.monotonic() - begun < 30
    assert writer.wait(10) != 0
    assert leftovers(iscsi) == []
    cable.heal()
    await asyncio.sleep(1)
    assert content(iscsi.backing(export)) == bytes(16 * MIB)


async def test_force_ends_in_time_without_an_answer_of_iscsid(iscsi: OpenIscsiLab, node1: IscsiConnector) -> None:
    export = iscsi.offer("one-1", "node1")
    device = await node1.connect(export)
    iscsi.withdraw(export)
    await comes(lambda: state(export) == "FAILED")
    writer = start_writer(device)
    await asyncio.sleep(0.5)

    with paused():
        begun = time.monotonic()
        with pytest.raises(CommandFailed, match="iscsid does not answer"):
            await node1.disconnect(export.iqn, force=True)
        assert time.monotonic() - begun < 30
        # The writes are gone with the device, the rest waits for iscsid.
        assert writer.wait(10) != 0
        assert not os.path.exists(device)
        assert records("node1") == []

    await node1.disconnect(export.iqn, force=True)
    assert leftovers(iscsi) == []


# What a host lacks


async def test_a_host_that_has_everything_lacks_nothing(node1: IscsiConnector) -> None:
    assert await node1.check() == []


async def test_iscsid_that_is_gone_is_one_sentence(iscsi: OpenIscsiLab, node1: IscsiConnector) -> None:
    export = iscsi.offer("one-1", "node1")

    with without_iscsid():
        assert ["iscsid is not running" in line for line in await node1.check()] == [True]
        with pytest.raises(CommandFailed, match="iscsid is not running: systemctl"):
            await node1.connect(export)

    assert leftovers(iscsi) == []


async def test_lvm_that_looks_into_disks_of_vms_is_named(node1: IscsiConnector) -> None:
    configuration = Path("/etc/lvm/lvmlocal.conf")
    kept = configuration.read_text()
    configuration.write_text("devices {\n scan_lvs = 0\n}\n")
    try:
        assert ["global_filter" in line for line in await node1.check()] == [True]
    finally:
        configuration.write_text(kept)


async def test_lvm_finds_no_volume_group_of_a_vm(iscsi: OpenIscsiLab, node1: IscsiConnector) -> None:
    device = await node1.connect(iscsi.offer("one-1", "node1"))
    everything = ("--config", 'devices { global_filter = [ "a|.*|" ] }')
    run("pvcreate", "-qq", "--yes", *everything, device)
    run("vgcreate", "-qq", *everything, "of-a-vm", device)
    run("udevadm", "settle", "--timeout=20")

    assert "of-a-vm" not in groups()
    assert "of-a-vm" in groups(*everything)


async def test_a_record_that_would_log_in_at_boot_is_named(iscsi: OpenIscsiLab, node1: IscsiConnector) -> None:
    export = iscsi.offer("one-1", "node1")
    await node1.connect(export)
    iscsiadm(
        "-m",
        "node",
        "-T",
        export.iqn,
        "-p",
        str(iscsi.portal),
        "--op",
        "update",
        "-n",
        "node.startup",
        "-v",
        "automatic",
    )

    assert [export.iqn in line for line in await node1.check()] == [True]

    await node1.disconnect(export.iqn)
    assert leftovers(iscsi) == []


class paused:  # noqa: N801 - it reads as a word in `with`
    """iscsid, or another process, does nothing for a while, as when it hangs."""

    def __init__(self, pid: int | None = None) -> None:
        self.given = pid

    def __enter__(self) -> None:
        pid = self.given or iscsid_pid()
        assert pid is not None
        self.pid = pid
        os.kill(pid, signal.SIGSTOP)

    def __exit__(self, *_: object) -> None:
        os.kill(self.pid, signal.SIGCONT)


def groups(*options: str) -> list[str]:
    """The volume groups that LVM of this host sees."""
    argv = ("vgs", "--noheadings", "-o", "vg_name", *options)
    return subprocess.run(argv, capture_output=True, text=True, timeout=30, check=True).stdout.split()


def iscsiadm(*args: str, check: bool = True) -> str:
    done = subprocess.run(["iscsiadm", *args], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0 or not check, f"{args}: {done.stderr}"
    return done.stdout
