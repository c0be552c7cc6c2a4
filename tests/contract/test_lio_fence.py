"""What a fence by the exporter `lio` ends, and what it does when the kernel does not let go."""

import asyncio
import subprocess
import time

import msgspec
import pytest
from tests.contract.test_lio_interrupted import made_target
from tests.support.requires import guest
from tests.support.targets import LIMIT_S, RefusedError

from onelun.errors import Stalled

pytestmark = [guest("lio"), pytest.mark.timeout(300)]
MIB = 1 << 20


@pytest.fixture
async def lio(tmp_path):
    """A guest's LIO."""
    from tests.support.targets_lio import LioNas

    made = LioNas(tmp_path)
    try:
        yield made
    finally:
        await made.let_go()
        made.close()


@pytest.fixture
def block(lio, tmp_path):
    """Make a block device and the target that offers it; a device goes after its targets."""
    from tests.support.targets_lio import Block

    made = []

    def make(volume, size=64 * MIB, **more):
        made.append(Block(tmp_path, volume, size, **more))
        target = made_target(tmp_path, volume)
        return made[-1], msgspec.structs.replace(target, device=made[-1].path, size_bytes=size)

    yield make
    for device in made:
        device.resume()
    lio.clear()
    for device in made:
        device.close()


@pytest.fixture
def far():
    """A host at the end of a cable."""
    from tests.support.targets_lio import FarHost

    made = FarHost()
    yield made
    made.close()


def stress(lio, target, address="127.0.0.1", *, write=True):
    """A command that writes or reads without an end."""
    options = lio.options(target, address)
    kind = ("-w", "--pattern=165") if write else ()
    return (
        "qemu-img",
        "bench",
        *kind,
        "-t",
        "none",
        "-c",
        "100000000",
        "-d",
        "16",
        "-s",
        "65536",
        "--image-opts",
        options,
    )


async def comes(met):
    """Wait for it."""
    until = time.monotonic() + LIMIT_S
    while not met():
        assert time.monotonic() < until, "it did not come about in time"
        await asyncio.sleep(0.05)


async def until_busy(target):
    """Wait until somebody is in the middle of reading or writing: who only logs in asks for less."""
    from tests.support.targets_lio import commands

    await comes(lambda: commands(target) > 200)


async def test_a_writer_at_work_writes_nothing_once_unexport_returned(lio, block):
    device, target = block("one-1")
    await lio.exporter.export(target)
    writer = subprocess.Popen(stress(lio, target), stdout=subprocess.DEVNULL)  # noqa: ASYNC220 it returns at once
    try:
        await until_busy(target)
        await comes(lambda: b"\xa5" in device.file.read_bytes())

        await lio.exporter.unexport(target.iqn)

        # The file below, for the device's own cache does not see what LIO writes past it.
        device.file.write_bytes(bytes(64 * MIB))
        await asyncio.sleep(4)
        assert b"\xa5" not in device.file.read_bytes()
        assert writer.poll() is None
    finally:
        writer.kill()
        writer.wait(LIMIT_S)


@pytest.mark.parametrize("write", [True, False])
async def test_a_host_whose_cable_is_cut_in_the_middle_is_fenced_at_once(lio, block, far, write):
    _, target = block("one-1")
    exporter = lio.again(far.address)
    await exporter.export(target)
    writer = far.start(*stress(lio, target, far.address, write=write))
    try:
        await until_busy(target)
        far.cut()
        await asyncio.sleep(0.5)

        begun = time.monotonic()
        await exporter.unexport(target.iqn)

        assert time.monotonic() - begun < 20
        assert await exporter.exports() == {}
    finally:
        writer.kill()
        writer.wait(LIMIT_S)


async def test_storage_that_hangs_stalls_its_own_fence_alone(lio, block):
    from tests.support.targets_lio import commands, ours

    device, stuck = block("one-1")
    _, other = block("one-2")
    exporter = lio.again(fence_s=8)
    await exporter.export(stuck)
    await exporter.export(other)
    session = await asyncio.to_thread(lio.login, stuck)
    await asyncio.to_thread(session.write, 0, 1, 512)
    device.suspend()
    before = commands(stuck)
    writing = asyncio.create_task(asyncio.to_thread(session.write, 0, 2, 512))
    await comes(lambda: commands(stuck) > before)
    # It has come in, and goes on to the device.
    await asyncio.sleep(1)

    for _ in range(2):
        with pytest.raises(Stalled, match="does not let go"):
            await exporter.unexport(stuck.iqn)
    # Whoever comes new, after the agent's restart, does not get through either.
    with pytest.raises(Stalled, match="does not"):
        await lio.again(fence_s=2).unexport(stuck.iqn)

    assert (await exporter.exports())[stuck.iqn].sessions
    with pytest.raises(RefusedError):
        await asyncio.to_thread(lio.identity, stuck)
    await exporter.unexport(other.iqn)
    await exporter.export(other)
    assert await asyncio.to_thread(lio.identity, other) == (other.uuid, other.size_bytes)

    device.resume()
    await exporter.unexport(stuck.iqn)

    content = device.file.read_bytes()[:512]
    assert content in (b"\x01" * 512, b"\x02" * 512)
    session.kill()
    await asyncio.gather(writing, return_exceptions=True)
    assert device.file.read_bytes()[:512] == content
    await exporter.unexport(other.iqn)
    assert ours() == []


async def test_a_dead_hosts_session_is_fenced_and_the_next_host_reads_what_it_wrote(lio, block):
    _, old = block("one-1")
    new = msgspec.structs.replace(
        made_target(lio.directory, "one-1", epoch=2, uuid=old.uuid),
        device=old.device,
        size_bytes=old.size_bytes,
        initiator="iqn.2026-11.io.onelun.host:node2",
    )
    await lio.exporter.export(old)
    session = await asyncio.to_thread(lio.login, old)
    await asyncio.to_thread(session.write, 4096, 7, 512)
    await asyncio.to_thread(session.flush)
    session.kill()

    await lio.exporter.unexport(old.iqn)
    await lio.exporter.export(new)

    assert await asyncio.to_thread(lio.read, new, 4096, 512) == b"\x07" * 512
    for changes in ({"iqn": old.iqn}, {"secret": old.secret}, {"user": old.user, "secret": old.secret}):
        with pytest.raises(RefusedError):
            await asyncio.to_thread(lio.identity, msgspec.structs.replace(new, **changes))
    with pytest.raises(RefusedError):
        await asyncio.to_thread(lio.identity, old)


async def test_a_fence_of_one_epoch_leaves_the_others_session_at_work(lio, block):
    device, old = block("one-1")
    new = msgspec.structs.replace(
        made_target(lio.directory, "one-1", epoch=2, uuid=old.uuid), device=old.device, size_bytes=old.size_bytes
    )
    await lio.exporter.export(old)
    await lio.exporter.export(new)
    session = await asyncio.to_thread(lio.login, new)

    await lio.exporter.unexport(old.iqn)

    await asyncio.to_thread(session.write, 0, 9, 512)
    await asyncio.to_thread(session.flush)
    assert device.file.read_bytes()[:512] == b"\x09" * 512
    assert (await lio.exporter.exports())[new.iqn].sessions == (new.initiator,)
