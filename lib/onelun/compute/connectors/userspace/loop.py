"""Loop devices with direct I/O over one file."""

from __future__ import annotations

import asyncio
import grp
import os
import time

from onelun import command
from onelun.errors import CommandFailed
from onelun.numbers import number_in

_TOOL_S = 5.0
_BLOCKS = "/sys/block"


async def attach(path: str, *, readonly: bool) -> str:
    """Make a loop device over `path` and return its name. Raises CommandFailed when it is empty or not direct."""
    options = ("--read-only",) if readonly else ()
    for _ in range(3):
        argv = ("losetup", "--find", "--show", "--direct-io=on", *options, path)
        device = (await command.run(*argv, timeout_s=_TOOL_S)).stdout.strip()
        if size_bytes(device) == 0:
            # losetup makes an empty device, without an error, of a file whose size it could not see.
            await detach(device, path)
            continue
        if _read(device, "loop/dio") != "1":
            await detach(device, path)
            raise CommandFailed(f"{path} takes no direct I/O: {device} would show stale data", command="losetup")
        return device
    raise CommandFailed(f"losetup makes only empty devices of {path}", command="losetup")


async def detach(device: str, path: str) -> bool:
    """Take the device off `path`. False when somebody has it open: it goes with its last user. Gone: True."""
    if backing(device) != path:
        return True
    await command.run("losetup", "--detach", device, timeout_s=_TOOL_S, check=False)
    until = time.monotonic() + 1.0
    while backing(device) == path:
        if time.monotonic() >= until:
            return False
        await asyncio.sleep(0.01)
    return True


def give_back(device: str) -> None:
    """Make the node root's again: loop nodes stay when their device goes, and the next one may be anybody's."""
    try:
        group = grp.getgrnam("disk").gr_gid
    except KeyError:
        group = 0
    os.chown(device, 0, group)
    os.chmod(device, 0o660)


def devices_of(path: str) -> list[str]:
    """All loop devices over `path`."""
    names = (f"/dev/{name}" for name in os.listdir(_BLOCKS) if name.startswith("loop"))
    return [device for device in names if backing(device) == path]


def backing(device: str) -> str | None:
    """The file behind the device; None when there is none."""
    return _read(device, "loop/backing_file")


def size_bytes(device: str) -> int:
    """The size that the kernel shows; 0 for an absent device."""
    return number_in(_read(device, "size") or "0", f"the size of {device}") * 512


def _read(device: str, attribute: str) -> str | None:
    try:
        with open(f"{_BLOCKS}/{os.path.basename(device)}/{attribute}", encoding="utf-8", errors="replace") as file:
            return file.read().rstrip("\n")
    except (OSError, ValueError):
        # ValueError: what somebody calls a device is no name that a file may have.
        return None
