"""scripts/chaos tells what is lost and what is leaked; nothing is well only because nobody looked."""

from __future__ import annotations

import pytest
from scripts.lib.chaos import trial
from scripts.lib.chaos.trial import Said, Verdict, repeated
from tests.recorded.acting import prepared
from tests.recorded.cloud import Cloud
from tests.recorded.table import ACTIONS
from tests.support.sandbox.processes import start

pytestmark = pytest.mark.timeout(1800)
LN = next(action for action in ACTIONS if action.id == "tm.ln")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "RECONCILE_S", 2.0)


def test_an_action_that_ends_well_has_survived(cloud: Cloud) -> None:
    verdict, why = repeated(cloud, LN, prepared(cloud, LN), Said(0, ""))

    assert (verdict, why) == (Verdict.SURVIVED, "")


def test_other_bytes_in_a_volume_are_a_loss(cloud: Cloud) -> None:
    expected = prepared(cloud, LN)
    with open(f"{cloud.place.pool}/one-4/data", "r+b") as data:
        data.write(b"other" * 1000)

    verdict, why = repeated(cloud, LN, expected, Said(0, ""))

    assert verdict is Verdict.LOST
    assert "one-4" in why


def test_a_process_that_nobody_needs_is_a_leak(cloud: Cloud) -> None:
    expected = prepared(cloud, LN)
    left = start(cloud.place, "left", ["sleep", "60"])
    try:
        verdict, why = repeated(cloud, LN, expected, Said(0, ""))
    finally:
        left.kill()

    assert verdict is Verdict.LEAKED
    assert "sleep" in why


@pytest.mark.parametrize("stderr", ["", "one\ntwo\n", "Traceback (most recent call last):\n"])
def test_an_error_that_is_not_one_sentence_is_unclear(stderr: str) -> None:
    assert not Said(1, stderr).is_clear


def test_lines_of_a_log_beside_one_sentence_are_clear() -> None:
    assert Said(1, "INFO: 0 clone: cloned\ncannot clone image 3: pool tank is full\n").is_clear
