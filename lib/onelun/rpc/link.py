"""The connection to the broker that is always there again: one at a time, with jittered pauses between attempts."""

from __future__ import annotations

import asyncio
import logging
import random

from onelun.deadline import Deadline
from onelun.errors import OnelunError, Unreachable
from onelun.rpc.address import parse_address
from onelun.rpc.session import Session, connect

log = logging.getLogger(__name__)

SHORTEST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0
# A broker with a memory or disk alarm reads nothing from us, so that its answers stay away too.
BLOCKED_S = 30.0


class Link:
    """The way to the broker of `url`. `name` is what the broker's lists of connections show.

    Raises Rejected for a URL that cannot be read, or that leaves this machine without TLS.
    """

    def __init__(self, url: str, *, name: str, exchange: str = "rocks.vm-manage", heartbeat_s: int = 20) -> None:
        self.address = parse_address(url)
        self.name = name
        self.exchange = exchange
        self.heartbeat_s = heartbeat_s
        self._session: Session | None = None
        self._trouble: OnelunError = Unreachable(f"not connected to the broker at {self.address} yet")
        self._changed = asyncio.Event()
        self._wanted = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    @property
    def user(self) -> str:
        """Our login at the broker, which the broker vouches for as `user_id`."""
        return self.address.user

    async def open(self) -> None:
        """Start to connect, and to connect again whenever the connection is lost. Returns at once."""
        # pika logs each failed attempt with a traceback and several lines; one line of ours says it.
        logging.getLogger("pika").setLevel(logging.CRITICAL)
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep(), name=f"link {self.name}")

    async def close(self) -> None:
        """Leave the broker. Closing a closed link succeeds."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            await asyncio.wait({keeper})
        if self._session is not None:
            await self._session.close()
            self._session = None
        self._trouble = Unreachable("the link to the broker is closed")

    async def session(self, deadline: Deadline) -> Session:
        """The open connection, waiting for one until `deadline`; somebody who waits shortens the pause.

        Raises Unreachable, saying what is wrong with the broker; at once when waiting cannot help (a wrong password).
        """
        while True:
            if self._session is not None and self._session.is_open:
                return self._session
            if deadline.over() or self._trouble.facts.get("final") or self._keeper is None:
                raise self._trouble.__class__(self._trouble.sentence)
            self._wanted.set()
            try:
                async with asyncio.timeout(deadline.left_s()):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def _keep(self) -> None:
        failures = 0
        while True:
            self._wanted.clear()
            try:
                session = await connect(self.address, name=self.name, heartbeat_s=self.heartbeat_s, blocked_s=BLOCKED_S)
            except OnelunError as error:
                failures += 1
                self._become(None, error)
                log.warning("link state=down broker=%s failures=%d reason=%s", self.address, failures, error)
            else:
                failures = 0
                self._become(session, None)
                log.info("link state=up broker=%s user=%s", self.address, self.user)
                self._become(None, await asyncio.shield(session.lost))
                log.warning("link state=lost broker=%s reason=%s", self.address, self._trouble)
            await self._pause(failures)

    async def _pause(self, failures: int) -> None:
        """Wait 1 to 30 s, longer with each failure, at random so that a fleet does not come back in step."""
        await asyncio.sleep(SHORTEST_PAUSE_S * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, no secret
        longest = min(LONGEST_PAUSE_S, SHORTEST_PAUSE_S * 2**failures)
        try:
            async with asyncio.timeout(random.uniform(0, longest)):  # noqa: S311 - as above
                await self._wanted.wait()
        except TimeoutError:
            return

    def _become(self, session: Session | None, trouble: OnelunError | None) -> None:
        self._session = session
        if trouble is not None:
            self._trouble = trouble
        self._changed.set()
        self._changed.clear()
