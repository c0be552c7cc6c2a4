"""What comes into an agent's queue: whether it counts, and what it asks."""

from __future__ import annotations

import hashlib
import json
import uuid
from typing import NamedTuple

import msgspec

from onelun.rpc.channel import Delivery
from onelun.rpc.job import Asker
from onelun.rpc.message import BY_NAME, LONGEST, encode, name_of
from onelun.rpc.schema import Request


class Asked(NamedTuple):
    """A request with whatever the agent needs to treat it. `received_at` is on the monotonic clock."""

    request: Request
    id: str
    caller: str | None
    asker: Asker
    digest: bytes
    body: bytes
    received_at: float


def why_dropped(delivery: Delivery, *, exchange: str, node: str) -> str | None:
    """Why a delivery is no request to `node`, whatever it says; None when it counts.

    The broker alone sets exchange and routing key. Others can write into our queue through the default exchange, which
    they need for replies; through a CC header, which RabbitMQ 3.10 does not check; and through a dead-letter queue,
    whose messages pass topic permissions but carry x-death.
    """
    if delivery.exchange != exchange:
        return f"came through the exchange {delivery.exchange!r}"
    if delivery.routing_key != node:
        return f"has the routing key {delivery.routing_key!r}"
    if "x-death" in (delivery.properties.headers or {}):
        return "was dead-lettered"
    named = (delivery.properties.message_id, delivery.properties.reply_to, delivery.properties.user_id)
    # pika leaves a property as bytes that is no UTF-8: neither the journal nor pika itself takes such a one.
    if not all(name is None or isinstance(name, str) for name in named):
        return "has a message_id or a reply_to that is no text"
    return None


def asker_of(delivery: Delivery) -> Asker:
    """Who gets the answer, also of a message that is no request."""
    properties = delivery.properties
    return Asker(
        reply_to=properties.reply_to or None,
        correlation_id=properties.message_id,
        interim=(properties.headers or {}).get("interim") is True,
    )


def asked_in(delivery: Delivery, request: Request, *, received_at: float) -> Asked:
    """The request in `delivery`. One without a message_id gets an id that nobody else knows."""
    return Asked(
        request=request,
        id=delivery.properties.message_id or str(uuid.uuid4()),
        caller=delivery.properties.user_id,
        asker=asker_of(delivery),
        digest=digest_of(request),
        body=delivery.body,
        received_at=received_at,
    )


def digest_of(request: Request) -> bytes:
    """What tells a request from another one. The limits do not count: who asks again has less time left."""
    lasting = msgspec.structs.replace(request, start_within=None, finish_within=None)
    return hashlib.sha256(encode(lasting)).digest()


def reply_name(body: bytes) -> str | None:
    """The reply's action for a message that may be no request; None when it names no action that we know."""
    if len(body) > LONGEST:
        return None
    try:
        verb = BY_NAME.get(json.loads(body)["action"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return name_of(verb.reply) if verb else None
