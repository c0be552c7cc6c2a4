"""Every action by its name, and the one way in which all of them are run."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping

from onelun.driver import (
    backups,
    cloning,
    contextualizing,
    datastore,
    exporting,
    importing,
    measuring,
    migrating,
    moving,
    resizing,
    restoring,
    returning,
    saving,
    snapshots,
    transfer,
    volatile,
)
from onelun.driver.frame import Form, error_text, form_of, one_line, read_arguments
from onelun.driver.running import Call, Context, Outcome, Run
from onelun.errors import NoReply, OnelunError, Rejected

log = logging.getLogger(__name__)

Handler = Callable[[Run], Awaitable[str]]
"""Runs the action and returns its stdout. Raises OnelunError, after undoing what it did."""

ACTIONS: Mapping[str, Handler] = {
    "datastore/cp": importing.cp,
    "datastore/mkfs": datastore.mkfs,
    "datastore/rm": datastore.rm,
    "datastore/clone": cloning.clone,
    "datastore/export": exporting.export,
    "datastore/stat": measuring.stat,
    "datastore/monitor": datastore.monitor,
    "datastore/snap_delete": snapshots.image_snap_delete,
    "datastore/snap_revert": snapshots.image_snap_revert,
    "datastore/snap_flatten": snapshots.image_snap_flatten,
    "tm/clone": transfer.clone,
    "tm/ln": transfer.ln,
    "tm/mv": moving.mv,
    "tm/mvds": returning.mvds,
    "tm/delete": transfer.delete,
    "tm/resize": resizing.resize,
    "tm/mkimage": volatile.mkimage,
    "tm/mkswap": volatile.mkswap,
    "tm/cpds": saving.cpds,
    "tm/snap_create": snapshots.snap_create,
    "tm/snap_create_live": snapshots.snap_create_live,
    "tm/snap_revert": snapshots.snap_revert,
    "tm/snap_delete": snapshots.snap_delete,
    "tm/premigrate": migrating.premigrate,
    "tm/postmigrate": migrating.postmigrate,
    "tm/failmigrate": migrating.failmigrate,
    "tm/context": contextualizing.context,
    "tm/prebackup": backups.prebackup,
    "tm/prebackup_live": backups.prebackup_live,
    "tm/postbackup": backups.postbackup,
    "tm/postbackup_live": backups.postbackup,
    "tm/restore": restoring.restore,
    "tm/monitor": datastore.monitor_system,
}

# What an action was about, for the sentence that says why it failed; the last argument is the id of a datastore action.
_PURPOSE = {
    "datastore/cp": "cannot register image {last}",
    "datastore/mkfs": "cannot make image {last}",
    "datastore/rm": "cannot remove image {last}",
    "datastore/clone": "cannot clone into image {last}",
    "datastore/export": "cannot export the image",
    "datastore/stat": "cannot tell the image's size",
    "datastore/monitor": "cannot monitor datastore {last}",
    "datastore/snap_delete": "cannot delete a snapshot of image {last}",
    "datastore/snap_revert": "cannot revert image {last}",
    "datastore/snap_flatten": "cannot flatten image {last}",
    "tm/clone": "cannot clone {first}",
    "tm/ln": "cannot link {first}",
    "tm/mv": "cannot move {first}",
    "tm/mvds": "cannot take back {first}",
    "tm/delete": "cannot delete {first}",
    "tm/resize": "cannot resize {first}",
    "tm/mkimage": "cannot make a disk",
    "tm/mkswap": "cannot make a disk to swap on",
    "tm/cpds": "cannot save {first}",
    "tm/snap_create": "cannot take a snapshot of {first}",
    "tm/snap_create_live": "cannot take a snapshot of {first}",
    "tm/snap_revert": "cannot revert {first}",
    "tm/snap_delete": "cannot delete a snapshot of {first}",
    "tm/premigrate": "cannot prepare a live migration from {first}",
    "tm/postmigrate": "cannot end a live migration from {first}",
    "tm/failmigrate": "cannot undo a live migration from {first}",
    "tm/context": "cannot make the context CD",
    "tm/prebackup": "cannot back up {first}",
    "tm/prebackup_live": "cannot back up {first}",
    "tm/postbackup": "cannot clean up after the backup of {first}",
    "tm/postbackup_live": "cannot clean up after the backup of {first}",
    "tm/restore": "cannot restore {first}",
    "tm/monitor": "cannot monitor datastore {last}",
}
# HOST:PATH of a disk and of a VM's directory, and FRONT-END:SOURCE.
_DISK = re.compile(r"([^:/\s]+):/\S*/(disk\.\d+)/*")
_DIRECTORY = re.compile(r"([^:/\s]+):/\S*/\d+/*")
_SOURCE = re.compile(r"[^:/\s]+:([^:/\s][^:\s]*)")
# What an action may need beyond its deadline to undo what it did; a guard against a step that forgets the deadline.
_UNDO_S = 15.0


async def perform(call: Call, context: Context) -> Outcome:
    """Run the action and return what oned gets. Never raises but CancelledError, after undoing.

    An OnelunError becomes its sentence in the form of the release; anything else becomes a sentence that names the log,
    and its traceback goes there.
    """
    began = time.monotonic()
    form = Form.PLAIN
    lines = ""
    try:
        form = form_of(call.name, call.argv, context.version)
        handler = ACTIONS.get(call.name)
        if handler is None:
            raise Rejected(f"onelun has no action {call.name[:60]!r}")
        run = Run(call, context, form, read_arguments(call.name, call.argv, call.stdin))
        try:
            async with asyncio.timeout(run.deadline.left_s() + _UNDO_S):
                stdout = await handler(run)
        finally:
            lines = run.lines()
        outcome = Outcome(stdout.encode(), lines.encode(), 0)
    except OnelunError as error:
        sentence = f"{_purpose(call)}: {error.sentence}"
        log.warning("%s id=%s failed code=%s %s", call.name, call.id, error.code, one_line(sentence))
        outcome = _failure(form, lines, sentence)
    except TimeoutError:
        overdue = NoReply(f"it did not end within {context.duration_s(call.name):.0f} s; its outcome is unknown")
        log.exception("%s id=%s overdue", call.name, call.id)
        outcome = _failure(form, lines, f"{_purpose(call)}: {overdue.sentence}")
    except Exception:
        log.exception("%s id=%s internal error", call.name, call.id)
        sentence = f"internal error in {call.name}, see the log of onelun-frontend (id {call.id})"
        outcome = _failure(form, lines, sentence)
    log.info("%s id=%s status=%s took_s=%.3f", call.name, call.id, outcome.status, time.monotonic() - began)
    return outcome


def failure_text(call: Call, context: Context | None, sentence: str) -> bytes:
    """What is on stderr when the action cannot even begin; `context` is None when there is no configuration."""
    try:
        version = context.version if context else None
    except Rejected:
        version = None
    return error_text(form_of(call.name, call.argv, version), f"{_purpose(call)}: {sentence}").encode(
        "utf-8", "replace"
    )


def stopped(call: Call, context: Context) -> Outcome:
    """What oned gets of an action that it gave up itself."""
    return Outcome(b"", failure_text(call, context, "it was stopped, and what it had begun was undone"), 1)


def _failure(form: Form, lines: str, sentence: str) -> Outcome:
    return Outcome(b"", (lines + error_text(form, sentence)).encode("utf-8", "replace"), 1)


def _purpose(call: Call) -> str:
    template = _PURPOSE.get(call.name, f"cannot run {call.name[:60]}")
    first, last = (call.argv[0], call.argv[-1]) if call.argv else ("", "")
    return template.format(first=_subject(one_line(first)[:200]), last=one_line(last)[:20]).rstrip()


def _subject(argument: str) -> str:
    """What an argument names, in so few words that the reason is seen: whatever is behind them is in the VM's log alone.

    `onevm show` has 100 characters of an error (MAX_ERROR_MSG_LENGTH of include/VirtualMachine.h, 6.10 to 7.4), and 39 of them
    are "Error executing image transfer script: ". The whole line of the call is in that log too, and in the frontend's.
    """
    if match := _DISK.fullmatch(argument):
        return f"{match[2]} on {match[1]}"
    if match := _DIRECTORY.fullmatch(argument):
        return f"the VM's directory on {match[1]}"
    if match := _SOURCE.fullmatch(argument):
        return match[1]
    return argument
