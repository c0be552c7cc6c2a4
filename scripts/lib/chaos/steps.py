"""Which points an action passes, and what is tried at each, in which order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from tests.recorded.passing import Pass
from tests.support.sandbox.place import NODES

from onelun.faults.plan import Action as Fault
from onelun.faults.plan import Plan, Side

# These can happen to a message alone.
_OF_MESSAGES = ("drop", "twice", "late")
_LATE_S = 4.0
# A row, its script, and a plan.
Trial = tuple[str, str, Plan]
Named = Sequence[str]


def trials(passes: Mapping[str, Sequence[Pass]], faults: Iterable[Fault], named: Named = ()) -> list[Trial]:
    """What to try, as row, script and plan: each pair of script and point once for each fault and side.

    `named` limits it to points that have one of these in their name.

    Those come first whose point has not been tried in any script, so that a run that is ended early has seen most.
    """
    seen: set[tuple[str, ...]] = set()
    known: set[tuple[str, ...]] = set()
    new: list[Trial] = []
    old: list[Trial] = []
    for row, of_row in passes.items():
        script = script_of(row)
        for plan in _plans([found for found in of_row if is_named(found[1], named)], faults):
            what = _what(plan)
            if (script, *what) in seen:
                continue
            seen.add((script, *what))
            (old if what in known else new).append((row, script, plan))
            known.add(what)
    return new + old


def is_named(name: str, words: Named) -> bool:
    """Whether the name has one of the words in it; with no words, always."""
    return not words or any(word in name for word in words)


def spread(wanted: Sequence[Trial], most: int) -> list[Trial]:
    """The trials of each point, fault and side in at most `most` scripts: in those that have the fewest so far.

    A point's next scripts come after all points' first ones.
    """
    of_point: dict[tuple[str, ...], list[Trial]] = {}
    for trial in wanted:
        of_point.setdefault(_what(trial[2]), []).append(trial)
    counted: Counter[str] = Counter()
    rounds: list[list[Trial]] = [[] for _ in range(most)]
    # A point that few scripts pass has no choice, so it comes first.
    for trials_of in sorted(of_point.values(), key=len):
        for found in rounds[: len(trials_of)]:
            trial = min(trials_of, key=lambda one: counted[one[1]])
            trials_of.remove(trial)
            counted[trial[1]] += 1
            found.append(trial)
    return [trial for found in rounds for trial in found]


def _what(plan: Plan) -> tuple[str, ...]:
    """What is tried, whichever script it is in and whichever of the hosts."""
    return ("compute" if plan.role in NODES else plan.role, plan.point, plan.action, plan.side, str(plan.nth))


def script_of(row: str) -> str:
    """The script that a row calls: `tm.clone` of `tm.clone.ssh`, `tm.mv` of `tm.mv-0-0`."""
    return ".".join(row.partition("-")[0].split(".")[:2])


def _plans(passes: Iterable[Pass], faults: Iterable[Fault]) -> Iterator[Plan]:
    """Who dies before a step dies as after the one before it; so deaths come after steps, and before the first.

    A step that is there several times is one each time.
    """
    for fault in faults:
        first: set[str] = set()
        counted: Counter[Pass] = Counter()
        for role, point in passes:
            counted[role, point] += 1
            # All of an action is no step that could fail or hang by itself; what it does has its own points.
            if point == "frontend.server/action" and fault != "die":
                continue
            if fault in _OF_MESSAGES and (not point.startswith("rpc.") or "/journal-" in point):
                continue
            sides: tuple[Side, ...] = ("after",) if fault == "die" and role in first else ("before", "after")
            first.add(role)
            for side in sides if fault in ("die", "fail") else sides[:1]:
                seconds = _LATE_S if fault == "late" else 3600.0
                yield Plan(point, fault, side, role, counted[role, point], seconds)
