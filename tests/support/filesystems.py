"""Small filesystems on loop devices, for as long as a test needs them."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.support.requires import requires

MIB = 1 << 20

# The smallest that each mkfs makes without a complaint, and room to work in.
_SIZES = {"ext4": 192 * MIB, "xfs": 320 * MIB, "btrfs": 256 * MIB}
_MKFS = {
    "ext4": ("mkfs.ext4", "-q", "-F"),
    "xfs": ("mkfs.xfs", "-q", "-f", "-m", "reflink=1"),
    "btrfs": ("mkfs.btrfs", "-q", "-f"),
}


@contextlib.contextmanager
def mounted(kind: str, directory: Path, *, size_bytes: int | None = None) -> Iterator[Path]:
    """A fresh filesystem of that kind, mounted below `directory`; unmounted, with its loop device gone, at the end."""
    requires("root", "loop", _MKFS[kind][0])
    image = directory / f"{kind}.img"
    place = directory / kind
    place.mkdir(parents=True)
    with image.open("wb") as file:
        file.truncate(size_bytes or _SIZES[kind])
    try:
        subprocess.run([*_MKFS[kind], str(image)], check=True, timeout=60)
        subprocess.run(["mount", "-o", "loop", str(image), str(place)], check=True, timeout=60)
        yield place
    finally:
        if place.is_mount():
            done = subprocess.run(["umount", str(place)], check=False, timeout=60)
            if done.returncode:
                # Something still has it open: it goes out of sight now, and away when that ends.
                subprocess.run(["umount", "-l", str(place)], check=True, timeout=60)
        image.unlink()
