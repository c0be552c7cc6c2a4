"""What only the exporter `tgt` can meet: a shared daemon that forgets no account, hangs, dies, or is asked half a thing."""

import asyncio
import fcntl
import os
import secrets
import signal
import struct
import subprocess
import time
import uuid as uuids
from pathlib import Path

import msgspec
import pytest
from tests.support.filesystems import mounted
from tests.support.requires import requires
from tests.support.targets import RefusedError, TgtNas

from onelun.errors import CommandFailed, Conflict, Stalled, Unreachable
from onelun.model import Portal, Target
from onelun.naming import Source, target_account, target_iqn
from onelun.nas.exporters.tgt.exporter import TgtExporter
from onelun.nas.exporters.tgt.ipc import ControlSocket, Mode, Op
from onelun.nas.exporters.tgt.listing import parse_accounts, parse_targets

MIB = 1 << 20
NODE1 = "iqn.2026-11.io.onelun.host:node1"


@pytest.fixture
def nas(tmp_path):
    requires("tgtd", "iscsi-inq", "iscsi-readcapacity16", "qemu-io")
    made = TgtNas(tmp_path / "tgtd")
    try:
        yield made
    finally:
        made.close()


def made_target(directory, volume="one-1", *, epoch=1, size=4 * MIB):
    device = Path(directory) / volume
    if not device.exists():
        with device.open("wb") as file:
            file.truncate(size)
    iqn = target_iqn(Source("nas1", "tank", volume), epoch)
    return Target(
        iqn=iqn,
        device=str(device),
        uuid=str(uuids.uuid4()),
        size_bytes=size,
        initiator=NODE1,
        user=target_account(iqn),
        secret=secrets.token_hex(8),
    )


@pytest.fixture
def target(tmp_path):
    return made_target(tmp_path)


def control(nas):
    return ControlSocket(nas.tgtd.control_socket)


async def accounts(nas):
    return parse_accounts(await control(nas).request(Mode.ACCOUNT, Op.SHOW))


async def listed(nas):
    return parse_targets(await control(nas).request(Mode.TARGET, Op.SHOW))


class EndedError(BaseException):
    """The agent ended here."""


def ending(exporter, count, *, reply_lost):
    """The agent ends before its request number `count`, or after the daemon did that one."""
    requests = exporter._tgtd.request
    left = [count]

    async def request(*args, **kwargs):
        left[0] -= 1
        if left[0] < 0 and not reply_lost:
            raise EndedError
        answer = await requests(*args, **kwargs)
        if left[0] < 0:
            raise EndedError
        return answer

    exporter._tgtd.request = request
    return left


def admits(nas, target, **changes):
    try:
        nas.identity(msgspec.structs.replace(target, **changes))
    except RefusedError:
        return False
    return True


@pytest.mark.parametrize("reply_lost", [False, True])
async def test_an_export_interrupted_at_any_step_admits_nobody_and_is_completed_by_the_next(nas, target, reply_lost):
    for count in range(40):
        cut = nas.again()
        left = ending(cut, count, reply_lost=reply_lost)
        try:
            await cut.export(target)
            ended = False
        except EndedError:
            ended = True
        if ended:
            half = (await listed(nas)).get(target.iqn)
            whole = half is not None and half.state == "ready" and half.allowed != ()
            assert await asyncio.to_thread(admits, nas, target) == whole
            assert not await asyncio.to_thread(admits, nas, target, secret="")
            assert not await asyncio.to_thread(admits, nas, target, secret=secrets.token_hex(8))

        await nas.again().export(target)
        assert await asyncio.to_thread(nas.identity, target) == (target.uuid, 4 * MIB)
        await nas.exporter.unexport(target.iqn)
        assert await accounts(nas) == set()
        if not ended:
            assert count >= 8
            assert left[0] >= 0
            return
    pytest.fail("the export never came to its end")


@pytest.mark.parametrize("reply_lost", [False, True])
async def test_an_unexport_interrupted_at_any_step_is_completed_by_the_next(nas, target, reply_lost):
    for count in range(40):
        await nas.exporter.export(target)
        session = await asyncio.to_thread(nas.login, target)
        cut = nas.again()
        left = ending(cut, count, reply_lost=reply_lost)
        try:
            await cut.unexport(target.iqn)
            ended = False
        except EndedError:
            ended = True

        await nas.again().unexport(target.iqn)
        assert await listed(nas) == {}
        assert await accounts(nas) == set()
        session.close()
        if not ended:
            assert count >= 5
            assert left[0] >= 0
            return
    pytest.fail("the unexport never came to its end")


