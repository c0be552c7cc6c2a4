"""What a VM would do with its disks, done on the host where it would run: a filesystem, files, blocks."""

from __future__ import annotations

import hashlib
import os
import secrets
import subprocess

from tests.support.sandbox.place import Place, SandboxError
from tests.support.sandbox.processes import enter, recorded

# Inside the smallest image, and past what a boot sector's reader looks at.
OFFSET = 1 << 20
BLOCK = 4096
NODES = {"host01": "node1", "host02": "node2"}


class Guest:
    """The inside of a VM that runs on `host`, a name of oned's."""

    def __init__(self, place: Place, host: str) -> None:
        holder = recorded(place, f"{NODES[host]}.holder")
        if holder is None:
            raise SandboxError(f"{NODES[host]} is gone")
        self._enter = enter(holder.pid)
        self._mount_point = place.path("hosts", NODES[host], "mnt")

    def make_filesystem(self, disk: str) -> None:
        """An ext4 on it."""
        self._run("mkfs.ext4", "-q", "-F", disk)

    def write_file(self, disk: str, size_bytes: int) -> str:
        """Write a file of random bytes to the disk's filesystem and return its SHA-256."""
        content = secrets.token_bytes(size_bytes)
        self._mounted(disk, 'cat >"$1/file" && sync -f "$1"', content)
        return hashlib.sha256(content).hexdigest()

    def file_sha256(self, disk: str) -> str:
        """The SHA-256 of that file, as this host reads it."""
        return hashlib.sha256(self._mounted(disk, 'cat "$1/file"')).hexdigest()

    def write_block(self, disk: str, block: bytes) -> None:
        """Write one block at OFFSET, past all caches."""
        self._run(
            "dd",
            f"of={disk}",
            f"seek={OFFSET}",
            "oflag=seek_bytes,direct",
            *_ONE,
            "conv=notrunc,nocreat,fsync",
            stdin=block,
        )

    def read_block(self, disk: str) -> bytes:
        """The block at OFFSET."""
        return self._run("dd", f"if={disk}", f"skip={OFFSET}", "iflag=skip_bytes,direct", *_ONE)

    def _mounted(self, disk: str, script: str, stdin: bytes = b"") -> bytes:
        os.makedirs(self._mount_point, exist_ok=True)
        whole = f'mount "$0" "$1" || exit; ({script}); status=$?; umount "$1" && exit $status'
        return self._run("sh", "-c", whole, disk, self._mount_point, stdin=stdin)

    def _run(self, *argv: str, stdin: bytes = b"") -> bytes:
        try:
            done = subprocess.run([*self._enter, *argv], input=stdin, capture_output=True, timeout=60, check=False)
        except subprocess.TimeoutExpired:
            raise SandboxError(f"{argv[0]} did not end within 60 s") from None
        if done.returncode:
            raise SandboxError(f"{argv[0]} failed: {' '.join(done.stderr.decode(errors='replace').split())}")
        return done.stdout


_ONE = (f"bs={BLOCK}", "count=1", "status=none")


def block_of(path: str) -> bytes:
    """The block at OFFSET of a file."""
    with open(path, "rb") as file:
        file.seek(OFFSET)
        return file.read(BLOCK)
