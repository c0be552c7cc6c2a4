"""Faults of messages: they do not arrive, arrive twice, or arrive late."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from onelun.errors import Unreachable
from onelun.rpc.client import Client
from onelun.rpc.intake import Intake
from onelun.rpc.message import name_of
from onelun.rpc.post import Post

if TYPE_CHECKING:
    from onelun.deadline import Deadline
    from onelun.faults.installing import Faults
    from onelun.rpc.channel import Channel, Delivery
    from onelun.rpc.schema import Request


def messages_of(faults: Faults) -> None:
    """Put faults around what is asked, what comes in, and what is answered."""
    _asking(faults)
    _taking(faults)
    _answering(faults)


def _asking(faults: Faults) -> None:
    send = Client.send
    late: set[asyncio.Task[bool]] = set()

    async def sending(self: Client, node: str, request: Request, request_id: str, deadline: Deadline) -> bool:
        point = f"rpc.ask/{name_of(type(request))}"
        plan = faults.due(point, "before")
        match plan.action if plan else None:
            case "fail":
                raise Unreachable("the broker took no message: a fault")
            case "hang":
                await asyncio.sleep(deadline.left_s())
                return False
            case "drop":
                return True
            case "late":
                assert plan is not None
                late.add(asyncio.create_task(_later(plan.seconds, send, self, node, request, request_id, deadline)))
                return True
            case "twice":
                await send(self, node, request, request_id, deadline)
            case "delay":
                assert plan is not None
                await asyncio.sleep(plan.seconds)
        sent = await send(self, node, request, request_id, deadline)
        # The broker has it, and its word is lost.
        plan = faults.due(point, "after")
        return sent and plan is None

    Client.send = sending  # type: ignore[method-assign]


async def _later(seconds: float, send: Callable[..., Any], *args: object) -> bool:
    await asyncio.sleep(seconds)
    return bool(await send(*args))


def _taking(faults: Faults) -> None:
    take = Intake.take

    def taking(self: Intake, channel: Channel, delivery: Delivery) -> None:
        try:
            point = f"rpc.take/{json.loads(delivery.body)['action']}"
        except (ValueError, TypeError, KeyError):
            take(self, channel, delivery)
            return
        plan = faults.due(point, "before")
        match plan.action if plan else None:
            case "late" | "delay":
                assert plan is not None
                asyncio.get_running_loop().call_later(plan.seconds, take, self, channel, delivery)
            case "drop" | "fail" | "hang":
                # It stays unacknowledged, as with an agent that does nothing.
                return
            case _:
                take(self, channel, delivery)
        faults.due(point, "after")

    Intake.take = taking  # type: ignore[method-assign]


def _answering(faults: Faults) -> None:
    send = Post.send

    def sending(self: Post, *args: Any, **options: Any) -> None:  # noqa: ANN401 - as Post's own
        point = faults.site("reply", sys._getframe(1))  # noqa: SLF001
        plan = faults.due(point, "before") if point else None
        match plan.action if plan else None:
            case "drop" | "fail" | "hang":
                return
            case "late" | "delay":
                assert plan is not None
                asyncio.get_running_loop().call_later(plan.seconds, lambda: send(self, *args, **options))
            case "twice":
                send(self, *args, **options)
                send(self, *args, **options)
            case _:
                send(self, *args, **options)
        if point:
            faults.due(point, "after")

    Post.send = sending  # type: ignore[method-assign]
