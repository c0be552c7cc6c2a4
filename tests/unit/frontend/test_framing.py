"""The frames between stub and frontend."""

from __future__ import annotations

import asyncio
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onelun.driver.running import Call, Outcome
from onelun.errors import OnelunError
from onelun.frontend.framing import frame, outcome_frames, read_call, read_frame

ID = str(uuid.UUID(int=7))
WORDS = st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0"))


async def reading(data: bytes) -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    return reader


def called(name: str, argv: tuple[str, ...], stdin: bytes | None, attempt: int) -> bytes:
    fields = [b"1", ID.encode(), b"%d" % attempt, name.encode(), *(text.encode() for text in argv)]
    sent = frame(b"C", b"\0".join(fields))
    return sent + (frame(b"I", stdin) if stdin is not None else b"") + frame(b"G", b"")


@given(st.lists(WORDS), st.none() | st.binary(), st.integers(0, 99))
def test_a_call_arrives_as_it_was_made(argv: list[str], stdin: bytes | None, attempt: int) -> None:
    async def read() -> Call:
        return await read_call(await reading(called("tm/ln", tuple(argv), stdin, attempt)))

    assert asyncio.run(read()) == Call(ID, "tm/ln", tuple(argv), stdin, attempt)


@given(st.binary())
def test_anything_else_is_an_error(data: bytes) -> None:
    async def read() -> Call:
        return await read_call(await reading(data))

    with pytest.raises((OnelunError, asyncio.IncompleteReadError)):
        asyncio.run(read())


@pytest.mark.parametrize(
    "data",
    [
        frame(b"G", b""),
        frame(b"I", b"x"),
        frame(b"C", b"2\0" + ID.encode() + b"\0000\0tm/ln") + frame(b"G", b""),
        frame(b"C", b"1\0not-a-uuid\0000\0tm/ln") + frame(b"G", b""),
        frame(b"C", b"1\0" + ID.encode()) + frame(b"G", b""),
        frame(b"C", b"1\0" + ID.encode() + b"\0x\0tm/ln") + frame(b"G", b""),
        b"C\xff\xff\xff\xff",
    ],
)
async def test_a_call_that_cannot_be_is_refused(data: bytes) -> None:
    with pytest.raises(OnelunError):
        await read_call(await reading(data))


@given(st.binary(), st.binary(), st.integers(0, 255))
def test_an_outcome_is_three_frames(stdout: bytes, stderr: bytes, status: int) -> None:
    async def read() -> list[tuple[bytes, bytes]]:
        reader = await reading(outcome_frames(Outcome(stdout, stderr, status)))
        return [await read_frame(reader) for _ in range(3)]

    assert asyncio.run(read()) == [(b"O", stdout), (b"E", stderr), (b"S", str(status).encode())]


@pytest.mark.parametrize("attempt", ["9" * 5000, "", "-1", "1 ", "x"])
async def test_a_call_whose_attempt_is_no_small_number_is_refused(attempt: str) -> None:
    sent = frame(b"C", b"\0".join((b"1", ID.encode(), attempt.encode(), b"tm/ln"))) + frame(b"G", b"")

    with pytest.raises(OnelunError, match="no id, attempt and action"):
        await read_call(await reading(sent))