async def test_a_target_whose_unexport_was_interrupted_serves_again_after_export(nas, target):
    await nas.exporter.export(target)
    session = await asyncio.to_thread(nas.login, target)
    cut = nas.again()
    ending(cut, 1, reply_lost=True)
    with pytest.raises(EndedError):
        await cut.unexport(target.iqn)
    assert (await listed(nas))[target.iqn].state == "offline"

    await nas.again().export(target)

    await asyncio.to_thread(session.write, 0, 3, 512)
    session.close()


async def test_an_account_that_an_interruption_left_is_removed_and_no_other_is(nas, target):
    ours = target_account(target_iqn(Source("nas1", "tank", "one-7"), 12))
    others = ["somebody", "nas2:tank.one-7.e1", target_account(target.iqn) + "x"]
    for user in (ours, *others):
        await control(nas).request(Mode.ACCOUNT, Op.NEW, f"user={user},password={secrets.token_hex(8)}")
    await nas.exporter.export(target)

    await nas.exporter.unexport(target.iqn)

    assert await accounts(nas) == set(others)


async def test_an_account_of_that_name_with_another_secret_is_made_anew(nas, target):
    await control(nas).request(Mode.ACCOUNT, Op.NEW, f"user={target.user},password=of-an-earlier-try")

    await nas.exporter.export(target)

    assert await asyncio.to_thread(nas.identity, target) == (target.uuid, 4 * MIB)
    assert not await asyncio.to_thread(admits, nas, target, secret="of-an-earlier-try")


async def test_foreign_targets_are_neither_listed_nor_touched(nas, target):
    foreign = ["iqn.2001-04.com.example:disk", "iqn.2026-11.io.onelun.nas2:tank.one-1.e1"]
    for tid, iqn in enumerate(foreign, start=1):
        await control(nas).request(Mode.TARGET, Op.NEW, f"targetname={iqn}", tid=tid)
    before = await listed(nas)

    await nas.exporter.export(target)
    assert set(await nas.exporter.exports()) == {target.iqn}
    await nas.exporter.unexport(target.iqn)

    assert await listed(nas) == before


async def test_two_agents_that_make_targets_at_once_both_succeed(nas, tmp_path):
    one, other = nas.again(), nas.again()
    targets = [made_target(tmp_path, f"one-{number}") for number in range(40)]

    await asyncio.gather(*((one if number % 2 else other).export(target) for number, target in enumerate(targets)))

    tids = [found.tid for found in (await listed(nas)).values()]
    assert len(set(tids)) == 40


async def test_there_are_more_targets_than_a_target_has_luns(nas, tmp_path):
    targets = [made_target(tmp_path, f"one-{number}") for number in range(260)]

    await asyncio.gather(*(nas.exporter.export(target) for target in targets))

    assert set(await nas.exporter.exports()) == {target.iqn for target in targets}
    for target in (targets[0], targets[255], targets[256], targets[259]):
        assert await asyncio.to_thread(nas.identity, target) == (target.uuid, 4 * MIB)


async def test_a_number_is_not_given_again_at_once(nas, target):
    await nas.exporter.export(target)
    first = (await listed(nas))[target.iqn].tid
    await nas.exporter.unexport(target.iqn)

    await nas.exporter.export(target)

    assert (await listed(nas))[target.iqn].tid != first


async def test_after_a_restart_of_the_daemon_an_export_makes_the_target_again(nas, target):
    await nas.exporter.export(target)
    await asyncio.to_thread(nas.write, target, 0, b"\x01" * 512)
    nas.tgtd.kill()
    nas.tgtd.start()
    assert await nas.exporter.exports() == {}

    await nas.exporter.export(target)

    assert await asyncio.to_thread(nas.read, target, 0, 512) == b"\x01" * 512


@pytest.fixture
def crowd():
    """Start programs that are killed when the test ends."""
    started = []

    def start(command, **environment):
        silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        started.append(subprocess.Popen(command, env={**os.environ, **environment}, **silent))

    yield start
    for process in started:
        process.kill()
        process.wait(60)


async def test_a_fence_stops_many_initiators_in_full_run(nas, tmp_path, crowd):
    target = made_target(tmp_path, size=64 * MIB)
    await nas.exporter.export(target)
    url = f"iscsi://127.0.0.1:{nas.port}/{target.iqn}/1"
    account = {"LIBISCSI_CHAP_USERNAME": target.user, "LIBISCSI_CHAP_PASSWORD": target.secret}
    crowd(["iscsi-perf", "-i", target.initiator, "-m", "32", "-b", "128", url], **account)
    writes = ["-c", "aio_write -P 5 0 32M"] * 160
    for _ in range(3):
        crowd(["qemu-io", "-t", "none", "--image-opts", nas.options(target), *writes, "-c", "aio_flush"])
    async with asyncio.timeout(60):
        while len((await nas.exporter.exports())[target.iqn].sessions) < 3:
            await asyncio.sleep(0.05)
    await asyncio.sleep(0.4)

    began = time.monotonic()
    await nas.exporter.unexport(target.iqn)
    took = time.monotonic() - began
    Path(target.device).write_bytes(bytes(64 * MIB))
    await asyncio.sleep(0.5)

    assert took < 60
    assert nas.tgtd.pid is not None
    assert Path(target.device).read_bytes() == bytes(64 * MIB)


