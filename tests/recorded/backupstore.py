"""A backup datastore as OpenNebula's drivers show it to the front-end: `ls` and `downloader.sh` below its remotes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

_LS = """#!/bin/sh
cat >/dev/null
exec cat "{listed}"
"""
_DOWNLOADER = """#!/bin/sh
test "$1" = --nodecomp && test "$3" = - || exit 9
exec cat "${2#rsync://108//0:a}"
"""


class Backupstore:
    """One backup; the files stand in a directory that the front-end's user may read."""

    driver = "rsync"

    def __init__(self, directory: Path) -> None:
        self.remotes = directory / "remotes"
        self._files = directory / "backup"
        self._listed = directory / "listed.json"
        scripts = {f"{self.driver}/ls": _LS.format(listed=self._listed), "downloader.sh": _DOWNLOADER}
        for name, text in scripts.items():
            script = self.remotes / "datastore" / name
            script.parent.mkdir(parents=True, exist_ok=True)
            script.write_text(text)
            script.chmod(0o755)

    def keep(self, source: Path) -> None:
        """Take the disks' files of the first backup of a chain from that directory."""
        shutil.rmtree(self._files, ignore_errors=True)
        self._files.mkdir()
        listed = {}
        for path in source.glob("disk.*.0"):
            kept = self._files / path.name
            shutil.copyfile(path, kept)
            kept.chmod(0o644)
            listed[path.name.split(".")[1]] = f"rsync://108//0:a{kept}"
        self._listed.write_text(json.dumps(listed))
