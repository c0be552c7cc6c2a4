"""What a caller does when an agent has no room for its request: it waits as it is told, and asks again, until its deadline."""

from __future__ import annotations

import math
import random
import time

from onelun.deadline import Deadline
from onelun.errors import Busy, OnelunError

_SHORTEST_S = 0.1
_LONGEST_S = 60.0
# With less time left than this a request would only be begun and ended.
_WORTH_S = 1.0


class Patience:
    """That of one request, `action` to `node`, until `deadline`."""

    def __init__(self, node: str, action: str, deadline: Deadline) -> None:
        self._node = node
        self._action = action
        self._deadline = deadline
        self._began = time.monotonic()

    def pause_s(self, error: OnelunError) -> float:
        """The seconds until the same request may be asked again, under the same id.

        Raises `error` unless its agent said when to come again (Busy with `retry_after_s`), which means that it has not
        taken the request; Busy, in a sentence for the operator, when the deadline would pass meanwhile.
        """
        hint_s = error.facts.get("retry_after_s") if isinstance(error, Busy) else None
        if not isinstance(hint_s, int | float) or isinstance(hint_s, bool) or not math.isfinite(hint_s):
            raise error
        # At random, so that those who were told the same do not come in step.
        pause_s = min(max(hint_s, _SHORTEST_S), _LONGEST_S) * random.uniform(1.0, 1.25)  # noqa: S311 - no secret
        if self._deadline.left_s() > pause_s + _WORTH_S:
            return pause_s
        ahead = error.facts.get("under_way")
        waited_s = time.monotonic() - self._began
        raise Busy(
            f"{self._node} has more to do than it can: with {ahead} requests ahead it did not take {self._action} within"
            f" {waited_s:.0f} s, and nothing was changed; repeat it later, or have oned begin fewer at once"
            " (-t of TM_MAD and DATASTORE_MAD in oned.conf)",
            node=self._node,
            under_way=ahead,
        ) from error
