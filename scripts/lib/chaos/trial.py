"""One trial: an action with one fault in it, then the same action again, then a look at everything."""

from __future__ import annotations

import enum
import re
import subprocess
import time
from dataclasses import dataclass

from tests.recorded.acting import call_of, difference
from tests.recorded.acting import prepared as prepared_once
from tests.recorded.cloud import Cloud
from tests.recorded.row import Action
from tests.support.observed import State, Unreadable

from onelun.faults.plan import Plan

# Whatever happens, an action has ended by its own limit and what giving up may take. Far less than DEADLINE_S, which is for
# machines that do other work: a verdict must not depend on their speed.
# A trial mostly waits until a death is noticed, so that is short.
LIMITS = {
    "accept_s": 3.0,
    "progress_s": 0.5,
    "lease_s": 5.0,
    "probe_s": 1.0,
    "finish_s": 60.0,
    "copy_s": 60.0,
    "preempt_s": 3.0,
}
DEADLINE_S = 150.0
# How long the agents may take to tidy up by themselves what a repeat has left.
RECONCILE_S = 150.0
# Lines of a driver's log, which stand beside the error in the newer releases.
_LOG = re.compile(r"^(?:INFO|DEBUG|WARN)\b")


class Verdict(enum.StrEnum):
    """What became of it; the words of the table."""

    MISSED = "missed"  # the fault's moment never came: no trial
    SURVIVED = "survived"
    REPEATED = "repaired by repeat"
    RECONCILED = "repaired by reconcile"
    LOST = "lost"
    LEAKED = "leaked"


@dataclass(frozen=True)
class Result:
    """What one trial showed. `late` and `unclear` are sentences about what an action must never do."""

    action: str
    plan: Plan
    verdict: Verdict
    seconds: float
    kind: str = ""
    said: str = ""
    why: str = ""
    late: bool = False
    unclear: bool = False

    @property
    def bad(self) -> bool:
        """Whether it is one that must not be."""
        return self.verdict in (Verdict.LOST, Verdict.LEAKED) or self.late or self.unclear

    @property
    def what(self) -> str:
        """What was done to the system, as the table has it."""
        return self.kind or self.plan.action


@dataclass(frozen=True)
class Said:
    """How an action ended: `status` is None for one that did not end in time."""

    status: int | None
    stderr: str

    @property
    def is_clear(self) -> bool:
        """Whether it succeeded, or failed with one sentence."""
        words = [line for line in self.stderr.splitlines() if line.strip() and not _LOG.match(line)]
        return self.status == 0 or (len(words) == 1 and "Traceback" not in self.stderr)


class UnpreparedError(Exception):
    """What a trial needs could not be made: no trial."""


def prepared(cloud: Cloud, action: Action) -> State:
    """As tests.recorded.acting's; what failed, as it may on a slow machine, is given back and begun again, once."""
    try:
        try:
            return prepared_once(cloud, action)
        except (AssertionError, Unreadable):
            given_back(cloud)
            return prepared_once(cloud, action)
    except Exception as error:
        raise UnpreparedError(f"{action.id} could not be prepared: {error}") from error


def given_back(cloud: Cloud) -> None:
    """Give everything back, with a second try. AssertionError when that fails, too."""
    try:
        cloud.reset()
    except (AssertionError, Unreadable):
        cloud.reset()


def attempt(cloud: Cloud, action: Action, plan: Plan) -> Result:
    """Do the trial. The sandbox is to be given back afterwards, or given up when that fails."""
    expected = prepared(cloud, action)
    started = time.monotonic()
    cloud.faulted.arm(plan)
    try:
        first, met = _with_fault(cloud, action, plan)
    finally:
        cloud.faulted.disarm()
    if not met:
        return Result(action.id, plan, Verdict.MISSED, time.monotonic() - started)
    return judged(cloud, action, plan, expected, first, started)


def judged(
    cloud: Cloud, action: Action, plan: Plan, expected: State, first: Said, started: float, kind: str = ""
) -> Result:
    """Repeat the action, and say what became of it."""
    verdict, why = repeated(cloud, action, expected, first)
    return Result(
        action.id,
        plan,
        verdict,
        time.monotonic() - started,
        kind=kind,
        said=first.stderr.strip(),
        why=why,
        late=first.status is None,
        unclear=first.status is not None and not first.is_clear,
    )


def _with_fault(cloud: Cloud, action: Action, plan: Plan) -> tuple[Said, bool]:
    """Run the action while the fault is planned; what it said, and whether the fault came."""
    again = plan.action != "die"
    with cloud.begin(call_of(cloud, action)) as stub:
        try:
            end = time.monotonic() + DEADLINE_S
            while stub.poll() is None and time.monotonic() < end:
                if not again and cloud.faulted.fell():
                    cloud.faulted.revive(plan.role)
                    again = True
                time.sleep(0.02)
            late = stub.poll() is None
        finally:
            stub.kill()
        _, stderr = stub.communicate()
    met = cloud.faulted.met()
    if met and (not again or plan.action == "hang"):
        # One that hangs is started again by whoever watches it; one that died with its last word too.
        cloud.faulted.revive(plan.role)
    return Said(None if late else stub.returncode, stderr.decode(errors="replace")), met


def repeated(cloud: Cloud, action: Action, expected: State, first: Said) -> tuple[Verdict, str]:
    """Repeat the action, and judge what is there by what should be."""
    end = time.monotonic() + RECONCILE_S
    good = Verdict.SURVIVED if first.status == 0 else Verdict.REPEATED
    second = run(cloud, action)
    while second.status != 0:
        good = Verdict.RECONCILED
        if time.monotonic() > end:
            return Verdict.LOST, f"the repeat fails: {second.stderr.strip()}"
        time.sleep(1)
        second = run(cloud, action)
    end = time.monotonic() + RECONCILE_S
    while (left := left_over(cloud, expected)) and time.monotonic() < end:
        good = Verdict.RECONCILED
        time.sleep(0.2)
    if not left:
        return good, ""
    return (Verdict.LOST if "missing" in left else Verdict.LEAKED), left


def run(cloud: Cloud, action: Action) -> Said:
    """Run the action undisturbed."""
    with cloud.begin(call_of(cloud, action)) as stub:
        try:
            _, stderr = stub.communicate(timeout=DEADLINE_S)
        except subprocess.TimeoutExpired:
            return Said(None, f"the repeat did not end within {DEADLINE_S:g} s")
        finally:
            stub.kill()
    return Said(stub.returncode, stderr.decode(errors="replace"))


def left_over(cloud: Cloud, expected: State) -> str:
    """What is other than it should be: volumes, data, exports, devices, links, loops, processes; "" when nothing is."""
    try:
        found = cloud.state()
    except (OSError, Unreadable) as error:
        # Something went while it was looked at, or a device is dead: another look tells.
        return f"missing: {error}"
    return (difference(found, expected) + cloud.faulted.stray(found)).strip()
