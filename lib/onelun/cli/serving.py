"""What every resident command does alike: configuration, log on stderr, a clean end on SIGTERM and SIGINT."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Coroutine
from typing import Any, TypeVar

import click

from onelun.config import Config, load
from onelun.errors import OnelunError, Rejected

_Section = TypeVar("_Section")
_PR_SET_DUMPABLE = 4  # linux/include/uapi/linux/prctl.h


def loaded() -> Config:
    """The configuration in force. Raises ClickException, in one sentence, when it is wrong."""
    try:
        return load().config
    except OnelunError as error:
        raise click.ClickException(error.sentence) from error


def section(part: _Section | None, name: str) -> _Section:
    """A section of the configuration that this command cannot do without."""
    if part is None:
        raise click.ClickException(f"the configuration has no section [{name}], which this command needs")
    return part


def allow_faults(config: Config, role: str) -> None:
    """Let the faults in that a test plans in the directory ONELUN_FAULTS, in a test's configuration only. Else: nothing.

    Raises ClickException when the configuration is not a test's.
    """
    directory = os.environ.get("ONELUN_FAULTS")
    if not directory:
        return
    if not config.faults:
        raise click.ClickException(
            "ONELUN_FAULTS is set, and only a test may have faults: unset it, or write `faults = true` in a test's configuration"
        )
    from onelun.faults.installing import install
    from onelun.faults.plan import Plans

    logging.getLogger(__name__).warning("faults role=%s directory=%s", role, directory)
    install(Plans(directory, role))


def log_to_stderr(*, debug: bool) -> None:
    """One line a decision on stderr, where systemd puts it into the journal."""
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.DEBUG if debug else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
    )
    # pika tells every step of every connection; what matters of it is raised as an error by onelun.rpc.
    logging.getLogger("pika").setLevel(logging.CRITICAL)


def run_until_signalled(work: Coroutine[Any, Any, None]) -> None:
    """Run `work` until it ends or SIGTERM or SIGINT comes, which cancels it. Raises ClickException for an OnelunError.

    From then on nothing is left in a core dump (`keep_from_dumps`).
    """
    keep_from_dumps()
    try:
        asyncio.run(_cancelled_by_signals(work))
    except OnelunError as error:
        raise click.ClickException(error.sentence) from error


def keep_from_dumps() -> None:
    """Have neither this process nor what it starts leave its memory in a core dump: CHAP secrets are in it."""
    # The limit is for what is started, too; the kernel heeds it for files alone, and the flag also where a program takes dumps
    # (core(5)). The flag goes with exec(2).
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


async def _cancelled_by_signals(work: Coroutine[Any, Any, None]) -> None:
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()
    stopping = False

    def stop() -> None:
        nonlocal stopping
        stopping = True
        task.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    with contextlib.suppress(asyncio.CancelledError):
        await task
    if not stopping and task.cancelled():
        raise Rejected("the work was cancelled from within")


@contextlib.asynccontextmanager
async def notifying(ready: Awaitable[Any]) -> AsyncIterator[None]:
    """Tell systemd that the service is ready when `ready` has come, while the body serves."""

    async def tell() -> None:
        await ready
        logging.getLogger(__name__).info("ready")
        _notify("READY=1")

    telling = asyncio.create_task(tell())
    try:
        yield
    finally:
        telling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await telling


def _notify(state: str) -> None:
    """One datagram to the socket that systemd names (sd_notify(3)); without it nobody waits."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as unix:
        unix.sendto(state.encode(), address.replace("@", "\0", 1) if address.startswith("@") else address)
