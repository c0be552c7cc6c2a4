"""The end of a sandbox, whatever was killed before: everything is found by its mark, and removed in the safe order.

The order is a measured one: a loop device or a filesystem is never taken down before the qemu-storage-daemon behind it is
dead (pending I/O becomes an error and waiting processes end); nbdfuse goes after its loop device.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import re
import shutil
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from tests.support.sandbox.place import HOSTS, Place, SandboxError
from tests.support.sandbox.processes import Process, look, marked, members, run, stubs
from tests.support.sandbox.topology import DEVICES, devices_kept

# As the kernel cuts them (15 characters).
_INITIATORS = ("qemu-storage-da", "qemu-img", "qemu-io", "qemu-nbd")
_KEEPERS = ("sleep", "nbdfuse", "tgtd")
_KERNEL_S = 30.0


def down(place: Place) -> None:
    """Remove the sandbox. Repeating it succeeds. SandboxError, saying what is left, when something cannot be removed."""
    with _not_while_starting(place):
        attached = loops(place)
        # A stub waits for its frontend to come back; this one never does.
        _end(stubs(place))
        _end([process for process in members(place) if process.name in _INITIATORS])
        _end([process for process in members(place) if process.name not in _KEEPERS])
        namespaces = _namespaces(place)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(_unmount_devices, namespaces))
            list(pool.map(lambda loop: _detach(place, loop), attached))
        _end([process for process in members(place) if process.name == "nbdfuse"], first=signal.SIGTERM)
        _end_all(place)
        for loop in loops(place):
            _detach(place, loop)
        _remove_links(place)
        _remove_files(place)


@contextlib.contextmanager
def _not_while_starting(place: Place) -> Iterator[None]:
    """Wait for an `up` of the same sandbox in another process, which holds this lock, but not for long."""
    try:
        lock = os.open(place.path("up.lock"), os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        yield
        return
    try:
        end = time.monotonic() + 30
        while time.monotonic() < end:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            time.sleep(0.1)
        yield
    finally:
        os.close(lock)


def _end(processes: list[Process], first: int = signal.SIGKILL) -> None:
    """End these, waiting at most 5 s: one that waits in the kernel ends when what it waits for does."""
    for process in processes:
        process.kill(first)
    started = time.monotonic()
    while (left := [process for process in processes if process.alive()]) and time.monotonic() < started + 5:
        if time.monotonic() > started + 1:
            for process in left:
                process.kill()
        time.sleep(0.01)


def _end_all(place: Place) -> None:
    end = time.monotonic() + 10
    while (left := members(place)) and time.monotonic() < end:
        _end(left)
    if left:
        raise SandboxError(f"sandbox {place.number}: cannot end {', '.join(f'{p.name} ({p.pid})' for p in left)}")


def _namespaces(place: Place) -> list[Process]:
    """One living process for each mount namespace of the sandbox."""
    found: dict[str, Process] = {}
    own = os.readlink("/proc/self/ns/mnt")
    for process in members(place):
        with contextlib.suppress(OSError):
            found.setdefault(os.readlink(f"/proc/{process.pid}/ns/mnt"), process)
    return [process for namespace, process in found.items() if namespace != own]


def _unmount_devices(inside: Process) -> None:
    """Unmount what a person or a test mounted from a loop device in that namespace."""
    with contextlib.suppress(OSError, SandboxError), open(f"/proc/{inside.pid}/mountinfo") as file:
        points = [line.split()[4] for line in file if line.split(" - ")[1].split()[1].startswith("/dev/loop")]
        enter = ("nsenter", "-t", str(inside.pid), "-m", "--")
        for point in reversed(points):
            try:
                run(*enter, "timeout", "-k1", "3", "umount", point)
            except SandboxError:
                run(*enter, "umount", "-l", point)


def loops(place: Place) -> list[str]:
    """The loop devices whose file is the sandbox's, also one whose file went with its host's namespaces."""
    noted = _noted_loops(place)
    found = []
    for name in os.listdir("/sys/block"):
        with contextlib.suppress(OSError), open(f"/sys/block/{name}/loop/backing_file") as file:
            path = file.read().rstrip("\n")
            # In a namespace that is gone, the file that was mounted by FUSE is the root of nothing.
            if path.startswith(f"{place.dir}/") or (path == "/" and name in noted):
                found.append(f"/dev/{name}")
    return found


def _noted_loops(place: Place) -> set[str]:
    """The names of loop devices in what the agents keep about their connections."""
    names: set[str] = set()
    for path in glob.glob(place.path("hosts", "*", "run", "**"), recursive=True):
        if os.path.isfile(path) and not os.path.islink(path):
            with contextlib.suppress(OSError), open(path, errors="replace") as file:
                names.update(re.findall(r"/dev/(loop\d+)\b", file.read(1 << 16)))
    return names


def _detach(place: Place, loop: str) -> None:
    # By now it may be free, or somebody else's.
    if loop in loops(place):
        with contextlib.suppress(SandboxError):
            run("timeout", "-k1", "5", "losetup", "-d", loop)


def links(place: Place) -> list[str]:
    """The sandbox's network devices that are there."""
    wanted = (place.bridge, *(place.veth(host) for host in HOSTS))
    return [name for name in wanted if os.path.exists(f"/sys/class/net/{name}")]


