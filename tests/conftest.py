"""For all tests: what needs a guest's kernel is deselected where that is not."""

import signal

from tests.support.requires import pytest_collection_modifyitems, pytest_terminal_summary

__all__ = ["pytest_collection_modifyitems", "pytest_terminal_summary"]


def pytest_configure() -> None:
    """SIGTERM, which timeout(1) sends, ends the tests as Ctrl-C does: brokers and sandboxes that they started end too."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
