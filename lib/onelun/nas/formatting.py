"""Filesystems on new volumes: made here, on the NAS, while the volume is being built and nobody else has it.

Nothing of it crosses the network, and what an interruption leaves is a building volume, which is destroyed. A volume reads
as zeros when it is new, so the tools neither discard it nor write zeros over it.
"""

from __future__ import annotations

import logging
import shutil
from typing import NamedTuple

from onelun import command
from onelun.errors import CommandFailed, Rejected
from onelun.model import Filesystem, Volume
from onelun.nas.backends.base import Backend
from onelun.rpc.job import Job

log = logging.getLogger(__name__)

# What is left of the request's time when the tool is killed.
_SPARE_S = 5.0


class _Tool(NamedTuple):
    argv: tuple[str, ...]
    package: str


def _mke2fs(kind: str) -> _Tool:
    # Said outright: without ext4 in the NAS's own kernel mke2fs would write all inode tables.
    extended = "nodiscard,lazy_itable_init=1,lazy_journal_init=1"
    return _Tool(("mke2fs", "-q", "-F", "-t", kind, "-E", extended), "e2fsprogs")


# In each, what forces it means only that the device is whole and has no partition table.
_TOOLS = {
    Filesystem.EXT2: _mke2fs("ext2"),
    Filesystem.EXT3: _mke2fs("ext3"),
    Filesystem.EXT4: _mke2fs("ext4"),
    Filesystem.XFS: _Tool(("mkfs.xfs", "-q", "-f", "-K"), "xfsprogs"),
    Filesystem.BTRFS: _Tool(("mkfs.btrfs", "-q", "-f", "-K"), "btrfs-progs"),
    Filesystem.VFAT: _Tool(("mkfs.vfat", "-I"), "dosfstools"),
    Filesystem.NTFS: _Tool(("mkfs.ntfs", "-q", "-Q", "-F"), "ntfs-3g"),
    Filesystem.SWAP: _Tool(("mkswap", "-q", "-f"), "util-linux"),
}


class Formatting:
    """Formats the volumes of the NAS `nas`; tools are looked for in `path`."""

    def __init__(self, nas: str, path: str = command.SEARCH_PATH) -> None:
        self._nas = nas
        self._path = path

    def check(self, filesystem: Filesystem) -> None:
        """Raise Rejected, naming the package, when the tool for it is not installed."""
        tool = _TOOLS[filesystem]
        if shutil.which(tool.argv[0], path=self._path) is None:
            raise Rejected(
                f"{self._nas} has no {tool.argv[0]}, which makes {filesystem}: install the package {tool.package} there",
                package=tool.package,
            )

    def lacking(self) -> list[str]:
        """One sentence for each tool that is not installed, with the filesystems that are refused without it."""
        refused: dict[_Tool, list[str]] = {}
        for filesystem, tool in _TOOLS.items():
            if shutil.which(tool.argv[0], path=self._path) is None:
                refused.setdefault(_Tool(tool.argv[:1], tool.package), []).append(filesystem)
        return [
            f"without {tool.argv[0]} no image can be made with {', '.join(names)}:"
            f" install the package {tool.package} if you want such"
            for tool, names in refused.items()
        ]

    async def format(self, backend: Backend, volume: Volume, filesystem: Filesystem, job: Job) -> None:
        """Make the filesystem on the building volume; its device is put away afterwards. Anew each time.

        Raises CommandFailed with what the tool says, such as that the volume is too small for it.
        """
        device = await backend.activate(volume)
        timeout_s = max(1.0, job.deadline.left_s() - _SPARE_S)
        try:
            await command.run(*_TOOLS[filesystem].argv, device, timeout_s=timeout_s)
        except CommandFailed as error:
            raise CommandFailed(f"{volume.name} cannot be formatted with {filesystem}: {error.sentence}") from error
        await backend.deactivate(volume)
        log.info("format zvol=%s pool=%s filesystem=%s", volume.name, volume.pool, filesystem)
