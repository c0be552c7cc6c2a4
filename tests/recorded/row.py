"""One row of the table of actions: what oned says of the VM meanwhile, what must be there before, and what is true after.

`after` is given the state before the action, as it was seen, and returns the one that must be seen afterwards, so that a row
also says what stays as it is. `kills` names the roles that have work in the action: each of them is killed in the middle of
it. Further rows of one script, scripts that do another's work as well (live or not, the parts of a flattening), and what takes
long (migrations, backups) have only the kills that the others do not have.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from tests.recorded.cloud import OnedVm, Step
from tests.support.observed import State

Change = Callable[[State], State]
STUB, FRONTEND, NAS, COMPUTE = "stub", "frontend", "nas1", "compute"
ASKING = (STUB, FRONTEND, NAS)
ALL = (*ASKING, COMPUTE)

ONE, TWO = "host01:/var/lib/one//datastores/103/0", "host02:/var/lib/one//datastores/103/0"
SSH = ":/var/lib/one//datastores/110/12"
SSH17 = ":/var/lib/one//datastores/110/17"


def same(state: State) -> State:
    """What only looks changes nothing."""
    return state


@dataclass(frozen=True)
class Action:
    """One row; `line` is another call of the same action, as a recorded transfer script has it."""

    recording: str
    after: Change
    before: tuple[Step, ...] = ()
    vm: OnedVm | None = None
    prints: str = ""
    kills: tuple[str, ...] = ()
    line: str | None = None

    @property
    def id(self) -> str:
        """Its name among the tests."""
        words = self.line.split() if self.line else []
        return "-".join([self.recording, *(re.sub(r".*/", "", word) for word in words[2:4])])


PROLOG = OnedVm("vm-0.lcm-18", 0, lcm=1)
SPACE = r"USED_MB=\d+\nTOTAL_MB=\d+\nFREE_MB=\d+\n"
