"""What only real devices can show: processes that die, targets that vanish, filesystems."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import time
from collections.abc import AsyncIterator

import msgspec
import pytest
from tests.support.blocks import (
    content,
    daemons,
    forget,
    kill,
    killed,
    leftovers,
    read,
    run,
    unmounted,
    write,
)
from tests.support.iscsi import MIB, TgtLab
from tests.support.iscsi import lab as make_lab

from onelun.compute.connectors.base import Export
from onelun.compute.processes import working_below
from onelun.errors import Busy, CommandFailed, Unreachable
from onelun.model import Portal


@pytest.fixture
async def iscsi() -> AsyncIterator[TgtLab]:
    with make_lab(TgtLab) as place:
        assert isinstance(place, TgtLab)
        yield place
        await forget(place)


async def test_a_filesystem_is_clean_on_the_next_host(iscsi: TgtLab) -> None:
    first, second = iscsi.connector("node1"), iscsi.connector("node2")
    export = iscsi.offer("one-1", "node1", size=64 * MIB)
    device = await first.connect(export)
    tree = make_tree(f"{iscsi.directory}/tree")

    run("mkfs.ext4", "-q", "-d", tree, device)
    await first.disconnect(export.iqn)
    device = await second.connect(iscsi.offer("one-1", "node2", epoch=2))

    run("fsck.ext4", "-f", "-n", device)
    dumped = f"{iscsi.directory}/dumped"
    run("debugfs", "-R", f"dump /199 {dumped}", device)
    assert content(dumped) == content(f"{tree}/199")


async def test_a_readonly_export_takes_no_write(iscsi: TgtLab) -> None:
    device = await iscsi.connector("node1").connect(iscsi.offer("one-1", "node1", readonly=True))

    with pytest.raises(OSError, match="not permitted"):
        write(device, b"x" * 4096)

    assert len(read(device, 4096)) == 4096


@pytest.mark.parametrize("program", ["qemu-storage-daemon", "nbdfuse"])
async def test_a_dead_connection_is_made_anew(iscsi: TgtLab, program: str) -> None:
    host = iscsi.connector("node1")
    export = iscsi.offer("one-1", "node1")
    await host.connect(export)
    await killed(iscsi, program)
    assert [connected.alive for connected in await host.connections()] == [False]

    device = await host.connect(export)

    write(device, b"n" * 4096)
    assert content(iscsi.backing(export))[:4096] == b"n" * 4096
    assert [connected.alive for connected in await host.connections()] == [True]


async def test_a_dead_connection_that_is_open_is_made_anew_beside_it(iscsi: TgtLab) -> None:
    host = iscsi.connector("node1")
    export = iscsi.offer("one-1", "node1")
    old = os.open(await host.connect(export), os.O_RDWR)
    await killed(iscsi, "qemu-storage-daemon")

    device = await host.connect(export)

    write(device, b"n" * 4096)
    assert content(iscsi.backing(export))[:4096] == b"n" * 4096
    with pytest.raises(OSError, match="Input/output"):
        os.pread(old, 512, 8 * MIB)
    os.close(old)
    await host.disconnect(export.iqn)
    assert leftovers(iscsi) == []


@pytest.mark.parametrize("programs", [["qemu-storage-daemon"], ["nbdfuse"], ["nbdfuse", "qemu-storage-daemon"]])
async def test_force_clears_away_what_a_kill_left(iscsi: TgtLab, programs: list[str]) -> None:
    host = iscsi.connector("node1")
    export = iscsi.offer("one-1", "node1")
    device = await host.connect(export)
    writer = writing(device)
    for program in programs:
        kill(iscsi, program)

    await host.disconnect(export.iqn, force=True)

    assert writer.wait(60) != 0
    assert leftovers(iscsi) == []


async def test_a_flush_that_fails_removes_nothing(iscsi: TgtLab) -> None:
    host = iscsi.connector("node1")
    export = iscsi.offer("one-1", "node1")
    await host.connect(export)
    await killed(iscsi, "qemu-storage-daemon")

    with pytest.raises(CommandFailed, match="flush"):
        await host.disconnect(export.iqn)

    assert [connected.iqn for connected in await host.connections()] == [export.iqn]


async def test_force_frees_a_writer_that_waits_for_a_target_that_is_gone(iscsi: TgtLab) -> None:
    host = iscsi.connector("node1")
    export = iscsi.offer("one-1", "node1")
    device = await host.connect(export)
    iscsi.withdraw(export)
    writer = writing(device)
    await asyncio.sleep(0.5)
    assert writer.poll() is None

    begun = time.monotonic()
    await host.disconnect(export.iqn, force=True)

    assert time.monotonic() - begun < 60
    assert writer.wait(60) != 0
    assert leftovers(iscsi) == []


async def test_an_agent_that_was_killed_half_way_leaves_what_the_next_connect_replaces(iscsi: TgtLab) -> None:
    host = iscsi.connector("node1")
    export = iscsi.offer("one-1", "node1")
    await host.connect(export)
    directory = f"{iscsi.directory}/node1/{os.listdir(f'{iscsi.directory}/node1')[0]}"
    os.unlink(f"{directory}/state")

    device = await iscsi.connector("node1").connect(export)

    assert len(daemons(iscsi, "qemu-storage-daemon")) == 1
    write(device, b"n" * 4096)
    assert content(iscsi.backing(export))[:4096] == b"n" * 4096


async def test_a_start_removes_what_an_agent_killed_at_once_left(iscsi: TgtLab) -> None:
    os.makedirs(f"{iscsi.directory}/node1/0123456789abcdef")

    await iscsi.connector("node1").settle()

    assert leftovers(iscsi) == []


async def test_a_start_removes_what_an_agent_killed_half_way_left_and_nothing_else(iscsi: TgtLab) -> None:
    host = iscsi.connector("node1")
    kept = iscsi.offer("one-1", "node1")
    await host.connect(kept)
    before = os.listdir(f"{iscsi.directory}/node1")
    await host.connect(iscsi.offer("one-2", "node1"))
    forget_state(iscsi, *before)

    await iscsi.connector("node1").settle()

    assert os.listdir(f"{iscsi.directory}/node1") == before
    assert [(one.iqn, one.alive) for one in await host.connections()] == [(kept.iqn, True)]
    assert len(daemons(iscsi, "qemu-storage-daemon")) == len(daemons(iscsi, "nbdfuse")) == 1
    await host.disconnect(kept.iqn)
    assert leftovers(iscsi) == []


async def test_a_start_leaves_a_device_that_somebody_has_open(iscsi: TgtLab) -> None:
    host = iscsi.connector("node1")
    export = iscsi.offer("one-1", "node1")
    device = await host.connect(export)
    forget_state(iscsi)

    descriptor = os.open(device, os.O_RDONLY)

    await iscsi.connector("node1").settle()

    assert len(read(device, 512)) == 512
    os.close(descriptor)
    await host.settle()
    assert leftovers(iscsi) == []


def forget_state(iscsi: TgtLab, *others: str) -> None:
    """Make the one connection of node1 that is not among `others` tell nothing any more."""
    (name,) = set(os.listdir(f"{iscsi.directory}/node1")) - set(others)
    os.unlink(f"{iscsi.directory}/node1/{name}/state")


async def test_a_mounted_device_is_busy(iscsi: TgtLab) -> None:
    host = iscsi.connector("node1")
    export = iscsi.offer("one-1", "node1")
    device = await host.connect(export)
    run("mkfs.ext4", "-q", device)
    place = f"{iscsi.directory}/mounted"
    os.mkdir(place)
    run("mount", device, place)

    try:
        with pytest.raises(Busy, match=f"mounted on {place}"):
            await host.disconnect(export.iqn)
    finally:
        await unmounted(device, place)

    await host.disconnect(export.iqn)
    assert leftovers(iscsi) == []


async def test_a_grown_volume_is_connected_with_its_new_size(iscsi: TgtLab) -> None:
    host = iscsi.connector("node1")
    export = iscsi.offer("one-1", "node1")
    await host.connect(export)
    os.truncate(iscsi.backing(export), 32 * MIB)
    iscsi.exchange(export)

    device = await host.connect(msgspec.structs.replace(export, size_bytes=32 * MIB))

    assert len(read(device, 4096, 32 * MIB - 4096)) == 4096


async def test_a_new_agent_grows_a_device_when_the_nas_has_told_it_the_target_again(iscsi: TgtLab) -> None:
    export = iscsi.offer("one-1", "node1")
    await iscsi.connector("node1").connect(export)
    iscsi.grow(export, 32 * MIB)
    successor = iscsi.connector("node1")

    with pytest.raises(Busy, match="repeat it"):
        await successor.grow(export.iqn, 32 * MIB)
    assert [connected.alive for connected in await successor.connections()] == [True]

    device = await successor.connect(msgspec.structs.replace(export, size_bytes=32 * MIB))
    assert await successor.grow(export.iqn, 32 * MIB) == device
    assert len(read(device, 4096, 32 * MIB - 4096)) == 4096


async def test_nothing_shows_the_secret(iscsi: TgtLab, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    export = iscsi.offer("one-1", "node1")

    await iscsi.connector("node1").connect(export)

    for daemon in working_below(f"{iscsi.directory}/node1"):
        assert export.secret.encode() not in content(f"/proc/{daemon.pid}/cmdline")
    for directory, _, files in os.walk(f"{iscsi.directory}/node1"):
        for name in files:
            if name in ("state", "log", "secret"):
                assert export.secret.encode() not in content(f"{directory}/{name}")
    assert export.secret not in caplog.text


async def test_the_session_ends_with_the_disconnect(iscsi: TgtLab) -> None:
    host = iscsi.connector("node1")
    export: Export = iscsi.offer("one-1", "node1")
    await host.connect(export)
    assert export.initiator in iscsi.sessions()

    await host.disconnect(export.iqn)

    # tgtd sees the end of a connection a moment later.
    async with asyncio.timeout(60):
        while iscsi.sessions() != "":
            await asyncio.sleep(0.05)


async def test_a_portal_that_takes_connections_and_says_nothing_is_unreachable(iscsi: TgtLab) -> None:
    host = iscsi.connector("node1")
    silent = await asyncio.start_server(lambda reader, writer: asyncio.sleep(600), "127.0.0.1", 0)
    portal = Portal("127.0.0.1", silent.sockets[0].getsockname()[1])
    begun = time.monotonic()

    with pytest.raises(Unreachable, match="no login"):
        await host.connect(msgspec.structs.replace(iscsi.offer("one-1", "node1"), portal=portal))

    assert time.monotonic() - begun < 60
    assert leftovers(iscsi) == []
    silent.close()


@pytest.mark.parametrize("delay_ms", range(0, 60, 4))
async def test_a_cancelled_connect_leaves_nothing(iscsi: TgtLab, delay_ms: int) -> None:
    host = iscsi.connector("node1")
    export = iscsi.offer("one-1", "node1")
    connecting = asyncio.create_task(host.connect(export))
    await asyncio.sleep(delay_ms / 1000)

    connecting.cancel()
    await asyncio.wait([connecting])

    if not connecting.cancelled():
        await host.disconnect(export.iqn)
    assert leftovers(iscsi) == []
    assert len(read(await host.connect(export), 512)) == 512


async def test_a_writer_goes_on_when_the_target_daemon_is_back(iscsi: TgtLab) -> None:
    export = iscsi.offer("one-1", "node1")
    device = await iscsi.connector("node1").connect(export)
    write(device, b"1" * 4096)

    iscsi.restart()
    iscsi.offer("one-1", "node1")
    await asyncio.to_thread(write, device, b"2" * 4096, 4096)

    assert content(iscsi.backing(export))[:8192] == b"1" * 4096 + b"2" * 4096


def writing(device: str) -> subprocess.Popen[bytes]:
    """A process that writes to the device until that fails."""
    argv = ["dd", "if=/dev/zero", f"of={device}", "bs=64k", "oflag=direct", "conv=nocreat"]
    return subprocess.Popen(argv, stderr=subprocess.DEVNULL)


def make_tree(place: str) -> str:
    """200 files of random content."""
    os.mkdir(place)
    for number in range(200):
        with open(f"{place}/{number}", "wb") as file:
            file.write(random.Random(number).randbytes(100_000))
    return place
