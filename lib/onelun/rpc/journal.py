"""What an agent was asked to do and what it answered, on disk: an id never does its work twice.

A row is `open` from the moment the agent takes the request until its final reply is written, and `withdrawn` when somebody
asked for an id that never came: such a request can never start later.
"""

from __future__ import annotations

import asyncio
import enum
import os
import sqlite3
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from onelun.errors import OnelunError
from onelun.rpc.channel import settle

T = TypeVar("T")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS requests (
    id TEXT PRIMARY KEY,
    state TEXT NOT NULL CHECK (state IN ('open', 'done', 'withdrawn')),
    action TEXT NOT NULL DEFAULT '',
    caller TEXT,
    digest BLOB NOT NULL DEFAULT x'',
    request BLOB NOT NULL DEFAULT x'',
    reply BLOB NOT NULL DEFAULT x'',
    at REAL NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS requests_by_time ON requests (at) WHERE state != 'open';
"""
_CACHE_KIB = 512
_COLUMNS = "id, state, action, caller, digest, request, reply"


class RowState(enum.StrEnum):
    """How far a request is."""

    OPEN = "open"
    DONE = "done"
    WITHDRAWN = "withdrawn"


class Row(NamedTuple):
    """One request. `digest` tells it from another one under the same id; `request` is kept only while it is open."""

    id: str
    state: RowState
    action: str
    caller: str | None
    digest: bytes
    request: bytes
    reply: bytes


class Journal:
    """The journal in the file `path`, made if absent, readable by its owner alone: it may hold secrets.

    What is written is on the disk when the call returns (SQLite's synchronous=FULL); calls that come while one is being
    written share the next commit. Every call raises OnelunError when the file cannot be written.
    """

    def __init__(self, path: str) -> None:
        """Open the journal. Raises OnelunError when it cannot be, or the file is none."""
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            # One thread at a time uses it: the constructor's, then the one that commits.
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            # Ids are random, so that more of the file in memory would hit no more often.
            self._db.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
            self._db.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise OnelunError(f"cannot use the journal {path}: {error}; move it away if it is damaged") from error
        self._path = path
        self._steps: list[_Step] = []
        self._committer: asyncio.Task[None] | None = None

    async def accept(
        self, request_id: str, *, action: str, caller: str | None, digest: bytes, request: bytes
    ) -> Row | None:
        """Write the request down as open. When `request_id` is known already, write nothing and return its row."""

        def step() -> Row | None:
            if row := self._row(request_id):
                return row
            self._db.execute(
                "INSERT INTO requests (id, state, action, caller, digest, request, at) VALUES (?, 'open', ?, ?, ?, ?, ?)",
                (request_id, action, caller, digest, request, time.time()),
            )
            return None

        return await self._write(step)

    async def find(self, request_id: str) -> Row | None:
        """The row of `request_id`; None when it is unknown."""
        return await self._write(lambda: self._row(request_id))

    async def finish(self, request_id: str, reply: bytes) -> None:
        """Write down the final reply, and forget the request's content. A finished one keeps its first reply."""

        def step() -> None:
            self._db.execute(
                "UPDATE requests SET state = 'done', reply = ?, request = x'', at = ? WHERE id = ? AND state = 'open'",
                (reply, time.time(), request_id),
            )

        await self._write(step)

    async def withdraw(self, request_id: str) -> Row | None:
        """See to it that an unknown `request_id` never starts; None then. The row of a known one (withdrawn ones too)."""

        def step() -> Row | None:
            if row := self._row(request_id):
                return row
            self._db.execute(
                "INSERT INTO requests (id, state, at) VALUES (?, 'withdrawn', ?)", (request_id, time.time())
            )
            return None

        return await self._write(step)

    async def open_rows(self) -> list[Row]:
        """The requests whose work had not ended when the agent did, oldest first. Ask before serving."""

        def step() -> list[Row]:
            found = self._db.execute(f"SELECT {_COLUMNS} FROM requests WHERE state = 'open' ORDER BY at")  # noqa: S608
            return [_row(values) for values in found]

        return await self._write(step)

    async def purge(self, older_than_s: float) -> int:
        """Forget results and withdrawals of more than `older_than_s` ago; how many."""

        def step() -> int:
            limit = time.time() - older_than_s
            return self._db.execute("DELETE FROM requests WHERE state != 'open' AND at < ?", (limit,)).rowcount

        return await self._write(step)

    async def close(self) -> None:
        """Write what is under way and close the file."""
        if self._committer is not None:
            await asyncio.wait({self._committer})
        self._db.close()

    def _row(self, request_id: str) -> Row | None:
        values = self._db.execute(f"SELECT {_COLUMNS} FROM requests WHERE id = ?", (request_id,)).fetchone()  # noqa: S608
        return _row(values) if values else None

    async def _write(self, step: Callable[[], T]) -> T:
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._steps.append(_Step(step, done))
        if self._committer is None or self._committer.done():
            self._committer = asyncio.create_task(self._commit_all(), name="journal")
        return await done

    async def _commit_all(self) -> None:
        while self._steps:
            steps, self._steps = self._steps, []
            try:
                values = await asyncio.to_thread(self._commit, [step.work for step in steps])
            except sqlite3.Error as error:
                for step in steps:
                    if not step.done.done():
                        step.done.set_exception(OnelunError(f"cannot write the journal {self._path}: {error}"))
            else:
                for step, value in zip(steps, values, strict=True):
                    settle(step.done, value)

    def _commit(self, works: list[Callable[[], object]]) -> list[object]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            values = [work() for work in works]
            self._db.execute("COMMIT")
        except BaseException:
            self._db.rollback()
            raise
        return values


class _Step(NamedTuple):
    work: Callable[[], Any]
    done: asyncio.Future[Any]


def _row(values: tuple[str, str, str, str | None, bytes, bytes, bytes]) -> Row:
    id_, state, action, caller, digest, request, reply = values
    return Row(id_, RowState(state), action, caller, digest, request, reply)
