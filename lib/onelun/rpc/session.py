"""One AMQP connection, from open to lost. pika's errors end here as sentences for a person."""

from __future__ import annotations

import asyncio
import contextlib

from pika import BasicProperties, ConnectionParameters, PlainCredentials, SSLOptions, exceptions, spec
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.credentials import ExternalCredentials
from pika.frame import Method

from onelun.deadline import Deadline
from onelun.errors import Unreachable
from onelun.rpc.address import Address
from onelun.rpc.channel import Channel, Lost, Outcome, open_channel, settle
from onelun.rpc.tls import explained_alert, tls_context

OPEN_S = 10.0
CLOSE_S = 5.0


class Session:
    """An open connection; made by `connect`. `lost` ends with the reason when the connection does."""

    def __init__(self, connection: AsyncioConnection, address: Address, lost: asyncio.Future[Unreachable]) -> None:
        self._connection = connection
        self._lanes: dict[str, Channel] = {}
        self._turns: dict[str, asyncio.Lock] = {}
        self.address = address
        self.lost = lost
        self.blocked: str | None = None
        connection.add_on_connection_blocked_callback(self._on_blocked)
        connection.add_on_connection_unblocked_callback(self._on_unblocked)

    @property
    def is_open(self) -> bool:
        """Whether the connection is in use."""
        return not self.lost.done() and bool(self._connection.is_open)

    async def channel(self) -> Channel:
        """A new channel. Raises Lost."""
        if not self.is_open:
            raise Lost("the connection is closed")
        return await open_channel(self._connection)

    async def publish(
        self, exchange: str, key: str, body: bytes, properties: BasicProperties, deadline: Deadline
    ) -> Outcome:
        """Publish and return what is known of the message by `deadline`. Messages to one exchange keep their order.

        A refusal ends the channel with everything unconfirmed on it. So each exchange has a channel of its own, opened
        again when needed, and one message at a time is unconfirmed (0.4 ms on loopback): others do not become unknown
        with it. Raises Refusal when the broker does not let us publish this.
        """
        try:
            async with asyncio.timeout(deadline.left_s()) as limit, self._turns.setdefault(exchange, asyncio.Lock()):
                lane = self._lanes.get(exchange) or await self._open_lane(exchange)
                # From here on the message may be out; how long to wait for its confirm is decided there.
                limit.reschedule(None)
                return await lane.publish(exchange, key, body, properties, deadline)
        except (Lost, TimeoutError):
            return Outcome.UNSENT

    async def close(self) -> None:
        """End the connection in order. Ending an ended one succeeds."""
        if not self.lost.done():
            with contextlib.suppress(exceptions.AMQPError):
                self._connection.close()
            await asyncio.wait({self.lost}, timeout=CLOSE_S)

    async def _open_lane(self, exchange: str) -> Channel:
        lane = await self.channel()
        await lane.confirm_deliveries()
        self._lanes[exchange] = lane
        lane.ended.add_done_callback(lambda _: self._lanes.pop(exchange, None))
        return lane

    def _on_blocked(self, _: object, frame: Method[spec.Connection.Blocked]) -> None:
        self.blocked = str(frame.method.reason or "no reason given")

    def _on_unblocked(self, *_: object) -> None:
        self.blocked = None


async def connect(address: Address, *, name: str, heartbeat_s: int, blocked_s: float) -> Session:
    """Connect to the broker. `name` is what the broker's lists of connections call us.

    Raises Unreachable with a sentence that says what is wrong: nobody listens, the password, the vhost, TLS. Its fact
    `final` is true when trying again cannot help.
    """
    loop = asyncio.get_running_loop()
    opened: asyncio.Future[None] = loop.create_future()
    lost: asyncio.Future[Unreachable] = loop.create_future()

    def fail(_: object, error: BaseException) -> None:
        if not opened.done():
            opened.set_exception(_explained(address, error))

    def end(_: object, error: BaseException) -> None:
        settle(lost, _explained(address, error))

    connection = AsyncioConnection(
        _parameters(address, name, heartbeat_s, blocked_s),
        on_open_callback=lambda _: settle(opened, None),
        on_open_error_callback=fail,
        on_close_callback=end,
        custom_ioloop=loop,
    )
    try:
        async with asyncio.timeout(OPEN_S):
            await opened
    except BaseException as error:
        if not opened.done() or opened.cancelled():
            with contextlib.suppress(exceptions.AMQPError):
                connection.close()
        if isinstance(error, TimeoutError):
            raise Unreachable(f"the broker at {address} did not answer within {OPEN_S:g} s") from None
        raise
    return Session(connection, address, lost)