async def test_a_fence_is_stalled_while_a_write_hangs_in_the_storage_and_holds_afterwards(nas, tmp_path):
    with mounted("ext4", tmp_path) as place:
        target = made_target(place)
        await nas.exporter.export(target)
        session = await asyncio.to_thread(nas.login, target)
        hasty = TgtExporter("nas1", nas.tgtd.control_socket, Portal("127.0.0.1", nas.port), fence_s=1.0)
        await asyncio.to_thread(subprocess.run, ["fsfreeze", "-f", str(place)], check=True, timeout=60)
        try:
            writing = asyncio.create_task(asyncio.to_thread(session.write, 0, 4, 512))
            async with asyncio.timeout(60):
                while not waits_in_the_kernel(nas.tgtd.pid):
                    await asyncio.sleep(0.01)
            with pytest.raises(Stalled, match="does not let go"):
                await hasty.unexport(target.iqn)
            assert set(await hasty.exports()) == {target.iqn}
        finally:
            await asyncio.to_thread(subprocess.run, ["fsfreeze", "-u", str(place)], check=True, timeout=60)

        await nas.again().unexport(target.iqn)

        assert await listed(nas) == {}
        session.kill()
        with pytest.raises(RefusedError):
            await writing
        session.close()


def waits_in_the_kernel(pid):
    """Whether a thread of the process waits for the storage."""
    states = [path.read_text().rpartition(")")[2].split()[0] for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return "D" in states


async def test_a_discard_gives_the_blocks_back(nas, target):
    await nas.exporter.export(target)
    await asyncio.to_thread(nas.write, target, 0, b"\x01" * MIB)
    os.sync()
    written = os.stat(target.device).st_blocks

    await asyncio.to_thread(nas.discard, target, 0, MIB)

    assert written * 512 >= MIB
    assert os.stat(target.device).st_blocks * 512 < MIB // 2
    assert await asyncio.to_thread(nas.read, target, 0, 512) == bytes(512)


def waiting_extents(path):
    """How many extents of the file have no place on the disk yet: FS_IOC_FIEMAP, extents with FIEMAP_EXTENT_DELALLOC."""
    header = struct.pack("=QQIIII", 0, 2**64 - 1, 0, 0, 64, 0)
    with open(path, "rb") as file:
        answer = bytearray(header + bytes(56 * 64))
        fcntl.ioctl(file, 0xC020660B, answer)
    count = struct.unpack_from("=I", answer, 20)[0]
    return sum(bool(struct.unpack_from("=I", answer, 32 + 56 * number + 40)[0] & 0x4) for number in range(count))


async def test_a_flush_is_answered_when_the_data_is_on_the_disk(nas, tmp_path):
    with mounted("ext4", tmp_path) as place:
        target = made_target(place)
        await nas.exporter.export(target)
        session = await asyncio.to_thread(nas.login, target)
        for byte in range(1, 10):
            await asyncio.to_thread(session.write, 0, byte, MIB)
            # Somebody else's sync(1) may have come in between.
            if before := waiting_extents(target.device):
                break
            os.truncate(target.device, 0)
            os.truncate(target.device, target.size_bytes)

        await asyncio.to_thread(session.flush)

        assert before >= 1
        assert waiting_extents(target.device) == 0
        session.close()
        await nas.exporter.unexport(target.iqn)


async def test_a_daemon_that_hangs_is_stalled_in_bounded_time(nas, target):
    await nas.exporter.export(target)
    hasty = TgtExporter("nas1", nas.tgtd.control_socket, Portal("127.0.0.1", nas.port), request_s=0.3)
    os.kill(nas.tgtd.pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        with pytest.raises(Stalled, match="did not answer"):
            await hasty.exports()
        # More than its accept queue holds.
        asked = await asyncio.gather(*(hasty.exports() for _ in range(60)), return_exceptions=True)
        took = time.monotonic() - began
    finally:
        os.kill(nas.tgtd.pid, signal.SIGCONT)

    assert all(isinstance(error, Stalled | Unreachable) for error in asked)
    assert took < 60
    assert set(await nas.exporter.exports()) == {target.iqn}


async def test_a_socket_of_something_else_is_a_clear_error(tmp_path):
    async def closes(reader, writer):
        await reader.read(10)
        writer.close()

    server = await asyncio.start_unix_server(closes, tmp_path / "ctl")
    exporter = TgtExporter("nas1", str(tmp_path / "ctl"), Portal("127.0.0.1"))

    with pytest.raises(Stalled, match="another user"):
        await exporter.exports()

    server.close()


async def test_a_control_socket_path_that_is_too_long_is_a_clear_error(tmp_path):
    exporter = TgtExporter("nas1", str(tmp_path / ("x" * 120)), Portal("127.0.0.1"))

    with pytest.raises(Unreachable, match="too long"):
        await exporter.exports()


async def test_a_refusal_tells_what_the_daemon_said(nas):
    with pytest.raises(CommandFailed, match="no target") as caught:
        await control(nas).request(Mode.CONNECTION, Op.SHOW, tid=77)

    assert caught.value.facts["command"] == "tgtd"


async def test_the_secret_is_in_no_process_and_no_log(nas, target, caplog):
    caplog.set_level("DEBUG")

    await nas.exporter.export(target)
    await nas.exporter.unexport(target.iqn)

    assert target.secret not in caplog.text
    assert target.secret not in nas.tgtd.log.read_text(errors="replace")


@pytest.mark.parametrize(
    ("address", "port", "words"),
    [
        ("192.0.2.1", None, "does not have the portal's address 192.0.2.1"),
        ("127.0.0.1", 1, "nothing takes logins at the portal 127.0.0.1:1"),
        ("0.0.0.0", None, "no address that hosts can log in at"),
        ("one two", None, "cannot be used"),
    ],
)
async def test_a_portal_where_no_host_could_log_in_is_named(nas, address, port, words):
    exporter = TgtExporter("nas1", nas.tgtd.control_socket, Portal(address, port or nas.port))

    (said,) = await exporter.check()

    assert words in said


async def test_a_control_socket_of_another_user_is_named(tmp_path):
    async def closes(reader, writer):
        writer.close()

    server = await asyncio.start_unix_server(closes, tmp_path / "ctl")

    (said,) = await TgtExporter("nas1", str(tmp_path / "ctl"), Portal("127.0.0.1")).check()

    assert "another user" in said
    server.close()


async def test_growing_by_one_block_is_seen_by_the_next_agent_too(nas, target):
    await nas.exporter.export(target)
    os.truncate(target.device, target.size_bytes + 512)
    grown = msgspec.structs.replace(target, size_bytes=target.size_bytes + 512)

    await nas.again().grow(grown)

    assert await asyncio.to_thread(nas.identity, grown) == (target.uuid, grown.size_bytes)


async def test_one_name_is_let_in_and_no_address(nas, target):
    await nas.exporter.export(target)

    assert (await listed(nas))[target.iqn].allowed == (target.initiator,)


@pytest.mark.parametrize("address", ["ALL", "127.0.0.1", "192.0.2.0/24"])
async def test_an_address_that_somebody_let_in_besides_is_a_conflict(nas, target, address):
    """tgtd lets in who has the name or the address, so that with one of these any name would do."""
    await nas.exporter.export(target)
    found = (await listed(nas))[target.iqn]
    environment = {"TGT_IPC_SOCKET": nas.tgtd.control_socket.removesuffix(".0"), "PATH": os.environ["PATH"]}
    argv = ["tgtadm", "--lld", "iscsi", "--mode", "target", "--op", "bind", "--tid", str(found.tid), "-I", address]
    await asyncio.to_thread(subprocess.run, argv, env=environment, check=True, timeout=60)

    with pytest.raises(Conflict, match=f"exists for {address}, not for"):
        await nas.exporter.export(target)

    await nas.exporter.unexport(target.iqn)
    await nas.exporter.export(target)
    assert not admits(nas, target, initiator=NODE1 + "0")


@pytest.mark.parametrize("again", [False, True], ids=["the same agent", "the next agent"])
@pytest.mark.parametrize("step", [(Mode.DEVICE, Op.UPDATE), (Mode.ACCOUNT, Op.NEW), (Mode.TARGET, Op.BIND)])
async def test_growing_that_failed_when_the_target_was_half_made_ends_well_when_repeated(
    nas, target, monkeypatch, step, again
):
    await nas.exporter.export(target)
    os.truncate(target.device, 2 * target.size_bytes)
    grown = msgspec.structs.replace(target, size_bytes=2 * target.size_bytes)
    tgtd = nas.exporter._tgtd
    request = tgtd.request

    async def failing(mode, op, *rest, **more):
        if (mode, op) == step:
            raise CommandFailed("tgtd refuses: out of memory", command="tgtd")
        return await request(mode, op, *rest, **more)

    monkeypatch.setattr(tgtd, "request", failing)
    with pytest.raises(CommandFailed):
        await nas.exporter.grow(grown)
    monkeypatch.setattr(tgtd, "request", request)
    assert (await nas.exporter.exports())[target.iqn].initiators == ()

    await (nas.again() if again else nas.exporter).grow(grown)

    assert await asyncio.to_thread(nas.identity, grown) == (target.uuid, grown.size_bytes)
