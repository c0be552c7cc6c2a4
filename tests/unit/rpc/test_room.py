from __future__ import annotations

from typing import NamedTuple

import pytest

from onelun.deadline import Deadline
from onelun.errors import Busy, Conflict
from onelun.rpc.message import BY_REQUEST, DelZvol, MapZvol, UnmapZvol
from onelun.rpc.patience import Patience
from onelun.rpc.room import LONGEST_S, Room
from onelun.rpc.schema import Request

MAP = MapZvol(zvol="one-1", remotehost="node1")


class Guest(NamedTuple):
    host: str | None = None


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def check(room: Room, request: Request, guests: list[Guest]) -> None:
    room.check(request, BY_REQUEST[type(request)], guests)


def hint_s(room: Room, request: Request, guests: list[Guest]) -> float:
    with pytest.raises(Busy) as caught:
        check(room, request, guests)
    hint = caught.value.facts["retry_after_s"]
    assert isinstance(hint, float)
    return hint


def test_as_many_as_there_is_room_for_come_in():
    check(Room("nas1", 8), MAP, [Guest()] * 7)


def test_one_more_hears_how_many_there_are_and_when_to_come_again():
    with pytest.raises(Busy, match=r"nas1 has 8 requests under way.*nothing was done, ask again in .* s") as caught:
        check(Room("nas1", 8), MAP, [Guest()] * 8)

    assert caught.value.facts["under_way"] == 8


@pytest.mark.parametrize("request_", [UnmapZvol(zvol="one-1", remotehost="node1"), DelZvol(zvol="one-1")])
def test_what_frees_has_a_quarter_more(request_: Request):
    room = Room("nas1", 8)

    check(room, request_, [Guest("node1")] * 9)

    with pytest.raises(Busy):
        check(room, request_, [Guest("node1")] * 10)


def test_one_host_has_three_quarters_at_most():
    room = Room("nas1", 8)

    check(room, MAP, [Guest("node1")] * 5 + [Guest("node2")])
    check(room, MapZvol(zvol="one-1", remotehost="node2"), [Guest("node1")] * 6)

    with pytest.raises(Busy, match="nas1 has 6 requests under way, as many as it takes at once for node1"):
        check(room, MAP, [Guest("node1")] * 6)


def test_a_room_for_one_takes_one():
    room = Room("nas1", 1)

    check(room, MAP, [])

    with pytest.raises(Busy):
        check(room, MAP, [Guest("node1")])


def test_each_that_is_turned_away_is_told_a_later_moment():
    room = Room("nas1", 8, Clock())

    hints = [hint_s(room, MAP, [Guest()] * 8) for _ in range(50)]

    assert hints == sorted(hints)
    assert hints[-1] > hints[0]


def test_a_room_that_nobody_leaves_is_not_asked_often():
    room = Room("nas1", 8, clock := Clock())
    check(room, MAP, [Guest()] * 7)

    clock.now += 3600

    assert hint_s(room, MAP, [Guest()] * 8) == LONGEST_S


def test_a_room_that_fills_up_after_an_idle_hour_is_asked_again_soon():
    room = Room("nas1", 8, clock := Clock())
    clock.now += 3600
    check(room, MAP, [Guest()] * 7)

    assert hint_s(room, MAP, [Guest()] * 8) < 1


def test_the_slower_requests_end_the_later_one_is_told_to_come():
    room = Room("nas1", 8, clock := Clock())
    for _ in range(100):
        clock.now += 2
        room.ended(7)

    assert hint_s(room, MAP, [Guest()] * 8) == pytest.approx(2, abs=0.1)


def busy(**facts: float | str | bool | None) -> Busy:
    return Busy("nas1 has 8 requests under way", **facts)


def test_a_caller_waits_as_it_was_told_and_a_little_more():
    patience = Patience("nas1", "map_zvol", Deadline.after(60))

    pauses = [patience.pause_s(busy(retry_after_s=2.0, under_way=8)) for _ in range(100)]

    assert 2 <= min(pauses) < max(pauses) <= 2.5


@pytest.mark.parametrize("error", [busy(), busy(retry_after_s="soon"), busy(retry_after_s=True), Conflict("taken")])
def test_what_says_no_moment_is_raised_as_it_came(error: Busy):
    with pytest.raises(type(error)) as caught:
        Patience("nas1", "map_zvol", Deadline.after(60)).pause_s(error)

    assert caught.value is error


@pytest.mark.parametrize("hint", [1e308, float("inf"), float("nan"), -5.0])
def test_a_nonsensical_moment_neither_hangs_nor_hammers(hint: float):
    try:
        pause_s = Patience("nas1", "map_zvol", Deadline.after(3600)).pause_s(busy(retry_after_s=hint))
    except Busy:
        return
    assert 0.1 <= pause_s <= 75


def test_a_caller_whose_time_would_pass_is_told_who_is_busy_and_what_to_do():
    patience = Patience("nas1", "map_zvol", Deadline.after(1))

    with pytest.raises(Busy, match="nas1 has more to do than it can: with 8 requests ahead") as caught:
        patience.pause_s(busy(retry_after_s=5.0, under_way=8))

    assert "nothing was changed" in caught.value.sentence
    assert "oned.conf" in caught.value.sentence
    assert caught.value.facts == {"node": "nas1", "under_way": 8}