def _parameters(address: Address, name: str, heartbeat_s: int, blocked_s: float) -> ConnectionParameters:
    credentials = (
        ExternalCredentials()
        if address.password is None
        else PlainCredentials(address.user, address.password, erase_on_connect=True)
    )
    return ConnectionParameters(
        host=address.host,
        port=address.port,
        virtual_host=address.vhost,
        credentials=credentials,
        heartbeat=heartbeat_s,
        blocked_connection_timeout=blocked_s,
        socket_timeout=3,
        stack_timeout=5,
        connection_attempts=1,
        ssl_options=SSLOptions(tls_context(address), address.host) if address.tls else None,
        client_properties={"connection_name": name},
    )


def _explained(address: Address, error: BaseException) -> Unreachable:
    """What pika says, in our words."""
    if alert := explained_alert(address, error):
        return Unreachable(alert)
    match error:
        case exceptions.AuthenticationError() | exceptions.ProbableAuthenticationError():
            return Unreachable(_refused_login(address, error), final=True)
        case exceptions.ProbableAccessDeniedError():
            return Unreachable(
                f"the broker at {address} does not let user {address.user} into the vhost {address.vhost}", final=True
            )
        case exceptions.IncompatibleProtocolError() if address.certfile:
            # What the broker has against a certificate may be lost with the connection, which it closes at once.
            return Unreachable(
                f"the broker at {address} does not take our certificate {address.certfile}, or does not speak AMQP"
            )
        case exceptions.IncompatibleProtocolError():
            return Unreachable(f"what listens at {address} does not speak AMQP")
        case exceptions.ConnectionBlockedTimeout():
            return Unreachable(f"the broker at {address} takes no messages: it is short of memory or disk space")
        case exceptions.ConnectionClosedByBroker():
            return Unreachable(f"the broker at {address} closed the connection: {error.reply_text}")
        case exceptions.ConnectionClosedByClient():
            return Unreachable(f"the connection to the broker at {address} was closed")
        case exceptions.AMQPHeartbeatTimeout():
            return Unreachable(f"the broker at {address} has gone silent")
    causes = " ".join(_causes(error))
    return Unreachable(f"the broker at {address} cannot be reached: {causes or type(error).__name__}")


def _refused_login(address: Address, error: exceptions.AMQPConnectionError) -> str:
    """Why the broker does not know us: it offers no login of our kind, or knows better than we do."""
    offered = not isinstance(error, exceptions.AuthenticationError)
    match offered, address.password:
        case True, None:
            return (
                f"the broker at {address} refuses the login by {address.certfile}: it has no user {address.user},"
                " or another than common_name for ssl_cert_login_from in rabbitmq.conf"
            )
        case False, None:
            return (
                f"the broker at {address} takes no login by certificate: enable its plug-in rabbitmq_auth_mechanism_ssl,"
                " and EXTERNAL in auth_mechanisms of rabbitmq.conf"
            )
        case False, _:
            return f"the broker at {address} takes no password, and the AMQP URL of {address.user} has one: use a certificate"
    return f"the broker at {address} refuses the password of user {address.user}"


def _causes(error: BaseException) -> list[str]:
    """The innermost words of pika's nested errors, which hold each other in their arguments."""
    if isinstance(error, OSError) and error.strerror:
        return [error.strerror]
    inner = [
        part
        for attribute in ("exceptions", "exception", "args")
        for part in _listed(getattr(error, attribute, ()))
        if isinstance(part, BaseException)
    ]
    found = [words for part in inner for words in _causes(part)]
    return list(dict.fromkeys(found)) or ([str(error)] if not inner and str(error) else [])


def _listed(value: object) -> list[object]:
    return list(value) if isinstance(value, list | tuple) else [value]
