"""A tree like /sys, built from one that was recorded: `PATH = TEXT` is a file, `PATH -> PLACE` a link, both below its root."""

from __future__ import annotations

import os
from pathlib import Path

RECORDED = Path(__file__).parent.parent / "fixtures/iscsi/sysfs.txt"


def build(root: Path) -> Path:
    """Build the recorded tree below `root`."""
    for line in RECORDED.read_text().splitlines():
        path, link, place = line.partition(" -> ")
        if link:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / place).mkdir(parents=True, exist_ok=True)
            os.symlink(root / place, root / path)
        elif not line.startswith("#"):
            name, _, text = line.partition(" = ")
            put(root / name, text)
    return root


def put(path: Path, text: str) -> None:
    """One file, with its directories."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n")
