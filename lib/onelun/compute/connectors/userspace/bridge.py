"""From an iSCSI LUN to a file: qemu-storage-daemon logs in and serves NBD on a unix socket, nbdfuse shows it as a file.

qemu-storage-daemon's own FUSE export is not used: under a loop device with direct I/O it corrupts data (QEMU 7.2).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from urllib.parse import quote

from onelun import command
from onelun.compute.connectors.base import Export
from onelun.compute.processes import Daemon, daemon_of, end, lives
from onelun.errors import CommandFailed

_READY_S = 8.0
_NODE = "volume"


def file_of(directory: str) -> str:
    """The file that shows the volume."""
    return f"{directory}/volume"


async def start_session(directory: str, export: Export, lun: int) -> Daemon:
    """Start qemu-storage-daemon: the session with the target, and the NBD server.

    The secret is in a file only until the daemon has read it. Raises CommandFailed with the daemon's last words.
    """
    secret, pidfile = f"{directory}/secret", f"{directory}/session.pid"
    drive: dict[str, object] = {
        "driver": "iscsi",
        "node-name": _NODE,
        "transport": "tcp",
        "portal": str(export.portal),
        "target": export.iqn,
        "lun": lun,
        "initiator-name": export.initiator,
        "read-only": export.readonly,
        "discard": "unmap",
    }
    objects: list[str] = []
    if export.user is not None:
        _write_secret(secret, export.secret or "")
        drive |= {"user": export.user, "password-secret": "chap"}
        objects = ["--object", json.dumps({"qom-type": "secret", "id": "chap", "file": secret})]
    # fmt: off
    argv = (
        "qemu-storage-daemon", *objects,
        "--blockdev", json.dumps(drive),
        "--nbd-server", json.dumps({"addr": {"type": "unix", "path": _socket(directory)}}),
        "--export", json.dumps({"type": "nbd", "id": "export", "node-name": _NODE, "name": _NODE,
                                "writable": not export.readonly}),
        "--pidfile", pidfile,
    )
    # fmt: on
    try:
        return await _start(directory, pidfile, *argv)
    finally:
        _remove(secret)


async def start_file(directory: str, *, readonly: bool) -> Daemon:
    """Start nbdfuse on the daemon's socket. Raises CommandFailed with its last words."""
    path, pidfile = file_of(directory), f"{directory}/file.pid"
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    url = f"nbd+unix:///{_NODE}?socket={quote(_socket(directory))}"
    options = ("--readonly",) if readonly else ()
    return await _start(directory, pidfile, "nbdfuse", *options, "--pidfile", pidfile, path, url)


async def unmount(directory: str) -> bool:
    """Take the file's mount away, whoever still uses it. False when it does not go. Absent: True."""
    for _ in range(5):
        if not _mounted(file_of(directory)):
            return True
        await command.run("umount", "--lazy", file_of(directory), timeout_s=5, check=False)
    return not _mounted(file_of(directory))


async def _start(directory: str, pidfile: str, *argv: str) -> Daemon:
    """Start a data-path process. Both write their pidfile when they are ready to serve; one that never is is killed."""
    _remove(pidfile)
    log_path = f"{directory}/log"
    daemon = daemon_of(await command.spawn(*argv, log_path=log_path))
    try:
        async with asyncio.timeout(_READY_S):
            while daemon is not None and lives(daemon):
                if os.path.exists(pidfile) and os.path.getsize(pidfile) > 0:
                    return daemon
                await asyncio.sleep(0.003)
    except TimeoutError:
        if daemon is not None:
            await end(daemon, grace_s=0)
        raise CommandFailed(
            f"{argv[0]} was not ready within {_READY_S:g} s: {_last(log_path)}", command=argv[0]
        ) from None
    raise CommandFailed(f"{argv[0]} ended at once: {_last(log_path)}", command=argv[0])


def _socket(directory: str) -> str:
    return f"{directory}/nbd"


def _write_secret(path: str, secret: str) -> None:
    _remove(path)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(secret)


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _last(log_path: str) -> str:
    try:
        with open(log_path, encoding="utf-8", errors="replace") as file:
            return " ".join(file.read().split())[-400:] or "no message"
    except OSError:
        return "no message"


def _mounted(path: str) -> bool:
    # mountinfo writes blanks of a path as \040 (proc(5)).
    shown = path.replace("\\", "\\134").replace(" ", "\\040").replace("\t", "\\011").replace("\n", "\\012")
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        return any(line.split()[4] == shown for line in file)
