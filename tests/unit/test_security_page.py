"""docs/security.md claims nothing without a test of that name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
ROWS = [
    line
    for line in (CHECKOUT / "docs/security.md").read_text().splitlines()
    if line.startswith("| ") and not line.startswith("| attack |")
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip()[:60])
def test_every_claim_names_tests_that_there_are(row: str):
    _, attack, stopped_by, tests, _ = row.split("|")
    named = re.findall(r"`([^`]+)::([^`]+)`", tests)

    assert attack.strip()
    assert stopped_by.strip()
    assert named
    for path, test in named:
        text = (CHECKOUT / "tests" / path).read_text()
        assert re.search(rf"def {re.escape(test)}\(|@test \"{re.escape(test)}\"", text), test
