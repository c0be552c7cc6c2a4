"""What things are called in a pool of files: the directories of volumes, and the files in those."""

from __future__ import annotations

from onelun.errors import Rejected
from onelun.naming import checked_name, checked_uuid
from onelun.nas.backends.file.sidecar import NEW_SUFFIX, VOLUME_FILE

DATA_FILE = "data"
NEW = ".new-"
TRASH = ".trash-"
GONE = ".gone-"
SNAPSHOT = "snapshot-"
SNAPSHOT_DATA = ".data"
SNAPSHOT_FACTS = ".json"
REVERT = "revert-"


def could_be_ours(directory: str) -> bool:
    """Whether a directory of the pool could hold a volume, by its name."""
    if directory.startswith("."):
        return any(directory.startswith(prefix) and has_uuid(directory, prefix) for prefix in (NEW, TRASH))
    try:
        checked_name(directory)
    except Rejected:
        return False
    return True


def is_file_of_ours(name: str) -> bool:
    """Whether a file of a volume's directory is one that we make."""
    if name.startswith(SNAPSHOT):
        return name.endswith((SNAPSHOT_DATA, SNAPSHOT_FACTS, SNAPSHOT_FACTS + NEW_SUFFIX))
    return name in (DATA_FILE, VOLUME_FILE, VOLUME_FILE + NEW_SUFFIX) or is_revert(name)


def holds_content(name: str) -> bool:
    """Whether a volume's file holds what the volume or a snapshot of it held, and not facts."""
    return name == DATA_FILE or (name.startswith(SNAPSHOT) and name.endswith(SNAPSHOT_DATA)) or is_revert(name)


def is_revert(name: str) -> bool:
    """Whether a volume's file is one that was to become its data."""
    return name.startswith(REVERT) and has_uuid(name, REVERT)


def has_uuid(directory: str, prefix: str) -> bool:
    """Whether what follows the prefix is a UUID."""
    text = directory.removeprefix(prefix)
    try:
        return checked_uuid(text) == text
    except Rejected:
        return False
