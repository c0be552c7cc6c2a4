"""What frames an action: how its arguments come, and in which form its answer goes back, release by release.

Facts of OpenNebula's sources: a datastore action's document is in argv up to 6.6 and on stdin from 6.8; transfer
actions end in the ids of VM and datastore from 3.6 on. The form of errors cannot be told from that (6.0 and 6.2 call
alike), so it goes by the release: up to 6.0 the message stands between delimiters (CommandManager.rb); from 6.2 to 6.10
the whole of stderr is the message; from 7.0 lines of a log may stand beside it (DriverExecHelper.rb).
"""

from __future__ import annotations

import re
from enum import Enum
from typing import NamedTuple

from onelun.errors import Rejected

_VERSION = re.compile(r"([0-9]{1,3})(?:\.([0-9]{1,3}))?(?:[.-][0-9A-Za-z.-]*)?")
_LEVEL = re.compile(r"(?:ERROR|INFO|WARN|WARNING|DEBUG):|[0-9]")
_MIGRATION = 5
# More would be cut off by oned's own log lines, and no sentence of ours needs it.
_LONGEST = 1000

# The migrations' document came on stdin with 5.10; their ids stand before the names of the drivers that chain them.
MIGRATIONS = ("tm/premigrate", "tm/postmigrate", "tm/failmigrate")

# Backups came with 6.6, with a document that is not encoded; a disk is put back from one since 6.10, by a call whose ids stand
# elsewhere: HOST:DIR VM IMAGE INCREMENT DISK.
BACKUPS = ("tm/prebackup", "tm/prebackup_live", "tm/postbackup", "tm/postbackup_live")
_RESTORE = "tm/restore"

Version = tuple[int, int]


class Form(Enum):
    """How an error is told on stderr."""

    DELIMITED = "delimited"  # up to 6.0: between two lines of delimiters
    PLAIN = "plain"  # 6.2 to 6.10: one plain line, and nothing else
    LOGGED = "logged"  # from 7.0: lines of a log, then one plain line


class Arguments(NamedTuple):
    """A call's arguments, read. `vm_id` and `datastore_id` are None where the release does not pass them.

    `rest` is what is the action's own; `document` is as it came, in base64. `chained` tells that another driver called, which
    takes care of the VM's directory itself.
    """

    rest: tuple[str, ...]
    document: bytes | None = None
    vm_id: int | None = None
    datastore_id: int | None = None
    chained: bool = False

    @property
    def modern(self) -> bool:
        """Whether a transfer action came with ids (3.6 and later)."""
        return self.vm_id is not None


def parse_version(text: str | None) -> Version | None:
    """Major and minor of a release such as "6.10.0"; None for None. Raises Rejected for anything else."""
    if text is None:
        return None
    match = _VERSION.fullmatch(text.strip())
    if match is None:
        raise Rejected(
            f"frontend.opennebula_version is {text[:40]!r}, which is no release: it should be such as '6.10'"
        )
    return int(match[1]), int(match[2] or 0)


def form_of(name: str, argv: tuple[str, ...], version: Version | None) -> Form:
    """The form that the release takes. An unknown release is judged by the arguments: the old kind means delimiters."""
    if version is not None:
        if version <= (6, 1):
            return Form.DELIMITED
        return Form.PLAIN if version < (7, 0) else Form.LOGGED
    if name == _RESTORE:
        return Form.PLAIN
    old = len(argv) == 2 if _has_document(name) else _ids(_unchained(name, argv)) is None
    return Form.DELIMITED if old else Form.PLAIN


def read_arguments(name: str, argv: tuple[str, ...], stdin: bytes | None) -> Arguments:
    """The arguments of the call. Raises Rejected for an action with a document and a number of them that none has."""
    if _has_document(name):
        if len(argv) == 1:
            return Arguments(rest=argv, document=stdin or b"")
        if len(argv) == 2:
            return Arguments(rest=argv[1:], document=argv[0].encode("ascii", "replace"))
        raise Rejected(f"{name} takes ID with its document on stdin, or DOCUMENT ID; it got {len(argv)} arguments")
    if name == _RESTORE:
        return _restore_arguments(argv)
    ids = _ids(_unchained(name, argv))
    if name in BACKUPS:
        if ids is None:
            raise Rejected(f"the arguments should be: {name[3:]} HOST:DIRECTORY DISKS DEPLOY_ID JOB VM DATASTORE")
        return Arguments(argv[:-2], stdin or b"", *ids)
    if name in MIGRATIONS:
        if ids is None:
            raise Rejected(f"the arguments should be: {name[3:]} SOURCE_HOST HOST DIRECTORY VM DATASTORE [DRIVER]")
        return Arguments(argv[:3], stdin or b"", *ids, chained=len(argv) > _MIGRATION)
    if ids is None:
        return Arguments(rest=argv)
    return Arguments(rest=argv[:-2], vm_id=ids[0], datastore_id=ids[1])


def takes_stdin(name: str, argv: tuple[str, ...]) -> bool:
    """Whether the call has a document on stdin; nothing else may wait for stdin, which oned may leave open."""
    return name in MIGRATIONS or name in BACKUPS or (_has_document(name) and len(argv) == 1)


def error_text(form: Form, sentence: str) -> str:
    """The sentence as the release wants it on stderr: one line, which no release takes for a line of a log."""
    line = one_line(sentence) or "the action failed without a reason"
    if _LEVEL.match(line):
        line = f"onelun: {line}"
    if form is Form.DELIMITED:
        return f"ERROR MESSAGE --8<------\n{line}\nERROR MESSAGE ------>8--\n"
    return f"{line}\n"


def log_text(form: Form, level: str, name: str, vm_id: int | None, text: str) -> str:
    """A line for the VM's log, where the release takes one on stderr; else nothing.

    The number behind the level is the VM whose log it goes to; without one it goes to oned's own. So no text of a log
    may begin with a digit, and the action's name stands before it.
    """
    if form is not Form.LOGGED:
        return ""
    number = "" if vm_id is None else f"{vm_id} "
    return f"{level}: {number}{name.rpartition('/')[2]}: {one_line(text)}\n"


def one_line(text: str) -> str:
    """`text` on one line, without control characters, and not endless."""
    clean = "".join(character if character.isprintable() else " " for character in text)
    line = " ".join(clean.split())
    return line if len(line) <= _LONGEST else line[: _LONGEST - 3] + "..."


def _has_document(name: str) -> bool:
    """Whether the action has the form of a datastore action; OpenNebula monitors a system datastore in the same way."""
    return name.startswith("datastore/") or name == "tm/monitor"


def _restore_arguments(argv: tuple[str, ...]) -> Arguments:
    numbers = argv[1:]
    if len(numbers) != 4 or not all(re.fullmatch(r"-1|[0-9]{1,10}", text) for text in numbers) or "-" in numbers[0]:
        raise Rejected("the arguments should be: restore HOST:DIRECTORY VM IMAGE INCREMENT DISK")
    return Arguments((argv[0], *argv[2:]), vm_id=int(argv[1]))


def _unchained(name: str, argv: tuple[str, ...]) -> tuple[str, ...]:
    return argv[:_MIGRATION] if name in MIGRATIONS else argv


def _ids(argv: tuple[str, ...]) -> tuple[int, int] | None:
    if len(argv) < 3 or not all(re.fullmatch(r"[0-9]{1,10}", text) for text in argv[-2:]):
        return None
    return int(argv[-2]), int(argv[-1])
