"""Paths and names of the wire, below a directory of VMs: what one may be, and how it is shown."""

from __future__ import annotations

import os

from onelun.errors import Rejected

DEEPEST = 32
# What is made aside begins so, until it is renamed; a list does not show it.
ASIDE = ".new-"
_LONGEST_NAME = 255 - len(ASIDE)


def names(name: str, *, put: bool = False) -> list[str]:
    """The components of an entry's name; Rejected for what is not a name, or is one that only we make."""
    parts = components(name)
    if name.startswith("/") or not parts or len(parts) > DEEPEST or (put and parts[-1].startswith(ASIDE)):
        raise Rejected(f"{shown(name)} is no name of an entry in a VM's directory")
    return parts


def components(path: str) -> list[str]:
    """The components of a path; Rejected for what is none, or leads upwards."""
    parts = [part for part in path.split("/") if part]
    if controls(path) or "." in parts or ".." in parts:
        raise Rejected(f"{shown(path)} is no path: it must have no '..', no '.' and no control characters")
    if len(path) > 4000 or any(len(os.fsencode(part)) > _LONGEST_NAME for part in parts):
        raise Rejected(f"{shown(path)} is too long for a path: its names have at most {_LONGEST_NAME} bytes")
    return parts


def controls(text: str) -> bool:
    """Whether the text has characters that no name should have."""
    # A lone surrogate is no text of UTF-8, but would be a name for the system.
    return any(ord(sign) < 32 or ord(sign) == 127 or 0xD800 <= ord(sign) <= 0xDFFF for sign in text)


def shown(text: str) -> str:
    """The text for a sentence: on one line, and not endless."""
    return repr(text if len(text) <= 120 else text[:117] + "...")[1:-1]
