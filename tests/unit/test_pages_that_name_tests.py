"""docs/security.md and docs/reliability.md claim nothing without a test of that name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
COLUMNS = re.compile(
    r"\| (?:attack \| what stops it|sequence \| what keeps the data|complaint \| what onelun does) \| test \|"
)


def _rows(page: str) -> Iterator[str]:
    """The rows of the page's tables that name tests."""
    inside = False
    for line in (CHECKOUT / "docs" / page).read_text().splitlines():
        if COLUMNS.fullmatch(line):
            inside = True
        elif not line.startswith("|"):
            inside = False
        elif inside and not line.startswith("|---"):
            yield line


ROWS = {page: list(_rows(page)) for page in ("security.md", "reliability.md")}


@pytest.mark.parametrize(
    "row", [row for rows in ROWS.values() for row in rows], ids=lambda row: row.split("|")[1].strip()[:60]
)
def test_every_claim_names_tests_that_there_are(row: str):
    _, claim, kept_by, tests, _ = row.split("|")
    named = re.findall(r"`([^`]+)::([^`]+)`", tests)

    assert claim.strip()
    assert kept_by.strip()
    assert named
    for path, test in named:
        text = (CHECKOUT / "tests" / path).read_text()
        assert re.search(rf"def {re.escape(test)}\(|@test \"{re.escape(test)}\"", text), test


@pytest.mark.parametrize("page", ROWS)
def test_no_test_is_named_elsewhere_on_the_page(page: str):
    assert ROWS[page]
    assert (CHECKOUT / "docs" / page).read_text().count("::") == "".join(ROWS[page]).count("::")
