"""What a caller concludes, for every answer that it may get to the question what became of its request."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from onelun.config import Limits
from onelun.deadline import Deadline
from onelun.errors import NoReply, OnelunError, Unreachable
from onelun.rpc.call import Call
from onelun.rpc.mailbox import Inbox
from onelun.rpc.message import Cancel, MapZvol, Status
from onelun.rpc.schema import Request

LIMITS = Limits(accept_s=0.2, finish_s=2.0, progress_s=0.05)
SUCCESS = {"action": "zvol_mapped", "status": "success"}
ACCEPTED = {"action": "zvol_mapped", "status": "accepted"}
REFUSAL = {"action": "zvol_mapped", "status": "error", "code": "busy", "error": "no room", "retry_after_s": 1.0}

Answer = dict[str, Any] | OnelunError


class Wire:
    """A wire on which every send and every question has the outcome that the test says, the last one again and again."""

    def __init__(self, *answers: Answer, sent: tuple[bool | OnelunError, ...] = (True,)) -> None:
        self.limits = LIMITS
        self.requests: list[Request] = []
        self.withdrawn: list[str] = []
        self.asked = 0
        self.on_send: Callable[[], None] = lambda: None
        self._answers = list(answers)
        self._sent = list(sent)

    async def send(self, node: str, request: Request, request_id: str, deadline: Deadline) -> bool:
        self.requests.append(request)
        self.on_send()
        outcome = self._sent.pop(0) if len(self._sent) > 1 else self._sent[0]
        if isinstance(outcome, OnelunError):
            raise outcome
        return outcome

    async def query(self, node: str, request: Request, deadline: Deadline) -> dict[str, Any]:
        assert isinstance(request, Status | Cancel)
        assert request.id == "the-id"
        self.asked += 1
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, OnelunError):
            raise answer
        return answer

    def withdraw(self, node: str, request_id: str) -> None:
        self.withdrawn.append(request_id)


def call(wire: Wire, *, deadline_s: float = 10.0) -> tuple[Call, Inbox]:
    inbox = Inbox("the-id", "nas1")
    request = MapZvol(zvol="one-1", remotehost="node1")
    return Call(wire, inbox, request, Deadline.after(deadline_s), None), inbox


async def test_a_request_that_the_node_has_not_seen_is_withdrawn_and_nothing_happened():
    asking, _ = call(Wire({"state": "unknown"}))

    with pytest.raises(Unreachable, match=r"nas1 did not take map_zvol within 0\.2 s: nothing was changed"):
        await asking.outcome()


async def test_a_reply_that_was_lost_is_got_by_its_id():
    asking, inbox = call(Wire({"state": "running"}, {"state": "done", "reply": SUCCESS}))
    inbox.put(ACCEPTED)

    assert await asking.outcome() == SUCCESS


async def test_a_node_that_forgot_what_it_took_leaves_the_outcome_unknown():
    asking, inbox = call(Wire({"state": "unknown"}))
    inbox.put(ACCEPTED)

    with pytest.raises(NoReply, match="nas1 took map_zvol and knows nothing of it any more"):
        await asking.outcome()


async def test_a_node_that_neither_takes_nor_answers_hangs_and_is_told_to_forget_it():
    asking, _ = call(wire := Wire(NoReply("no answer")))

    with pytest.raises(NoReply, match="is connected to the broker but hangs"):
        await asking.outcome()

    assert wire.withdrawn == ["the-id"]


async def test_a_node_that_took_it_and_went_away_is_looked_for_while_its_work_may_last():
    wire = Wire(Unreachable("gone"), Unreachable("gone"), {"state": "done", "reply": SUCCESS})
    wire.limits = Limits(accept_s=0.2, finish_s=60.0, progress_s=0.05)
    asking, inbox = call(wire, deadline_s=60.0)
    inbox.put(ACCEPTED)
    inbox.put(None)

    assert await asking.outcome() == SUCCESS
    assert wire.asked == 3


async def test_a_node_that_took_it_and_stays_away_leaves_the_outcome_unknown():
    asking, inbox = call(Wire(Unreachable("no agent called nas1 is connected to the broker")), deadline_s=240.0)
    inbox.put(ACCEPTED)
    started = time.monotonic()

    with pytest.raises(NoReply, match=r"unknown: not heard of for \d+ s, and no agent called nas1"):
        await asking.outcome()

    assert LIMITS.finish_s < time.monotonic() - started < LIMITS.finish_s + 60


async def test_a_deadline_is_kept_and_the_node_told_to_end():
    asking, inbox = call(wire := Wire({"state": "running"}), deadline_s=0.5)
    inbox.put(ACCEPTED)
    started = time.monotonic()

    with pytest.raises(NoReply, match="did not end in time: its outcome is unknown"):
        await asking.outcome()

    assert time.monotonic() - started < 60
    assert wire.withdrawn == ["the-id"]


async def test_a_confirm_that_was_lost_has_the_request_sent_again_under_its_id():
    asking, inbox = call(wire := Wire({"state": "running"}, sent=(False, True)))
    wire.on_send = lambda: inbox.put(SUCCESS) if len(wire.requests) == 2 else None

    assert await asking.outcome() == SUCCESS
    assert wire.requests[0] == wire.requests[1]


@pytest.mark.parametrize(
    ("answers", "letters", "becomes"),
    [
        ([{"state": "unknown"}], [], None),
        ([{"state": "done", "reply": SUCCESS}], [], SUCCESS),
        ([{"state": "running"}], [SUCCESS], SUCCESS),
        # The second letter is the refusal of yet another copy.
        ([{"state": "running"}, {"state": "running"}], [ACCEPTED, REFUSAL, SUCCESS], SUCCESS),
        ([Unreachable("gone"), {"state": "unknown"}], [], None),
    ],
)
async def test_what_became_of_the_other_copy_is_asked_and_nothing_is_sent_again(answers, letters, becomes):
    asking, inbox = call(wire := Wire(*answers, sent=(False, True)), deadline_s=60.0)
    wire.limits = Limits(accept_s=30.0, finish_s=60.0, progress_s=0.05)
    wire.on_send = lambda: inbox.put(REFUSAL) if len(wire.requests) == 2 else None
    assert await asking.outcome() == REFUSAL
    for letter in letters:
        inbox.put(letter)

    assert await asking.settled() == becomes

    assert asking.copies == len(wire.requests) == 2


async def test_a_node_that_does_not_tell_what_became_of_the_other_copy_leaves_the_outcome_unknown():
    asking, inbox = call(wire := Wire(NoReply("no answer")))
    inbox.put(REFUSAL)
    await asking.outcome()

    with pytest.raises(NoReply, match="its outcome is unknown"):
        await asking.settled()

    assert wire.withdrawn == ["the-id"]


async def test_nobody_there_means_that_nothing_happened():
    asking, _ = call(wire := Wire({}, sent=(Unreachable("no agent called nas1 is connected to the broker"),)))

    with pytest.raises(Unreachable, match="no agent called nas1"):
        await asking.outcome()

    assert wire.asked == 0


async def test_nobody_there_after_a_confirm_was_lost_does_not_mean_that_nothing_happened():
    asking, _ = call(Wire(Unreachable("gone"), sent=(False, Unreachable("gone"))))

    with pytest.raises(NoReply):
        await asking.outcome()


async def test_the_agents_limits_end_before_the_callers_deadline():
    wire = Wire({})
    wire.limits = Limits(accept_s=0.2, finish_s=60.0, progress_s=0.05)
    asking, inbox = call(wire, deadline_s=8.0)
    inbox.put(SUCCESS)

    await asking.outcome()

    [request] = wire.requests
    assert request.start_within == LIMITS.accept_s
    assert request.finish_within is not None
    assert 2.0 < request.finish_within <= 7.2
