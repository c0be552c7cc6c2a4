"""The resident frontend: a unix socket on which stubs hand in their actions, which run in this process.

It has no state of its own: what an action did is known to the NAS, by the ids of its requests. When this process goes
away, stubs hand the same actions in again to the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import logging
import os
import socket
import stat
import struct
from collections.abc import Iterator

from onelun.driver.action import perform, stopped
from onelun.driver.running import Call, Context, Outcome
from onelun.errors import Conflict, OnelunError, Rejected
from onelun.frontend.framing import outcome_frames, read_call, read_frame

log = logging.getLogger(__name__)

# oned starts hundreds of actions in the same moment; each waits in this queue until it is accepted.
_BACKLOG = 1024
# Together less than 10 s. Withdrawing a request from an agent may take 5 s.
_FINISH_S = 4.0
_CANCEL_S = 5.5
_CALL_S = 20.0
# Withdrawing a request, and removing what it had made.
_UNDO_S = 16.0


class Frontend:
    """Serves one socket until it is cancelled."""

    def __init__(self, context: Context, *, finish_s: float = _FINISH_S) -> None:
        """`context` holds the configuration (whose `socket` is served) and the asker that all actions share.

        `finish_s` is how long running actions may go on when the frontend ends.
        """
        self._context = context
        self._finish_s = finish_s
        self._path = context.config.socket
        self._actions: set[asyncio.Task[None]] = set()
        self._running: dict[str, asyncio.Task[Outcome]] = {}
        # By what was called: two actions of one call may not meet while one of them is undone.
        self._undone: dict[tuple[str, tuple[str, ...]], asyncio.Task[Outcome]] = {}
        self.ready = asyncio.Event()

    async def serve(self) -> None:
        """Answer stubs until cancelled; then let running actions end, or cancel them, within 10 s.

        Raises Conflict when another frontend serves the socket, Rejected when it cannot be made.
        """
        with _locked(self._path), contextlib.closing(_listening(self._path)) as listening:
            server = await asyncio.start_unix_server(self._accept, sock=listening, backlog=_BACKLOG)
            try:
                log.info("frontend socket=%s", self._path)
                self.ready.set()
                await asyncio.Event().wait()
            finally:
                server.close()
                await asyncio.shield(asyncio.ensure_future(self._end()))
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._path)

    async def _end(self) -> None:
        if self._actions:
            log.info("frontend stopping running=%d", len(self._actions))
            await asyncio.wait(self._actions, timeout=self._finish_s)
        for task in self._actions:
            task.cancel()
        if self._actions:
            await asyncio.wait(self._actions, timeout=_CANCEL_S)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._actions.add(task)
        try:
            await self._answer(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            log.info("stub gone")
        except (OnelunError, TimeoutError) as error:
            log.warning("stub refused reason=%s", error)
        except asyncio.CancelledError:
            # The frontend is going: an unanswered stub hands its action in again to the next one.
            log.info("stub left unanswered")
        except Exception:
            log.exception("stub failed")
        finally:
            self._actions.discard(task)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _check_peer(writer)
        async with asyncio.timeout(_CALL_S):
            call = await read_call(reader)
        log.info("%s id=%s attempt=%d argv=%s", call.name, call.id, call.attempt, _shown(call))
        if (before := self._running.get(call.id)) is not None:
            # Its stub lost the connection and is here again: what it had begun is being undone.
            await asyncio.wait((before,), timeout=_CANCEL_S)
        if (before := self._undone.get((call.name, call.argv))) is not None:
            # Another stub was killed in the same call: its undoing would end, or remove, what this one makes.
            await asyncio.wait((before,), timeout=_UNDO_S)
        acting = asyncio.ensure_future(perform(call, self._context))
        self._running[call.id] = acting
        giving_up = asyncio.ensure_future(_given_up(reader))
        try:
            await asyncio.wait((acting, giving_up), return_when=asyncio.FIRST_COMPLETED)
            if not acting.done():
                log.info("%s id=%s cancelled by its stub", call.name, call.id)
        finally:
            giving_up.cancel()
            if not acting.done():
                self._undone[call.name, call.argv] = acting
                acting.cancel()
                await asyncio.wait((acting,))
                self._undone.pop((call.name, call.argv), None)
            self._running.pop(call.id, None)
        outcome = stopped(call, self._context) if acting.cancelled() else acting.result()
        writer.write(outcome_frames(outcome))
        await writer.drain()


async def _given_up(reader: asyncio.StreamReader) -> None:
    """Return when the stub cancels the action, or goes away."""
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, OnelunError):
        while (await read_frame(reader))[0] != b"X":
            pass


def _check_peer(writer: asyncio.StreamWriter) -> None:
    peer = writer.get_extra_info("socket")
    _, user, _ = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    if user not in (0, os.getuid()):
        raise Rejected(f"user {user} may not hand in actions: this frontend serves user {os.getuid()}")


def _shown(call: Call) -> str:
    """The arguments for the log. A document among them holds a datastore's secrets."""
    return " ".join(text if len(text) < 1000 else f"<{len(text)} characters>" for text in call.argv)


@contextlib.contextmanager
def _locked(path: str) -> Iterator[None]:
    """Hold the lock beside the socket for life, so that two frontends never take each other's socket away."""
    directory = os.path.dirname(path) or "."
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        found = os.stat(directory)
        if found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
            raise Rejected(f"the socket's directory {directory} must be ours alone (mode 0700)")
        lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Rejected(f"cannot make the socket {path}: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise Conflict(f"another frontend serves {path}") from error
    try:
        yield
    finally:
        os.close(lock)


def _listening(path: str) -> socket.socket:
    """The listening socket. A stale one is replaced; one on which somebody listens is not."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with contextlib.suppress(FileNotFoundError):
            _remove_stale(path)
        mask = os.umask(0o177)
        try:
            listening.bind(path)
        finally:
            os.umask(mask)
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        raise Rejected(f"cannot make the socket {path}: {error.strerror or error}") from error
    except BaseException:
        listening.close()
        raise
    return listening


def _remove_stale(path: str) -> None:
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        raise Rejected(f"{path} is in the way of the socket, and is no socket")
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
        if probe.connect_ex(path) not in (errno.ECONNREFUSED, errno.ENOENT):
            raise Conflict(f"somebody listens on {path} already")
    os.unlink(path)
