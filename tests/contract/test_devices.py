"""Who has a device open: everybody, and those who only look at it for a moment because it appeared or changed."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.support.requires import requires

from onelun.compute import devices, looks

# Takes the name, opens the device if told so, starts what comes after as its child, and waits.
_PROGRAM = """
import subprocess, sys
name, device, *child = sys.argv[1:]
with open("/proc/self/comm", "w") as file:
    file.write(name)
held = open(device, "rb") if device else None
if child:
    with subprocess.Popen([sys.executable, "-c", *child], stdin=subprocess.PIPE):
        sys.stdin.read()
else:
    print("there", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def device(tmp_path: Path) -> Iterator[str]:
    requires("root", "loop", "losetup")
    path = tmp_path / "device"
    path.write_bytes(bytes(1 << 20))
    loop = _run("losetup", "--find", "--show", str(path))
    if shutil.which("udevadm"):
        # Where udev runs it looks into the new device, and would be found there.
        _run("udevadm", "settle", "--timeout=60")
    yield loop
    _run("losetup", "--detach", loop)


def _run(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, timeout=90, check=True).stdout.strip()


@contextmanager
def started(*arguments: str) -> Iterator[None]:
    """The program above is there, with its child, and ends with the block."""
    argv = [sys.executable, "-c", _PROGRAM, *arguments]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"
        yield
        process.stdin.close()


def names(found: list[str]) -> list[str]:
    return [text.partition(" (")[2].rstrip(")") for text in found]


async def test_a_program_that_has_it_open_uses_it(device: str) -> None:
    with started("qemu", device):
        assert names(await devices.openers(device)) == names(await devices.users(device)) == ["qemu"]
    assert await devices.openers(device) == []


async def test_a_prober_has_it_open_and_does_not_use_it(device: str) -> None:
    with started("blkid", device):
        assert names(await devices.openers(device)) == ["blkid"]
        assert await devices.users(device) == []


@pytest.mark.parametrize("between", ["(spawn)", "sh (udev) 1"])
async def test_what_udev_starts_does_not_use_it(device: str, between: str) -> None:
    above = ("(udev-worker)", "", _PROGRAM, between, "", _PROGRAM)
    with started(*above, "scsi_id", device):
        assert names(await devices.openers(device)) == ["scsi_id"]
        assert await devices.users(device) == []


async def test_what_others_start_uses_it(device: str) -> None:
    with started("libvirtd", "", _PROGRAM, "scsi_id", device):
        assert names(await devices.users(device)) == ["scsi_id"]


async def test_all_who_ask_at_once_are_answered_by_two_looks(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    monkeypatch.setattr(looks, "look", lambda look=looks.look: taken.append(None) or look())

    with started("qemu", device):
        first = asyncio.create_task(devices.openers(device))
        await asyncio.sleep(0.001)
        found = await asyncio.gather(first, *(devices.openers(device) for _ in range(50)))

    assert [names(one) for one in found] == [["qemu"]] * 51
    assert len(taken) <= 2


async def test_a_look_begins_after_the_question(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    looked, goes_on = threading.Event(), threading.Event()

    def held(look: Callable[[], looks.Opened] = looks.look) -> looks.Opened:
        found = look()
        looked.set()
        assert goes_on.wait(20)
        return found

    monkeypatch.setattr(looks, "look", held)
    earlier = asyncio.create_task(devices.openers(device))
    assert await asyncio.to_thread(looked.wait, 20)

    with started("qemu", device):
        asked = asyncio.create_task(devices.openers(device))
        await asyncio.sleep(0)
        goes_on.set()

        assert await earlier == []
        assert names(await asked) == ["qemu"]


async def test_who_gives_up_takes_the_look_from_nobody_else(device: str) -> None:
    with started("qemu", device):
        asking = [asyncio.create_task(devices.openers(device)) for _ in range(2)]
        await asyncio.sleep(0.001)
        asking[0].cancel()

        assert names(await asking[1]) == ["qemu"]
