"""What TLS costs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from scripts.lib.bench.row import Found, Part, Row, Unmeasurable


@contextlib.contextmanager
def nothing() -> Iterator[None]:
    """The row makes what it needs."""
    yield


def tls(_on: None) -> Found:
    """A request and its reply."""
    raise Unmeasurable("this row is not written yet")


PART = Part("tls", nothing, (Row("tls", "a request and its reply over TLS", "without TLS", tls),))
