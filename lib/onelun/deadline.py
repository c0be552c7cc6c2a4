"""A moment by which something must have ended, on the monotonic clock, passed down instead of fresh timeouts."""

from __future__ import annotations

import time
from typing import NamedTuple


class Deadline(NamedTuple):
    """The moment `at`, in seconds of the monotonic clock."""

    at: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """The moment `seconds` from now."""
        return cls(time.monotonic() + seconds)

    def left_s(self) -> float:
        """The seconds that remain; 0 when it is over."""
        return max(0.0, self.at - time.monotonic())

    def over(self) -> bool:
        """Whether it has passed."""
        return time.monotonic() >= self.at

    def earlier(self, seconds: float) -> Deadline:
        """The earlier of this moment and `seconds` from now: the budget of one step."""
        return Deadline(min(self.at, time.monotonic() + seconds))
