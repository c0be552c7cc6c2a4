"""Fifty actions at once, and the frontend is killed under them."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from scripts.lib.chaos.trial import DEADLINE_S, RECONCILE_S, Result, Said, UnpreparedError, Verdict, left_over
from tests.recorded.cloud import Cloud, Image
from tests.recorded.row import ONE, PROLOG
from tests.support.observed import State, Unreadable
from tests.support.recorded import Recorded

from onelun.faults.plan import Plan

CROWD = "the frontend is killed under 50 actions"
FIFTY = "50 actions"
# Copies of an image, which a NAS makes alone, and disks of a VM, which a host connects.
_IMAGES, _DISKS = range(100, 145), range(20, 25)


def crowd(cloud: Cloud) -> Result:
    """Begin all of them, kill the frontend when the first has ended, and begin what failed again."""
    try:
        cloud.serve([PROLOG])
        cloud.prepare([Image(3, 64)])
        before = cloud.state()
    except (AssertionError, Unreadable) as error:
        raise UnpreparedError(str(error)) from error
    expected, calls, started = _expected(before), _calls(cloud), time.monotonic()
    said = _run(cloud, calls, lambda: cloud.faulted.revive("frontend"))
    verdict, why = _repeated(cloud, calls, said, expected)
    return Result(
        FIFTY,
        Plan("", "die", role="frontend"),
        verdict,
        time.monotonic() - started,
        kind=CROWD,
        said="\n".join(sorted({one.stderr.strip() for one in said if one.status != 0})),
        why=why,
        late=any(one.status is None for one in said),
        unclear=any(one.status is not None and not one.is_clear for one in said),
    )


def _calls(cloud: Cloud) -> list[Recorded]:
    calls = [cloud.datastore("clone", image) for image in _IMAGES]
    return calls + [cloud.line(f"MKIMAGE onelun 16 raw {ONE}/disk.{disk} 0 103") for disk in _DISKS]


def _expected(state: State) -> State:
    for image in _IMAGES:
        state = state.volume(f"one-{image}", 64, like="one-3")
    for disk in _DISKS:
        state = state.volume(f"one-vm-0-{disk}", 16).disk("node1", f"103/0/disk.{disk}", f"one-vm-0-{disk}")
    return state


def _run(cloud: Cloud, calls: Sequence[Recorded], trouble: Callable[[], None] | None = None) -> list[Said]:
    """Run them all at once; the `trouble` comes when the first has ended.

    One that finds nobody to hand itself to does its work by itself, and needs the configuration for that.
    """
    config = cloud.place.config("frontend")
    with ExitStack() as begun:
        stubs = [begun.enter_context(cloud.begin(call, ONELUN_CONFIG=config)) for call in calls]
        for stub in stubs:
            begun.callback(stub.kill)
        end = time.monotonic() + DEADLINE_S
        while trouble and all(stub.poll() is None for stub in stubs) and time.monotonic() < end:
            time.sleep(0.01)
        if trouble:
            trouble()
        return [_said(stub, end) for stub in stubs]


def _said(stub: subprocess.Popen[bytes], end: float) -> Said:
    try:
        _, stderr = stub.communicate(timeout=max(0.1, end - time.monotonic()))
    except subprocess.TimeoutExpired:
        return Said(None, "")
    return Said(stub.returncode, stderr.decode(errors="replace"))


def _repeated(cloud: Cloud, calls: Sequence[Recorded], said: Sequence[Said], expected: State) -> tuple[Verdict, str]:
    good, end = Verdict.SURVIVED, time.monotonic() + RECONCILE_S
    while failed := [call for call, one in zip(calls, said, strict=True) if one.status != 0]:
        if time.monotonic() > end:
            why = next(one.stderr.strip() for one in said if one.status != 0)
            return Verdict.LOST, f"{len(failed)} repeats fail, such as: {why}"
        good = Verdict.REPEATED if good is Verdict.SURVIVED else Verdict.RECONCILED
        calls, said = failed, _run(cloud, failed)
    while (left := left_over(cloud, expected)) and time.monotonic() < end:
        good = Verdict.RECONCILED
        time.sleep(0.2)
    if not left:
        return good, ""
    return (Verdict.LOST if "missing" in left else Verdict.LEAKED), left
