"""The ids of an action's requests, and when one is asked again."""

from __future__ import annotations

import uuid

import pytest

from onelun.deadline import Deadline
from onelun.driver.asking import Asking
from onelun.errors import Busy, Cancelled, Conflict, Interrupted, NoReply, OnelunError, ProtocolError, Unreachable
from onelun.rpc import message as m

ACTION = "3f0c5a4e-6f0f-4b62-9d39-2d1f6a1c7b11"


class Recorder:
    """An asker that raises what it is told to, then answers."""

    def __init__(self, *errors: OnelunError) -> None:
        self.errors = list(errors)
        self.ids: list[str | None] = []

    async def ask(self, node, request, *, deadline, id=None, on_progress=None):
        self.ids.append(id)
        if self.errors:
            raise self.errors.pop(0)
        return m.ZvolUnmapped()


def asking(asker: Recorder, *, attempt: int = 0, seconds: float = 5.0) -> Asking:
    return Asking(asker, ACTION, Deadline.after(seconds), accept_s=0.5, attempt=attempt)


async def test_an_action_begun_again_asks_under_the_same_ids() -> None:
    one, other = Recorder(), Recorder()
    requests = [m.UnmapZvol(zvol="a"), m.UnmapZvol(zvol="b"), m.UnmapZvol(zvol="a")]

    for recorder in (one, other):
        mine = asking(recorder)
        for request in requests:
            await mine.ask("nas1", request, m.ZvolUnmapped)

    assert one.ids == other.ids
    assert len(set(one.ids)) == 3
    assert all(uuid.UUID(id_).version == 5 for id_ in one.ids if id_)


async def test_what_is_asked_anew_is_new_work_each_time_the_action_is_begun() -> None:
    recorder = Recorder()

    for attempt in (0, 0, 1, 2):
        await asking(recorder, attempt=attempt).ask("nas1", m.UnmapZvol(zvol="a"), m.ZvolUnmapped, anew=True)

    assert recorder.ids[0] == recorder.ids[1]
    assert len(set(recorder.ids)) == 3


async def test_another_node_or_action_has_other_ids() -> None:
    recorder = Recorder()

    await asking(recorder).ask("nas1", m.UnmapZvol(zvol="a"), m.ZvolUnmapped)
    await asking(recorder).ask("nas2", m.UnmapZvol(zvol="a"), m.ZvolUnmapped)
    other = Asking(recorder, str(uuid.uuid4()), Deadline.after(5), accept_s=1, attempt=0)
    await other.ask("nas1", m.UnmapZvol(zvol="a"), m.ZvolUnmapped)

    assert len(set(recorder.ids)) == 3


@pytest.mark.parametrize("error", [Interrupted("restarted"), Busy("busy")])
async def test_what_may_be_repeated_is_asked_under_a_new_id(error: OnelunError) -> None:
    recorder = Recorder(error)

    await asking(recorder).ask("nas1", m.UnmapZvol(zvol="a"), m.ZvolUnmapped)

    assert len(set(recorder.ids)) == 2


@pytest.mark.parametrize("error", [Conflict("x"), Unreachable("x"), NoReply("x"), Cancelled("x"), ProtocolError("x")])
async def test_everything_else_is_raised_as_it_comes(error: OnelunError) -> None:
    recorder = Recorder(error)

    with pytest.raises(type(error)):
        await asking(recorder).ask("nas1", m.UnmapZvol(zvol="a"), m.ZvolUnmapped)

    assert len(recorder.ids) == 1


async def test_an_agent_that_is_restarted_may_be_away_meanwhile() -> None:
    recorder = Recorder(Interrupted("stopped"), Unreachable("nobody there"), Unreachable("nobody there"))

    await asking(recorder).ask("nas1", m.UnmapZvol(zvol="a"), m.ZvolUnmapped)

    assert len(set(recorder.ids)) == 4


async def test_what_the_frontend_before_gave_up_is_asked_anew() -> None:
    recorder = Recorder(Cancelled("the caller gave it up"))

    await asking(recorder, attempt=1).ask("nas1", m.UnmapZvol(zvol="a"), m.ZvolUnmapped)

    assert len(set(recorder.ids)) == 2


async def test_what_a_later_request_cancels_is_not_asked_for_ever() -> None:
    recorder = Recorder(*[Cancelled("a later request came")] * 5)

    with pytest.raises(Cancelled):
        await asking(recorder, attempt=1).ask("nas1", m.UnmapZvol(zvol="a"), m.ZvolUnmapped)

    assert len(recorder.ids) == 2


async def test_repeating_ends_with_the_deadline() -> None:
    recorder = Recorder(*[Interrupted("restarted")] * 50)

    with pytest.raises(Interrupted):
        await asking(recorder, seconds=0.5).ask("nas1", m.UnmapZvol(zvol="a"), m.ZvolUnmapped)

    assert 1 < len(recorder.ids) < 5


async def test_a_node_that_may_be_absent_for_a_while_is_asked_again() -> None:
    recorder = Recorder(Unreachable("nobody there"), Unreachable("nobody there"))

    await asking(recorder).ask("nas1", m.UnmapZvol(zvol="a"), m.ZvolUnmapped, absent_s=2.0)

    # One that was withdrawn because the node hung stays withdrawn.
    assert len(set(recorder.ids)) == 3


async def test_a_node_that_stays_absent_is_given_up() -> None:
    recorder = Recorder(*[Unreachable("nobody there")] * 50)

    with pytest.raises(Unreachable):
        await asking(recorder).ask("nas1", m.UnmapZvol(zvol="a"), m.ZvolUnmapped, absent_s=0.5)

    assert 1 < len(recorder.ids) < 5


async def test_another_reply_than_the_request_has_is_an_error() -> None:
    with pytest.raises(ProtocolError, match="nas1 answered list_dev with zvol_unmapped"):
        await asking(Recorder()).ask("nas1", m.ListDev(), m.DevList)
