"""What a recorded action needs before it, how it is called, and what is other than it should be after it."""

from __future__ import annotations

from tests.recorded.cloud import Cloud
from tests.recorded.row import Action
from tests.support.observed import State
from tests.support.recorded import Recorded


def call_of(cloud: Cloud, action: Action) -> Recorded:
    """The call, for this cloud."""
    return cloud.line(action.line) if action.line else cloud.recording(action.recording)


def prepared(cloud: Cloud, action: Action) -> State:
    """Make what must be there before; the state that must be there after."""
    cloud.serve([action.vm] if action.vm else [])
    cloud.prepare(action.before)
    return action.after(cloud.settled())


def difference(found: State, expected: State) -> str:
    """What is there and should not be, and the other way round."""
    lines = []
    for name, there in vars(found).items():
        wanted = getattr(expected, name)
        have, want = (set(map(str, value.items() if isinstance(value, dict) else value)) for value in (there, wanted))
        lines += [f"{name}: {item}" for item in sorted(have - want)] + [
            f"{name}, missing: {item}" for item in sorted(want - have)
        ]
    return "\n".join(lines)
