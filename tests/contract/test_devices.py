"""Who has a device open: everybody, and those who only look at it for a moment because it appeared or changed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.support.requires import requires

from onelun.compute import devices

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
    yield loop
    _run("losetup", "--detach", loop)


def _run(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, timeout=20, check=True).stdout.strip()


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


def test_a_program_that_has_it_open_uses_it(device: str) -> None:
    with started("qemu", device):
        assert names(devices.openers(device)) == names(devices.users(device)) == ["qemu"]
    assert devices.openers(device) == []


def test_a_prober_has_it_open_and_does_not_use_it(device: str) -> None:
    with started("blkid", device):
        assert names(devices.openers(device)) == ["blkid"]
        assert devices.users(device) == []


@pytest.mark.parametrize("between", ["(spawn)", "sh (udev) 1"])
def test_what_udev_starts_does_not_use_it(device: str, between: str) -> None:
    above = ("(udev-worker)", "", _PROGRAM, between, "", _PROGRAM)
    with started(*above, "scsi_id", device):
        assert names(devices.openers(device)) == ["scsi_id"]
        assert devices.users(device) == []


def test_what_others_start_uses_it(device: str) -> None:
    with started("libvirtd", "", _PROGRAM, "scsi_id", device):
        assert names(devices.users(device)) == ["scsi_id"]
