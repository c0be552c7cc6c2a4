"""A caller that knows nothing of onelun: pika's own blocking connection, as the seed's callers use it."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

import pika

EXCHANGE = "rocks.vm-manage"


class Raw:
    """One blocking connection of a broker user. Every attempt that closes a channel gets a new one."""

    def __init__(self, url: str) -> None:
        parameters = pika.URLParameters(url)
        # It answers heartbeats only while it is used, which may be long after the last time.
        parameters.heartbeat = 0
        self.user = parameters.credentials.username
        self._connection = pika.BlockingConnection(parameters)
        self.channel = self._connection.channel()

    def close(self) -> None:
        if self._connection.is_open:
            self._connection.close()

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def new_channel(self, *, confirms: bool = False) -> Any:
        self.channel = self._connection.channel()
        if confirms:
            self.channel.confirm_delivery()
        return self.channel

    def outcome(self, exchange: str, key: str, body: bytes = b"{}", **properties: Any) -> str:
        """Publish, mandatory and confirmed: `routed`, `unroutable`, or AMQP's code of refusal."""
        channel = self.new_channel(confirms=True)
        try:
            channel.basic_publish(exchange, key, body, pika.BasicProperties(**properties), mandatory=True)
        except pika.exceptions.UnroutableError:
            return "unroutable"
        except pika.exceptions.ChannelClosedByBroker as refusal:
            return str(refusal.reply_code)
        channel.close()
        return "routed"

    def attempt(self, method: str, *args: Any, **kwargs: Any) -> str:
        """Call a method of a fresh channel: `ok`, or AMQP's code of refusal."""
        channel = self.new_channel()
        try:
            getattr(channel, method)(*args, **kwargs)
        except pika.exceptions.ChannelClosedByBroker as refusal:
            return str(refusal.reply_code)
        channel.close()
        return "ok"

    def ask(
        self,
        node: str,
        body: bytes | dict[str, Any],
        *,
        exchange: str = EXCHANGE,
        key: str | None = None,
        message_id: str | None = "",
        reply_to: bool = True,
        wait_s: float = 60.0,
        grace_s: float = 0.3,
        **properties: Any,
    ) -> list[tuple[pika.BasicProperties, dict[str, Any]]]:
        """Every reply up to the first final one, and what else comes within `grace_s` after it."""
        channel = self.new_channel(confirms=True)
        queue = channel.queue_declare(f"rpc-{uuid.uuid4().hex}", exclusive=True, auto_delete=True).method.queue
        replies: list[tuple[pika.BasicProperties, dict[str, Any]]] = []
        channel.basic_consume(queue, lambda *got: replies.append((got[2], json.loads(got[3]))), auto_ack=True)
        asked = pika.BasicProperties(
            reply_to=queue if reply_to else None,
            message_id=str(uuid.uuid4()) if message_id == "" else message_id,
            **properties,
        )
        channel.basic_publish(
            exchange,
            node if key is None else key,
            body if isinstance(body, bytes) else json.dumps(body).encode(),
            asked,
            mandatory=True,
        )
        limit = time.monotonic() + wait_s
        while time.monotonic() < limit:
            self._connection.process_data_events(time_limit=0.02)
            if replies and replies[-1][1].get("status") in ("success", "error"):
                limit = min(limit, time.monotonic() + grace_s)
                grace_s = 60.0
        channel.close()
        return replies
