"""Replacing a file of OpenNebula's: as a whole, with its owner and mode, and with a copy of how it was."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time

from onelun.errors import Rejected


def read(path: str) -> str:
    """The file's text, byte for byte: what is no UTF-8 and every kind of line end survive `replace`. Raises Rejected."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
            return file.read()
    except OSError as error:
        raise Rejected(f"cannot read {path}: {error.strerror}") from error


def replace(path: str, before: str, after: str) -> str:
    """Put `after` in the place of `before` at once, and return the path of a copy of `before`.

    Raises Rejected, with the file as it was, when it cannot be written, or is not `before` any more.
    """
    # A link stays one; what it leads to is replaced.
    path = os.path.realpath(path)
    if read(path) != before:
        raise Rejected(f"{path} was changed by somebody else in this moment: nothing was written, ask again")
    try:
        backup = _copied(path)
        _replaced(path, after)
    except OSError as error:
        raise Rejected(f"cannot write {path}: {error.strerror}; it is as it was") from error
    return backup


def _copied(path: str) -> str:
    stem = f"{path}.before-onelun-{time.strftime('%Y%m%d-%H%M%S')}"
    backup, number = stem, 1
    while os.path.lexists(backup):
        number += 1
        backup = f"{stem}-{number}"
    shutil.copy2(path, backup)
    _own(backup, path)
    return backup


def _replaced(path: str, after: str) -> None:
    descriptor, aside = tempfile.mkstemp(prefix=f".{os.path.basename(path)}.", dir=os.path.dirname(path))
    try:
        with open(descriptor, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            file.write(after)
            file.flush()
            os.fsync(file.fileno())
        shutil.copystat(path, aside)
        _own(aside, path)
        os.utime(aside)
        os.replace(aside, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(aside)
        raise


def _own(path: str, like: str) -> None:
    facts = os.stat(like)
    if (facts.st_uid, facts.st_gid) != (os.stat(path).st_uid, os.stat(path).st_gid):
        os.chown(path, facts.st_uid, facts.st_gid)
