"""What the suites of connectors look at: devices, the data behind them, and what is left of a connection."""

from __future__ import annotations

import asyncio
import mmap
import os
import random
import signal
import stat
import subprocess
import time

from tests.support.iscsi import LIMIT_S, Lab

from onelun.compute import processes

HOSTS = ("node1", "node2")


async def forget(lab: Lab) -> None:
    """Disconnect whatever a test left connected; nothing may remain."""
    for name in HOSTS:
        host = lab.connector(name)
        for connected in await host.connections():
            await host.disconnect(connected.iqn, force=True)
    assert leftovers(lab) == []


def leftovers(lab: Lab) -> list[str]:
    """Processes, mounts, loops and directories that belong to connections in the lab."""
    found = [f"process {daemon.pid}" for name in HOSTS for daemon in processes.working_below(f"{lab.directory}/{name}")]
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        found += [line for line in file if lab.directory in line]
    losetup = subprocess.run(
        ["losetup", "-n", "-O", "BACK-FILE"], capture_output=True, text=True, timeout=LIMIT_S, check=True
    )
    found += [line for line in losetup.stdout.splitlines() if lab.directory in line]
    for name in HOSTS:
        if os.path.isdir(f"{lab.directory}/{name}"):
            found += os.listdir(f"{lab.directory}/{name}")
    return found + lab.leftovers()


def daemons(lab: Lab, program: str, host: str = "node1") -> list[int]:
    pids = [daemon.pid for daemon in processes.working_below(f"{lab.directory}/{host}")]
    return [pid for pid in pids if _program(pid) == program]


def _program(pid: int) -> str | None:
    try:
        return os.path.basename(os.readlink(f"/proc/{pid}/exe"))
    except OSError:
        return None


def open_device(device: str, flags: int) -> int:
    """Open it past the host's cache, as cache=none does, where it is a block device."""
    direct = os.O_DIRECT if stat.S_ISBLK(os.stat(device).st_mode) else 0
    return os.open(device, flags | direct)


def write(device: str, data: bytes, offset: int = 0) -> None:
    descriptor = open_device(device, os.O_WRONLY)
    try:
        write_to(descriptor, data, offset)
    finally:
        os.close(descriptor)


def write_to(descriptor: int, data: bytes, offset: int = 0) -> None:
    """Write to what `open_device` opened, and flush."""
    with mmap.mmap(-1, len(data)) as buffer:
        buffer.write(data)
        assert os.pwritev(descriptor, [buffer], offset) == len(data)
        os.fsync(descriptor)


def read(device: str, size: int, offset: int = 0) -> bytes:
    descriptor = open_device(device, os.O_RDONLY)
    buffer = mmap.mmap(-1, size)
    try:
        done = 0
        while done < size:
            count = os.preadv(descriptor, [memoryview(buffer)[done:]], offset + done)
            assert count > 0
            done += count
        return buffer[:]
    finally:
        os.close(descriptor)


async def unmounted(device: str, place: str) -> None:
    """Unmount it, and wait until the kernel has let go of the device."""
    run("umount", place)
    async with asyncio.timeout(60):
        while True:
            try:
                os.close(os.open(device, os.O_RDONLY | os.O_EXCL))
            except OSError:
                await asyncio.sleep(0.05)
            else:
                return


def content(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def scribble(descriptor: int, expected: bytearray, seed: int, *, count: int = 600) -> None:
    """Overlapping random writes of 512 B to 64 KiB, the same in `expected`."""
    source = random.Random(seed)
    for _ in range(count):
        size = 512 * source.randint(1, 128)
        offset = 512 * source.randrange((len(expected) - size) // 512 + 1)
        data = source.randbytes(size)
        assert os.pwrite(descriptor, data, offset) == size
        expected[offset : offset + size] = data


def run(*argv: str) -> None:
    """A tool that must succeed."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{argv}: {done.stderr}"


async def start_writer(device: str) -> subprocess.Popen[bytes]:
    """A process that writes to the device until that fails, and that waits for the device already."""
    # Without O_CREAT: a device that is not there must not become a file.
    argv = ["dd", "if=/dev/zero", f"of={device}", "bs=64k", "oflag=direct", "conv=nocreat"]
    writer = subprocess.Popen(argv, stderr=subprocess.DEVNULL)  # noqa: ASYNC220 it returns at once
    until, waits = time.monotonic() + LIMIT_S, 0
    while waits < 5:
        assert writer.poll() is None, "it ended"
        assert time.monotonic() < until, "it does not wait for the device"
        waits = waits + 1 if _waits_in_kernel(writer.pid, "dd") else 0
        await asyncio.sleep(0.1)
    return writer


def _waits_in_kernel(pid: int, program: str) -> bool:
    """Whether the process is that program by now, and in a sleep that no signal ends."""
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        name, _, rest = file.read().partition("(")[2].rpartition(")")
    return name == program and rest.split()[0] == "D"


def kill(lab: Lab, program: str) -> processes.Daemon | None:
    """Kill -9 the one process of that program that carries node1's data, and return it as it was."""
    (pid,) = daemons(lab, program)
    daemon = processes.daemon_of(pid)
    os.kill(pid, signal.SIGKILL)
    return daemon


async def killed(lab: Lab, program: str) -> None:
    """Kill it and wait until it is gone.

    A dying process loses its program and arguments in /proc before it has closed its files, and still lives then.
    """
    daemon = kill(lab, program)
    for _ in range(6000):
        if not processes.lives(daemon):
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"{program} is still there")
