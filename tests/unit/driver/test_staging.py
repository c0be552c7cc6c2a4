"""Work on a staged file in a thread, when whoever wanted it is gone."""

import asyncio
import os
import threading

import pytest

from onelun.driver.staging import in_thread


async def test_a_disk_that_answers_late_is_not_given_another_file_of_the_number(tmp_path):
    asked, answers, seen = threading.Event(), threading.Event(), []

    def late(file):
        asked.set()
        answers.wait(30)
        seen.append(os.fstat(file).st_ino)

    meant = os.open(tmp_path / "meant", os.O_CREAT | os.O_RDWR)
    inode = os.fstat(meant).st_ino
    work = asyncio.create_task(in_thread(late, meant))
    await asyncio.to_thread(asked.wait, 30)
    for _ in range(2):
        work.cancel()
        await asyncio.sleep(0.01)
    with pytest.raises(asyncio.CancelledError):
        await work
    os.close(meant)
    other = os.open(tmp_path / "other", os.O_CREAT | os.O_RDWR)
    assert other == meant

    answers.set()
    async with asyncio.timeout(30):
        while not seen:
            await asyncio.sleep(0.01)

    assert seen == [inode]
    os.close(other)
