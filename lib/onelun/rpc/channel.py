"""One AMQP channel as coroutines: declarations, deliveries, and publishes that know what became of them.

A refusal by the broker (403, 404, 405, 406) ends a channel; whoever waits on it then gets that Refusal.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from pika import BasicProperties, exceptions, spec
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.channel import Channel as PikaChannel
from pika.frame import Method

from onelun.deadline import Deadline

T = TypeVar("T")


class Refusal(Exception):
    """The broker's no, with AMQP's reply code and its text."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code} {text}")
        self.code = code
        self.text = text


class Lost(Exception):
    """The connection or the channel went away for another reason."""


class Outcome(enum.Enum):
    """What the broker said of a published message."""

    ROUTED = enum.auto()  # it is in a queue
    UNROUTABLE = enum.auto()  # no queue wants it; nobody has it
    NACKED = enum.auto()  # the broker could not take it
    UNSENT = enum.auto()  # it did not go out: the connection was lost, or others' messages took all the time
    LOST = enum.auto()  # the broker said nothing, or the connection went away first: it may or may not be in a queue


class Delivery(NamedTuple):
    """One message as it came, with what only the broker can set: the exchange and the routing key."""

    tag: int
    exchange: str
    routing_key: str
    properties: BasicProperties
    body: bytes


class Channel:
    """An open channel; made by `open_channel`."""

    def __init__(self, raw: PikaChannel) -> None:
        self._raw = raw
        self._waiting: set[asyncio.Future[Any]] = set()
        self._unconfirmed: dict[int, _Published] = {}
        self._published = 0
        self.ended: asyncio.Future[Refusal | Lost] = asyncio.get_running_loop().create_future()

    @property
    def is_open(self) -> bool:
        """Whether it can be used."""
        return not self.ended.done() and bool(self._raw.is_open)

    async def confirm_deliveries(self) -> None:
        """Ask the broker to tell what becomes of each message. Once, before the first publish."""
        self._raw.add_on_return_callback(self._on_return)
        await self._call(self._raw.confirm_delivery, self._on_confirm)

    async def check_exchange(self, name: str) -> None:
        """Raise Refusal 404 unless the exchange exists."""
        await self._call(self._raw.exchange_declare, exchange=name, passive=True)

    async def declare_exclusive(self, queue: str) -> None:
        """Make a queue that lives as long as this connection. Raises Refusal 405 while another connection has it."""
        await self._call(self._raw.queue_declare, queue=queue, exclusive=True, auto_delete=True)

    async def bind(self, queue: str, exchange: str, key: str) -> None:
        """Have what is published with `key` put into `queue`. Repeating it succeeds."""
        await self._call(self._raw.queue_bind, queue=queue, exchange=exchange, routing_key=key)

    async def unbind(self, queue: str, exchange: str, key: str) -> None:
        """Undo `bind`. Repeating it succeeds."""
        await self._call(self._raw.queue_unbind, queue=queue, exchange=exchange, routing_key=key)

    async def consume(self, queue: str, on_delivery: Callable[[Delivery], None], *, no_ack: bool) -> None:
        """Have each message of `queue` handed to `on_delivery`, until the channel ends; it ends when the queue goes."""

        def deliver(_: object, method: spec.Basic.Deliver, properties: BasicProperties, body: bytes) -> None:
            on_delivery(Delivery(method.delivery_tag, method.exchange, method.routing_key, properties, body))

        self._raw.add_on_cancel_callback(lambda _: self._end(Lost(f"the broker removed the queue {queue}")))
        await self._call(self._raw.basic_consume, queue=queue, on_message_callback=deliver, auto_ack=no_ack)

    def ack(self, tag: int) -> None:
        """Tell the broker that a delivery is ours now. On an ended channel the broker has given it up already: nothing."""
        if self.is_open:
            self._raw.basic_ack(tag)

    async def publish(
        self, exchange: str, key: str, body: bytes, properties: BasicProperties, deadline: Deadline
    ) -> Outcome:
        """Publish and return what the broker says by `deadline`. Needs `confirm_deliveries`.

        Raises Lost when the message did not go out, and Refusal when the broker does not let us publish it.
        """
        if not self.is_open:
            raise Lost("the channel is closed")
        self._published += 1
        tag = self._published
        verdict: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._unconfirmed[tag] = _Published(exchange, key, properties.message_id, verdict)
        try:
            self._raw.basic_publish(exchange, key, body, properties, mandatory=True)
            async with asyncio.timeout(deadline.left_s()):
                return await verdict
        except TimeoutError:
            return Outcome.LOST
        finally:
            self._unconfirmed.pop(tag, None)

    async def close(self) -> None:
        """End the channel. Ending an ended one succeeds."""
        if self.is_open:
            with contextlib.suppress(exceptions.AMQPError):
                self._raw.close()
                await asyncio.wait({self.ended}, timeout=5)

    async def _call(self, method: Callable[..., object], *args: object, **kwargs: object) -> None:
        if not self.is_open:
            raise self.ended.result() if self.ended.done() else Lost("the channel is closing")
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(answer)
        try:
            method(*args, callback=lambda _: settle(answer, None), **kwargs)
            await answer
        except exceptions.AMQPError as error:
            raise Lost(str(error)) from error
        finally:
            self._waiting.discard(answer)

    def _on_return(self, _: object, __: object, properties: BasicProperties, ___: object) -> None:
        # A message comes back before its confirm, oldest first among equal ids.
        for published in self._unconfirmed.values():
            if published.message_id == properties.message_id and not published.verdict.done():
                settle(published.verdict, Outcome.UNROUTABLE)
                return

    def _on_confirm(self, frame: Method[Any]) -> None:
        method = frame.method
        outcome = Outcome.ROUTED if isinstance(method, spec.Basic.Ack) else Outcome.NACKED
        last = method.delivery_tag
        tags = [tag for tag in self._unconfirmed if tag <= last] if method.multiple else [last]
        for tag in tags:
            if published := self._unconfirmed.get(tag):
                settle(published.verdict, outcome)

    def on_closed(self, _: PikaChannel, reason: Exception) -> None:
        """Say to whoever waits why the channel is gone."""
        if isinstance(reason, exceptions.ChannelClosedByBroker):
            self._end(Refusal(reason.reply_code, reason.reply_text))
        else:
            self._end(Lost(str(reason)))

    def _end(self, reason: Refusal | Lost) -> None:
        if self.ended.done():
            return
        self.ended.set_result(reason)
        for answer in self._waiting:
            if not answer.done():
                answer.set_exception(reason)
        for published in self._unconfirmed.values():
            if not published.verdict.done():
                if isinstance(reason, Refusal) and published.is_meant_by(reason):
                    published.verdict.set_exception(reason)
                else:
                    settle(published.verdict, Outcome.LOST)


