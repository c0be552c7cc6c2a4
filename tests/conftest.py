"""For all tests: what needs a guest's kernel is deselected where that is not."""

from tests.support.requires import pytest_collection_modifyitems, pytest_terminal_summary

__all__ = ["pytest_collection_modifyitems", "pytest_terminal_summary"]
