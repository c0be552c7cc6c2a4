"""What TLS costs."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator

from scripts.lib.bench.row import Found, Part, Row, Unmeasurable, compared

MOST = 1.3
_ROUND_TRIP = "scripts.lib.bench_tls"


@contextlib.contextmanager
def nothing() -> Iterator[None]:
    """The row makes the brokers that it needs."""
    yield


def tls(_on: None) -> Found:
    """A request to an agent and its reply, in turn over a broker with certificates and over one with passwords."""
    try:
        round_trip = importlib.import_module(_ROUND_TRIP).round_trip
    except ModuleNotFoundError as error:
        if error.name != _ROUND_TRIP:
            raise
        raise Unmeasurable("this checkout makes no broker with certificates") from None
    took = round_trip()
    return compared([took.tls_s], [took.plain_s])


PART = Part("tls", nothing, (Row("tls", "a request and its reply over TLS", "without TLS", tls, MOST),))