def _remove_links(place: Place) -> None:
    for name in links(place):
        # A cable goes by itself when the namespace at its other end does.
        run("ip", "link", "del", name, check=False)


def mounts(place: Place) -> list[str]:
    """Mount points of the sandbox that the machine's own mount namespace shows; there should never be one."""
    with open("/proc/self/mountinfo") as file:
        return [line.split()[4] for line in file if f"{place.dir}/" in line or place.mark in line]


def _remove_files(place: Place) -> None:
    for point in reversed(mounts(place)):
        run("umount", "-l", point, check=False)
    if left := mounts(place):
        raise SandboxError(f"sandbox {place.number}: {left[0]} is still mounted; nothing below {place.dir} was removed")
    shutil.rmtree(place.dir, ignore_errors=True)
    with devices_kept():
        if _sees_all_processes() and not any(its.number != place.number for its in marked().values()):
            with contextlib.suppress(OSError):
                os.rmdir(DEVICES)


def _sees_all_processes() -> bool:
    """Whether no other sandbox can hide from us: removing a directory that is a mount point elsewhere unmounts it there.

    In a container that shares the machine's /dev, the directory stays.
    """
    # The number of the first pid namespace is a constant of the kernel (PROC_PID_INIT_INO in linux/proc_ns.h).
    return os.stat("/proc/self/ns/pid").st_ino == 0xEFFFFFFC


def left_of(place: Place) -> list[str]:
    """What is left of a sandbox that is down, one line each."""
    # The kernel lets go a moment later: of cables with the namespace of the last process, of a loop device with its last user.
    end = time.monotonic() + _KERNEL_S
    while (links(place) or loops(place)) and time.monotonic() < end:
        time.sleep(0.05)
    left = [f"process {process.pid} ({process.name})" for process in (*members(place), *stubs(place))]
    left += [f"loop device {loop}" for loop in loops(place)]
    left += [f"mount {point}" for point in mounts(place)]
    left += [f"network device {name}" for name in links(place)]
    left += [f"process {pid} of user {uid}" for pid, uid in _of_users(place)]
    if os.path.lexists(place.dir):
        left.append(f"directory {place.dir}")
    return left


def _of_users(place: Place) -> list[tuple[int, int]]:
    found = []
    for entry in os.listdir("/proc"):
        with contextlib.suppress(OSError, SandboxError):
            uid = os.stat(f"/proc/{entry}").st_uid
            if entry.isdigit() and uid in (place.broker_uid, place.frontend_uid):
                found.append((look(int(entry)).pid, uid))
    return found