def properties_of(**words: object) -> BasicProperties:
    """The properties of a message that does not outlive its caller: the broker keeps it in memory, as JSON."""
    properties: BasicProperties = BasicProperties(  # type: ignore[no-untyped-call]  # pika annotates it nowhere
        content_type="application/json", delivery_mode=1, **words
    )
    return properties


def settle(future: asyncio.Future[T], value: T) -> None:
    """Give `future` its value, unless it has one or nobody waits any more."""
    if not future.done():
        future.set_result(value)


class _Published(NamedTuple):
    exchange: str
    key: str
    message_id: str | None
    verdict: asyncio.Future[Outcome]

    def is_meant_by(self, refusal: Refusal) -> bool:
        """Whether a refusal that ended the channel was for this message; others on the channel went down with it.

        RabbitMQ quotes what it refuses: the topic (access to topic 'KEY' in exchange …), or the exchange.
        """
        if "access to topic" in refusal.text:
            return f"topic '{self.key}'" in refusal.text
        return f"exchange '{self.exchange}'" in refusal.text or refusal.code == 406


async def open_channel(connection: AsyncioConnection) -> Channel:
    """A new channel. Raises Lost when the connection is gone or goes."""
    opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    try:
        raw = connection.channel(on_open_callback=lambda _: settle(opened, None))
    except exceptions.AMQPError as error:
        raise Lost(str(error)) from error
    channel = Channel(raw)
    raw.add_on_close_callback(channel.on_closed)
    waiting: set[asyncio.Future[Any]] = {opened, channel.ended}
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    if channel.ended.done():
        raise channel.ended.result()
    return channel
