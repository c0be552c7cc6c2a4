"""What TLS costs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from scripts.lib.bench.round_trip import round_trips
from scripts.lib.bench.row import Found, Part, Row, compared

MOST = 1.3


@contextlib.contextmanager
def nothing() -> Iterator[None]:
    """The row makes the brokers that it needs."""
    yield


def tls(_on: None) -> Found:
    """A request to an agent and its reply, in turn over a broker with certificates and over one with passwords."""
    took = round_trips()
    return compared(took.tls_s, took.plain_s)


PART = Part("tls", nothing, (Row("tls", "a request and its reply over TLS", "without TLS", tls, MOST),))
