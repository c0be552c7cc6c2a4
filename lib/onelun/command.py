"""The only door to other processes: argv lists, never a shell; a timeout, always."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable, Mapping
from typing import NamedTuple

from onelun.errors import CommandFailed

log = logging.getLogger(__name__)

# Where programs are looked for, whatever PATH an agent was started with.
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Tools speak English to us, whatever the operator's locale is; nothing else of the environment is passed on.
_ENVIRONMENT = {"LC_ALL": "C", "PATH": SEARCH_PATH}


class Result(NamedTuple):
    """How a command ended."""

    status: int
    stdout: str
    stderr: str

    def failure(self, called: str) -> str:
        """How it failed, in a sentence about the command `called`, with the last of what it said."""
        said = (" ".join(self.stderr.split()) or " ".join(self.stdout.split()))[-600:]
        if self.status < 0:
            return f"{called} was killed by signal {-self.status}" + (f": {said}" if said else "")
        return f"{called} failed with status {self.status}: {said or 'no message'}"


async def run(
    *argv: str,
    timeout_s: float,
    called: str | None = None,
    stdin: bytes | None = None,
    env: Mapping[str, str] | None = None,
    check: bool = True,
    pass_fds: tuple[int, ...] = (),
    on_output: Callable[[bytes], None] | None = None,
) -> Result:
    """Run `argv` and return how it ended.

    The command gets a process group of its own, which is killed when `timeout_s` is over or the caller is cancelled.
    Errors name it as `called`: the tool that matters, where `argv` begins with what only sets limits for it.
    `on_output` is given stdout piece by piece as it comes (then `Result.stdout` is empty). Secrets go in by `stdin`, a
    file or `env`, never by `argv`, which is logged.

    Raises CommandFailed for a status other than 0 (unless `check` is false), a timeout, and a missing program.
    """
    called = called or argv[0]
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**_ENVIRONMENT, **(env or {})},
            start_new_session=True,
            pass_fds=pass_fds,
        )
    except OSError as error:
        raise CommandFailed(f"cannot run {argv[0]}: {error.strerror}", command=argv[0]) from error
    try:
        async with asyncio.timeout(timeout_s):
            stdout, stderr = await _communicate(process, stdin, on_output)
    except TimeoutError:
        raise CommandFailed(f"{called} did not end within {timeout_s:g} s", command=called) from None
    finally:
        if process.returncode is None:
            await _end(process)
    status = process.returncode or 0
    result = Result(status, stdout.decode(errors="replace"), stderr.decode(errors="replace"))
    log.debug("command argv=%s status=%s", " ".join(argv), status)
    if check and status != 0:
        raise CommandFailed(result.failure(called), command=called, status=status)
    return result


async def _communicate(
    process: asyncio.subprocess.Process, stdin: bytes | None, on_output: Callable[[bytes], None] | None
) -> tuple[bytes, bytes]:
    if on_output is None:
        return await process.communicate(stdin)
    assert process.stdout is not None
    assert process.stderr is not None
    errors = asyncio.create_task(process.stderr.read())
    feeding = asyncio.create_task(_feed(process, stdin))
    while piece := await process.stdout.read(65536):
        on_output(piece)
    stderr = await errors
    await feeding
    await process.wait()
    return b"", stderr


async def _feed(process: asyncio.subprocess.Process, stdin: bytes | None) -> None:
    if stdin is None or process.stdin is None:
        return
    # A command that ends before it has read all says itself why.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        process.stdin.write(stdin)
        await process.stdin.drain()
    process.stdin.close()


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill the group. A process stuck in the kernel is left to it after a second: waiting would hang us too."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.shield(process.wait()), 1.0)


class Pipe(NamedTuple):
    """A running command that the caller feeds and reads itself."""

    process: asyncio.subprocess.Process

    async def end(self) -> None:
        """Kill it if it still runs. Ending an ended one succeeds."""
        if self.process.returncode is None:
            await _end(self.process)


async def pipe(
    *argv: str, env: Mapping[str, str] | None = None, stdin: int | None = None, stdout: int | None = None
) -> Pipe:
    """Start `argv` with pipes (or the given descriptors) and return at once; the caller must `end()` it.

    Raises CommandFailed when the program is missing.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE if stdin is None else stdin,
            stdout=asyncio.subprocess.PIPE if stdout is None else stdout,
            stderr=asyncio.subprocess.PIPE,
            env={**_ENVIRONMENT, **(env or {})},
            start_new_session=True,
        )
    except OSError as error:
        raise CommandFailed(f"cannot run {argv[0]}: {error.strerror}", command=argv[0]) from error
    return Pipe(process)


async def spawn(*argv: str, log_path: str, env: Mapping[str, str] | None = None) -> int:
    """Start a process that outlives us (a data-path process) in a session of its own; return its pid.

    Its output is appended to `log_path`. Raises CommandFailed when the program is missing.
    """
    descriptor = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            env={**_ENVIRONMENT, **(env or {})},
            start_new_session=True,
        )
    except OSError as error:
        raise CommandFailed(f"cannot run {argv[0]}: {error.strerror}", command=argv[0]) from error
    finally:
        os.close(descriptor)
    return process.pid
