"""Wheels of the packages that are installed here, so that an installer can be tried without a package index."""

from __future__ import annotations

import importlib.metadata
import re
import zipfile
from pathlib import Path

_NAME = re.compile(r"[A-Za-z0-9._-]+")


def write_wheels(names: list[str], directory: Path) -> None:
    """Write a wheel of each package that is named, and of all that those need, from their files here."""
    pending, done = list(names), set()
    while pending:
        distribution = importlib.metadata.distribution(pending.pop())
        name = distribution.metadata["Name"]
        if name in done:
            continue
        done.add(name)
        _write(distribution, directory)
        for requirement in distribution.requires or []:
            needed, _, marker = requirement.partition(";")
            if "extra" not in marker:
                match = _NAME.match(needed)
                assert match is not None
                if _is_installed(match[0]):
                    pending.append(match[0])


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return False  # for another Python or system
    return True


def _write(distribution: importlib.metadata.Distribution, directory: Path) -> None:
    tags = re.findall(r"^Tag: (.*)$", distribution.read_text("WHEEL") or "", re.MULTILINE)
    stem = f"{distribution.metadata['Name'].replace('-', '_')}-{distribution.version}"
    with zipfile.ZipFile(directory / f"{stem}-{_joined(tags)}.whl", "w") as wheel:
        for file in distribution.files or []:
            if (
                ".." not in file.parts
                and "__pycache__" not in file.parts
                and file.name not in ("INSTALLER", "REQUESTED")
            ):
                wheel.write(str(file.locate()), str(file))


def _joined(tags: list[str]) -> str:
    """The tags of a wheel as its name has them: py2.py3-none-any for py2-none-any and py3-none-any."""
    columns = zip(*(tag.split("-") for tag in tags), strict=True)
    return "-".join(".".join(sorted(set(column))) for column in columns)
