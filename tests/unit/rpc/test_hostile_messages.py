"""Messages as no caller of ours sends them: found by scripts/fuzz."""

from __future__ import annotations

import json

import pytest
from pika import BasicProperties

from onelun.errors import Busy, OnelunError, ProtocolError, from_wire
from onelun.rpc.channel import Delivery
from onelun.rpc.delivery import why_dropped
from onelun.rpc.journal import Journal
from onelun.rpc.message import decode_request


@pytest.mark.parametrize("number", [1 << 63, -(1 << 63) - 1, 1 << 64, 10**30])
@pytest.mark.parametrize("place", [{"vm": 0}, {"later": [{"a": 0}]}])
def test_a_number_that_no_catalogue_keeps_is_refused(number: int, place: dict[str, object]) -> None:
    text = json.dumps({"action": "find_placements", "cloud": "a", **place}).replace(": 0", f": {number}")

    with pytest.raises(ProtocolError, match="more than 64 bits"):
        decode_request(text.encode())


@pytest.mark.parametrize("number", [(1 << 63) - 1, -(1 << 63), 0.5])
def test_a_number_of_64_bits_is_taken(number: float) -> None:
    decode_request(json.dumps({"action": "hello", "later": number}).encode())


@pytest.mark.parametrize("name", ["message_id", "reply_to"])
def test_a_message_with_a_property_that_is_no_text_is_dropped(name: str) -> None:
    delivery = Delivery(1, "x", "nas1", BasicProperties(**{name: b"\xff"}), b"{}")

    assert why_dropped(delivery, exchange="x", node="nas1") == "has a message_id or a reply_to that is no text"


def test_no_fact_of_a_reply_can_stand_for_the_error_itself() -> None:
    error = from_wire(
        {"status": "error", "code": "busy", "error": "it is busy", "sentence": "a", "self": 1, "pool": "tank"}
    )

    assert isinstance(error, Busy)
    assert error.sentence == "it is busy"
    assert error.facts == {"sentence": "a", "pool": "tank"}


def test_a_file_that_is_no_journal_is_told_in_a_sentence(tmp_path) -> None:
    (tmp_path / "journal").write_bytes(b"SQLite format 3\0" + b"\xff" * 4096)

    with pytest.raises(OnelunError, match=r"cannot use the journal .*: .*; move it away"):
        Journal(str(tmp_path / "journal"))
