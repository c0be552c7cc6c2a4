from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from onelun.errors import OnelunError
from onelun.rpc.journal import Journal, Row, RowState


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    made = Journal(str(tmp_path / "journal"))
    yield made
    await made.close()


async def accept(journal: Journal, request_id: str = "a", *, request: bytes = b"{}") -> Row | None:
    return await journal.accept(request_id, action="map_zvol", caller="frontend", digest=b"d", request=request)


async def test_a_new_request_is_accepted_and_a_known_one_gives_its_row(journal: Journal):
    assert await accept(journal) is None

    row = await accept(journal)

    assert row == Row("a", RowState.OPEN, "map_zvol", "frontend", b"d", b"{}", b"")


async def test_a_finished_request_keeps_its_first_reply_and_forgets_its_content(journal: Journal):
    await accept(journal, request=b'{"secret": "s"}')
    await journal.finish("a", b"first")
    await journal.finish("a", b"second")

    row = await accept(journal)

    assert row is not None
    assert (row.state, row.reply, row.request) == (RowState.DONE, b"first", b"")


async def test_a_withdrawn_request_is_never_accepted(journal: Journal):
    assert await journal.withdraw("a") is None

    row = await accept(journal)

    assert row is not None
    assert row.state is RowState.WITHDRAWN
    assert await journal.withdraw("a") == row


async def test_withdrawing_an_open_request_leaves_it_open(journal: Journal):
    await accept(journal)

    row = await journal.withdraw("a")

    assert row is not None
    assert row.state is RowState.OPEN


async def test_open_requests_are_there_after_the_agent_was_killed(tmp_path: Path):
    path = str(tmp_path / "journal")
    first = Journal(path)
    await accept(first, "a", request=b'{"zvol": "one-1"}')
    await accept(first, "b")
    await first.finish("b", b"done")

    # The first is neither closed nor flushed, as after a kill.
    second = Journal(path)
    rows = await second.open_rows()

    assert [(row.id, row.request) for row in rows] == [("a", b'{"zvol": "one-1"}')]
    await second.close()
    await first.close()


async def test_purging_forgets_what_is_old_but_nothing_open(journal: Journal):
    await accept(journal, "open")
    await accept(journal, "done")
    await journal.finish("done", b"{}")
    await journal.withdraw("withdrawn")

    kept = await journal.purge(older_than_s=60)
    gone = await journal.purge(older_than_s=-1)

    assert (kept, gone) == (0, 2)
    assert [row.id for row in await journal.open_rows()] == ["open"]


async def test_a_thousand_requests_at_once_share_commits(journal: Journal):
    async with asyncio.timeout(60):
        rows = await asyncio.gather(*(accept(journal, str(number)) for number in range(1000)))
        await asyncio.gather(*(journal.finish(str(number), b"{}") for number in range(1000)))

    assert rows == 1000 * [None]
    assert await journal.open_rows() == []


async def test_the_same_id_many_times_at_once_is_accepted_once(journal: Journal):
    rows = await asyncio.gather(*(accept(journal) for _ in range(50)))

    assert rows.count(None) == 1


def test_only_the_owner_reads_a_journal_and_each_commit_is_flushed(tmp_path: Path):
    journal = Journal(str(tmp_path / "journal"))

    modes = {entry.name: oct(entry.stat().st_mode & 0o777) for entry in os.scandir(tmp_path)}

    assert set(modes.values()) == {"0o600"}
    # 2 is FULL (sqlite.org/pragma.html#pragma_synchronous).
    assert journal._db.execute("PRAGMA synchronous").fetchone() == (2,)
    assert journal._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    journal._db.close()


async def test_a_journal_that_cannot_be_written_says_so_and_accepts_nothing(tmp_path: Path):
    path = str(tmp_path / "journal")
    journal = Journal(path)
    journal._db.execute("PRAGMA max_page_count=1")

    with pytest.raises(OnelunError, match=f"cannot write the journal {path}: database or disk is full"):
        await asyncio.gather(*(accept(journal, str(number), request=b"x" * 10_000) for number in range(50)))

    await journal.close()
    assert sqlite3.connect(path).execute("SELECT count(*) FROM requests").fetchone()[0] == 0
