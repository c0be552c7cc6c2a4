"""Errors across the wire."""

import pytest

from onelun.errors import (
    Busy,
    Cancelled,
    CommandFailed,
    Conflict,
    InMaintenance,
    Interrupted,
    NoReply,
    NotFound,
    OnelunError,
    OutOfSpace,
    ProtocolError,
    Rejected,
    Stalled,
    Unreachable,
    from_wire,
)

KINDS = (
    OnelunError,
    Rejected,
    NotFound,
    Conflict,
    OutOfSpace,
    InMaintenance,
    Busy,
    Cancelled,
    Interrupted,
    CommandFailed,
    Unreachable,
    NoReply,
    Stalled,
    ProtocolError,
)


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_is_the_same_on_the_other_side(kind):
    error = kind("the pool is full", pool="tank", needed_bytes=7)

    again = from_wire({"action": "zvol_created", **error.to_wire()})

    assert type(again) is kind
    assert again.sentence == "the pool is full"
    assert again.facts == {"pool": "tank", "needed_bytes": 7}


def test_every_kind_has_a_code_of_its_own():
    assert len({kind.code for kind in KINDS}) == len(KINDS)


def test_an_error_of_a_newer_release_is_still_an_error():
    again = from_wire({"status": "error", "code": "from_the_future", "error": "no"})

    assert type(again) is OnelunError
    assert again.sentence == "no"


def test_a_fact_cannot_hide_the_outcome():
    assert Rejected("no", status="success", code="fine").to_wire()["status"] == "error"
    assert Rejected("no", status="success", code="fine").to_wire()["code"] == "rejected"


def test_a_reply_without_a_reason_says_so():
    assert from_wire({"status": "error"}).sentence == "the other side gave no reason"


def test_a_rooms_own_kind_crosses_the_wire_as_its_parent():
    class Refused(CommandFailed):
        def __init__(self, number):
            super().__init__("refused", number=number)

    again = from_wire(Refused(22).to_wire())

    assert type(again) is CommandFailed
    assert again.facts == {"number": 22}
