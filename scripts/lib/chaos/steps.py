"""Which points an action passes, and what is tried at each, in which order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from tests.recorded.passing import Pass
from tests.support.sandbox.place import NODES

from onelun.faults.plan import Action as Fault
from onelun.faults.plan import Plan, Side

# These can happen to a message alone.
_OF_MESSAGES = ("drop", "twice", "late")
_LATE_S = 4.0


def trials(
    passes: Mapping[str, Sequence[Pass]], faults: Iterable[Fault], point: str = ""
) -> list[tuple[str, str, Plan]]:
    """What to try, as row, script and plan: each pair of script and point once for each fault and side.

    Those come first whose point has not been tried in any script, so that a run that is ended early has seen most.
    """
    seen: set[tuple[str, ...]] = set()
    known: set[tuple[str, ...]] = set()
    new, old = [], []
    for row, of_row in passes.items():
        script = script_of(row)
        for plan in _plans([found for found in of_row if point in found[1]], faults):
            what = ("compute" if plan.role in NODES else plan.role, plan.point, plan.action, plan.side)
            if (script, *what) in seen:
                continue
            seen.add((script, *what))
            (old if what in known else new).append((row, script, plan))
            known.add(what)
    return new + old


def script_of(row: str) -> str:
    """The script that a row calls: `tm.clone` of `tm.clone.ssh`, `tm.mv` of `tm.mv-0-0`."""
    return ".".join(row.partition("-")[0].split(".")[:2])


def _plans(passes: Iterable[Pass], faults: Iterable[Fault]) -> Iterator[Plan]:
    """Who dies before a step dies as after the one before it; so deaths come after steps, and before the first."""
    for fault in faults:
        first: set[str] = set()
        for role, point in passes:
            # All of an action is no step that could fail or hang by itself; what it does has its own points.
            if point == "frontend.server/action" and fault != "die":
                continue
            if fault in _OF_MESSAGES and (not point.startswith("rpc.") or "/journal-" in point):
                continue
            sides: tuple[Side, ...] = ("after",) if fault == "die" and role in first else ("before", "after")
            first.add(role)
            for side in sides if fault in ("die", "fail") else sides[:1]:
                yield Plan(point, fault, side, role, seconds=_LATE_S if fault == "late" else 3600.0)
