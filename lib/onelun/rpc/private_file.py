"""Files with secrets, written at once and for their owner alone."""

from __future__ import annotations

import contextlib
import os

from onelun.errors import Rejected


def write_private(path: str, text: str, mode: int = 0o600) -> str:
    """Write the file `path` durably, in the place of what was there, and return its path. Repeating it is safe.

    Raises Rejected, saying why; then what was there is still there.
    """
    draft = f"{path}.new"
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(draft)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        os.rename(draft, path)
    except OSError as error:
        raise Rejected(f"cannot write {path}: {error.strerror}") from error
    return path


def make_private_directory(path: str) -> None:
    """Make the directory `path` for its owner alone, and what is missing above it. One that exists stays as it is.

    Raises Rejected, saying why.
    """
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
    except OSError as error:
        raise Rejected(f"cannot make the directory {path}: {error.strerror}") from error
