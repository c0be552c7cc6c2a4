"""Every recorded action on a real sandbox: once, again, and again after a kill in the middle of it."""

from __future__ import annotations

import os
import re
import signal
import subprocess

import pytest
from tests.recorded.acting import call_of, difference, prepared
from tests.recorded.cloud import LIMIT_S, Cloud
from tests.recorded.row import COMPUTE, FRONTEND, STUB, Action
from tests.recorded.table import ACTIONS
from tests.support.middle import Log, Work, kill_within
from tests.support.observed import State
from tests.support.recorded import RECORDINGS
from tests.support.sandbox.place import CHECKOUT, NAS, NODES
from tests.support.sandbox.processes import recorded
from tests.support.sandbox.startup import restart

# A disk leaves a host slowly where other programs have very many files open, and some VMs here have six.
pytestmark = pytest.mark.timeout(1800)
KILLS = [(action, role) for action in ACTIONS for role in action.kills]
# Half of the time that the work took undisturbed; earlier when it turns out to be quicker this time, and at once as often as
# it takes to meet the middle of what lasts no longer than it may take to be seen on a busy machine.
FRACTIONS = (0.5, 0.25, 0.1, *[0.0] * 12)
# Filled by the undisturbed runs, which come first.
MEASURED: dict[Action, dict[str, Work]] = {}


def succeeds(cloud: Cloud, action: Action) -> None:
    said = cloud.run(call_of(cloud, action))
    assert re.fullmatch(action.prints, said), said


def settles(cloud: Cloud, expected: State, *, late: bool = False) -> None:
    """The state is as expected, at once, or as `late` as what was interrupted is tidied up."""
    found = cloud.settled(expected if late else None)
    assert found == expected, difference(found, expected)


def measured(cloud: Cloud, action: Action) -> dict[str, Work]:
    """Run the action undisturbed; each role's longest piece of work in it."""
    logs = [Log(cloud.place, role) for role in (FRONTEND, NAS, *NODES)]
    succeeds(cloud, action)
    found = {log.role: work for log in logs if (work := log.longest())}
    nodes = [work for role, work in found.items() if role in NODES]
    # What has no volume, such as a VM's directory, is no request that an agent logs: the frontend's own work tells.
    compute = max(nodes, key=lambda work: work.seconds) if nodes else found[FRONTEND]
    return found | {COMPUTE: compute, STUB: found[FRONTEND]}


def works(cloud: Cloud, action: Action) -> dict[str, Work]:
    """What was measured of the action when it ran undisturbed."""
    if action not in MEASURED:
        prepared(cloud, action)
        MEASURED[action] = measured(cloud, action)
        cloud.reset()
    return MEASURED[action]


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.id)
def test_an_action_does_what_it_should_and_again_the_same(cloud: Cloud, action: Action) -> None:
    expected = prepared(cloud, action)

    MEASURED[action] = measured(cloud, action)
    settles(cloud, expected)

    succeeds(cloud, action)
    settles(cloud, expected)


@pytest.mark.parametrize(("action", "role"), KILLS, ids=[f"{action.id}-{role}" for action, role in KILLS])
def test_an_action_that_was_cut_off_in_the_middle_ends_well_when_it_is_repeated(
    cloud: Cloud, action: Action, role: str
) -> None:
    known = works(cloud, action)
    assert role in known, f"{role} has no work in {action.id}: the table is wrong"
    work = known[role]

    for fraction in FRACTIONS:
        expected = prepared(cloud, action)
        if interrupted(cloud, action, role, work, fraction):
            break
        cloud.reset()
    else:
        pytest.fail(f"{role} was always done with {action.id} before it was killed")

    succeeds(cloud, action)
    settles(cloud, expected, late=True)


def test_every_recorded_action_that_has_a_script_is_in_the_table() -> None:
    recordings = {path.stem for path in RECORDINGS.glob("*.json")}
    there = {name for name in recordings if os.path.exists(f"{CHECKOUT}/{script_of(name)}")}

    assert {action.recording for action in ACTIONS} == there


def script_of(recording: str) -> str:
    room, action = recording.split(".")[:2]
    return f"{room}/onelun/{action}"


def interrupted(cloud: Cloud, action: Action, role: str, work: Work, fraction: float) -> bool:
    """Kill the role in the middle of the action and start it again; whether it was the middle."""
    log = Log(cloud.place, work.role)
    with cloud.begin(call_of(cloud, action)) as stub:
        try:
            killed = kill_within(log, work, fraction, lambda: kill(cloud, role, work, stub))
            if role != STUB:
                restart(cloud.place, victim(role, work))
            # It may end well or say what happened; what counts is that it ends, and that the repeat succeeds.
            _, stderr = stub.communicate(timeout=LIMIT_S)
        finally:
            stub.kill()
    assert b"Traceback" not in stderr, stderr.decode()
    return killed


def kill(cloud: Cloud, role: str, work: Work, stub: subprocess.Popen[bytes]) -> None:
    if role == STUB:
        stub.kill()
        return
    process = recorded(cloud.place, victim(role, work))
    assert process is not None
    process.kill(signal.SIGKILL)


def victim(role: str, work: Work) -> str:
    """The process to kill: of the two compute agents the one whose work it is, or the first."""
    if role != COMPUTE:
        return role
    return work.role if work.role in NODES else NODES[0]
