"""`onelun action`: one action in a process of its own, as the stubs run it when no frontend listens."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import uuid as uuids

import click

from onelun.cli.frontend import context_of, link_of
from onelun.cli.serving import keep_from_dumps, log_to_stderr
from onelun.config import Config, Frontend, load
from onelun.driver.action import failure_text, perform, stopped
from onelun.driver.frame import takes_stdin
from onelun.driver.running import Call, Context, Outcome
from onelun.errors import OnelunError, Rejected
from onelun.rpc.client import Client


@click.command("action", context_settings={"ignore_unknown_options": True})
@click.argument("name")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def action(name: str, arguments: tuple[str, ...]) -> None:
    """Run the action NAME, such as tm/clone, with OpenNebula's ARGUMENTS, in this process.

    With ONELUN_DIRECT=1 its log is on stderr, for a person; otherwise stderr is OpenNebula's and takes none.
    """
    if os.environ.get("ONELUN_DIRECT") == "1":
        log_to_stderr(debug=True)
    else:
        logging.getLogger().addHandler(logging.NullHandler())
    keep_from_dumps()
    call = Call(str(uuids.uuid4()), name, arguments, _stdin() if takes_stdin(name, arguments) else None)
    outcome = asyncio.run(_run(call))
    sys.stdout.buffer.write(outcome.stdout)
    sys.stdout.buffer.flush()
    sys.stderr.buffer.write(outcome.stderr)
    sys.stderr.buffer.flush()
    raise SystemExit(outcome.status)


async def _run(call: Call) -> Outcome:
    try:
        config = load().config
        if config.frontend is None:
            raise Rejected("the configuration has no section [frontend], which actions need")
        return await _perform(call, config, config.frontend)
    except OnelunError as error:
        return Outcome(b"", failure_text(call, None, error.sentence), 1)


async def _perform(call: Call, config: Config, mine: Frontend) -> Outcome:
    link = link_of(config, mine)
    context = context_of(config, mine, Client(link, config.limits))
    try:
        await link.open()
    except OnelunError as error:
        return Outcome(b"", failure_text(call, context, error.sentence), 1)
    try:
        return await _until_signalled(call, context)
    finally:
        await link.close()


async def _until_signalled(call: Call, context: Context) -> Outcome:
    acting = asyncio.ensure_future(perform(call, context))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, acting.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        return await acting
    return stopped(call, context)


def _stdin() -> bytes:
    """What is on stdin; nothing when it is closed or a person's terminal."""
    try:
        return b"" if os.isatty(0) else sys.stdin.buffer.read()
    except (OSError, AttributeError):
        return b""
