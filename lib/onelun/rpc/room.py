"""How many requests an agent has under way at most, and when one that it turns away should come again (decision 0019)."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Protocol

from onelun.errors import Busy
from onelun.rpc.message import Verb
from onelun.rpc.schema import Request

# What a caller waits at least, and at most, before it asks again.
SHORTEST_S = 0.2
LONGEST_S = 10.0
# How long one request after the other takes, while that is not known yet, and how much of it one more tells.
_FIRST_PACE_S = 0.05
_LEARNED = 0.1


class Guest(Protocol):
    """A request that has room; `host` is the one that it names, if any."""

    host: str | None


class Room:
    """The room of the agent `node`: `most` requests, working or waiting for each other.

    A quarter more is kept for those that free something, so that they pass those that take. Requests that name the same host
    have three quarters at most, so that a host that hangs leaves room for the others.
    """

    def __init__(self, node: str, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._node = node
        self._most = most
        self._clock = clock
        self._pace_s = _FIRST_PACE_S
        self._moved_at = self._turn_at = clock()

    def check(self, request: Request, verb: Verb, guests: Collection[Guest]) -> None:
        """Raise Busy, with the fact `retry_after_s`, unless there is room beside `guests`. Nothing is kept of the request."""
        if len(guests) >= self._most + (-(-self._most // 4) if verb.frees else 0):
            raise self._busy(len(guests), "as many as it takes at once")
        host = host_of(request)
        if host is not None and not verb.frees:
            of_host = sum(guest.host == host for guest in guests)
            if of_host >= -(-3 * self._most // 4):
                raise self._busy(of_host, f"as many as it takes at once for {host}")
        self._moved_at = self._clock()

    def ended(self, left: int) -> None:
        """A request has ended, and `left` are there still: how fast that goes tells who is turned away when to come."""
        now = self._clock()
        if left + 1 >= self._most:
            self._pace_s += _LEARNED * (min(now - self._moved_at, LONGEST_S) - self._pace_s)
        self._moved_at = now

    def _busy(self, under_way: int, why: str) -> Busy:
        # Each one that is turned away gets a moment of its own, so that they do not all come at once.
        now = self._clock()
        pace_s = max(self._pace_s, now - self._moved_at)
        self._turn_at = min(max(self._turn_at, now) + pace_s, now + LONGEST_S)
        wait_s = round(max(SHORTEST_S, self._turn_at - now), 2)
        return Busy(
            f"{self._node} has {under_way} requests under way, {why}: nothing was done, ask again in {wait_s:g} s",
            retry_after_s=wait_s,
            under_way=under_way,
        )


def host_of(request: Request) -> str | None:
    """The host that a request to a NAS is about."""
    host = getattr(request, "remotehost", None)
    return host if isinstance(host, str) else None
