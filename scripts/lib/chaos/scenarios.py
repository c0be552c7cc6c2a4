"""What goes wrong around an action that is held up in its middle: the broker, an agent, its catalogue, its disk, the clock."""

from __future__ import annotations

import errno
import glob
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from scripts.lib.chaos.trial import DEADLINE_S, Result, Said, judged, prepared
from tests.recorded.acting import call_of
from tests.recorded.cloud import Cloud
from tests.recorded.faulted import Faulted
from tests.recorded.row import Action
from tests.support.sandbox.broker import restart_broker
from tests.support.sandbox.place import NAS, Place
from tests.support.sandbox.processes import recorded, run
from tests.support.sandbox.startup import restart

from onelun.faults.plan import Plan, arm, disarm, fired, set_clock

# Where an action is held up: a row, and a step in its middle.
MIDDLES = {
    "tm.clone": "nas.exporters.tgt.exporter.TgtExporter._new/tgt-target-new",
    "tm.ln": "nas.exporters.tgt.exporter.TgtExporter._complete/tgt-device-new",
    "tm.delete": "nas.exporters.tgt.exporter.TgtExporter._remove/tgt-target-delete",
    "tm.mv-disk.1-disk.1": "nas.exporters.tgt.exporter.TgtExporter._new/tgt-target-new",
    "tm.snap_revert": "nas.exporters.tgt.exporter.TgtExporter._new/tgt-target-new",
    "datastore.clone": "nas.backends.file.building.FileBuilding._show/rename_new",
}
_HELD_S = 1.5
_ALARM_S = 4.0
_YEAR_S = 365 * 86400.0
_PIECE = bytes(65536)


@dataclass(frozen=True)
class Scenario:
    """`trouble` is begun in the middle of an action, and mended afterwards: at once, or when the action has `ended`."""

    kind: str
    trouble: Callable[[Place], object]
    mend: Callable[[Place], object] = lambda _: None
    ended: bool = False


def _kill_broker(place: Place) -> None:
    process = recorded(place, "broker")
    assert process is not None
    process.kill()
    time.sleep(0.5)
    restart_broker(place)


def _alarm(place: Place) -> None:
    tool = place.path("broker", "rabbitmqctl")
    run(tool, "set_vm_memory_high_watermark", "0.000001", timeout_s=30)
    time.sleep(_ALARM_S)
    run(tool, "set_vm_memory_high_watermark", "0.4", timeout_s=30)


def _signal(role: str, number: int) -> Callable[[Place], None]:
    def send(place: Place) -> None:
        process = recorded(place, role)
        assert process is not None
        process.kill(number)

    return send


def _lose_catalogue(spoil: Callable[[str], None]) -> Callable[[Place], None]:
    """Kill the NAS agent, do that to its catalogue, and start it again."""

    def lose(place: Place) -> None:
        process = recorded(place, NAS)
        assert process is not None
        process.kill()
        while process.alive():
            time.sleep(0.01)
        for path in glob.glob(f"{_state(place)}/catalogue*"):
            spoil(path)
        restart(place, NAS)

    return lose


def _state(place: Place) -> str:
    """The NAS agent's state directory, which is on a filesystem that the NAS alone sees."""
    holder = recorded(place, f"{NAS}.holder")
    assert holder is not None
    return f"/proc/{holder.pid}/root{place.path('hosts', NAS, 'state')}"


def _fill(place: Place) -> None:
    """Take all that is free below the catalogue and the journal."""
    with open(f"{_state(place)}/ballast", "wb", buffering=0) as ballast:
        try:
            while True:
                ballast.write(_PIECE)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise


def _empty(place: Place) -> None:
    os.unlink(f"{_state(place)}/ballast")


def _jump(seconds: float) -> Callable[[Place], None]:
    return lambda place: set_clock(place.path("faults"), seconds)


def _restart_then(place: Place) -> None:
    """A clock that is wrong is often so from a start on."""
    _jump(_YEAR_S)(place)
    restart(place, NAS)


def _truncate(path: str) -> None:
    """Lose the end of the file: what is in the log of changes, an older catalogue is left."""
    os.truncate(path, os.path.getsize(path) // 3)


SCENARIOS = (
    Scenario("the broker is killed, and starts again", _kill_broker),
    Scenario("the broker has a memory alarm for 4 s", _alarm),
    Scenario("the NAS agent hangs (SIGSTOP)", _signal(NAS, signal.SIGSTOP), _signal(NAS, signal.SIGCONT), ended=True),
    Scenario(
        "a host's agent hangs (SIGSTOP)", _signal("node1", signal.SIGSTOP), _signal("node1", signal.SIGCONT), ended=True
    ),
    Scenario("the NAS agent is restarted", lambda place: restart(place, NAS)),
    Scenario("a host's agent is restarted", lambda place: restart(place, "node1")),
    Scenario("the frontend is restarted", lambda place: restart(place, "frontend")),
    Scenario("tgtd is killed, and starts again", lambda place: Faulted(place).revive("tgtd")),
    Scenario("the catalogue is lost", _lose_catalogue(os.unlink)),
    Scenario("the catalogue is cut off", _lose_catalogue(_truncate)),
    Scenario("the disk below the catalogue is full", _fill, _empty, ended=True),
    Scenario("the clock jumps a year ahead", _jump(_YEAR_S)),
    Scenario("the clock jumps a year back", _jump(-_YEAR_S)),
    Scenario("the clock is a year ahead, and the NAS agent is restarted", _restart_then),
)
BY_KIND = {scenario.kind: scenario for scenario in SCENARIOS}


def live_through(cloud: Cloud, action: Action, scenario: Scenario) -> Result:
    """Do the action, with the trouble in its middle."""
    try:
        return _live_through(cloud, action, scenario)
    finally:
        set_clock(cloud.place.path("faults"), 0)


def _live_through(cloud: Cloud, action: Action, scenario: Scenario) -> Result:
    expected = prepared(cloud, action)
    plan = Plan(MIDDLES[action.id], "delay", role=NAS, seconds=_HELD_S)
    started = time.monotonic()
    with _armed(cloud.place, plan), cloud.begin(call_of(cloud, action)) as stub:
        try:
            while stub.poll() is None and not fired(cloud.place.path("faults")):
                time.sleep(0.005)
            assert stub.poll() is None, f"{action.id} does not pass {plan.point}"
            scenario.trouble(cloud.place)
            end = started + DEADLINE_S
            while stub.poll() is None and time.monotonic() < end:
                time.sleep(0.02)
            late = stub.poll() is None
        finally:
            if scenario.ended:
                scenario.mend(cloud.place)
            stub.kill()
        _, stderr = stub.communicate()
    first = Said(None if late else stub.returncode, stderr.decode(errors="replace"))
    return judged(cloud, action, plan, expected, first, started, scenario.kind)


@contextmanager
def _armed(place: Place, plan: Plan) -> Iterator[None]:
    arm(place.path("faults"), plan)
    try:
        yield
    finally:
        disarm(place.path("faults"))
