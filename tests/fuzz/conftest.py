"""What every border needs: an event loop, tools that say what they are told to say, and the table at the end."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.fuzzing import BORDERS, ENDED, WANTED, Loop, whole

from onelun import command
from onelun.errors import CommandFailed


class Tools:
    """Stands where `command.run` and its kin do: programs print what they are told to, say `stderr`, and end with `status`.

    What no kernel takes as an argument is an error here too.
    """

    def __init__(self) -> None:
        self.status, self.stderr = 0, ""
        self._prints: dict[str, str] = {}

    def say(self, prints: str | dict[str, str], stderr: str = "", status: int = 0) -> None:
        """From now on; in a dictionary by the first words of the command. Bytes become text as `command.run` makes it."""
        told = {"": prints} if isinstance(prints, str) else prints
        self._prints = {words: _decoded(text) for words, text in told.items()}
        self.stderr, self.status = _decoded(stderr), status

    async def run(self, *argv: str, check: bool = True, called: str | None = None, **how: Any) -> command.Result:
        """See command.run."""
        self._start(argv)
        stdout = next((text for words, text in self._prints.items() if " ".join(argv).startswith(words)), "")
        result = command.Result(self.status, stdout, self.stderr)
        if (on_output := how.get("on_output")) is not None:
            for at in range(0, len(stdout), 1000):
                on_output(stdout[at : at + 1000].encode())
        if check and self.status != 0:
            raise CommandFailed(result.failure(called or argv[0]), command=called or argv[0], status=self.status)
        return result

    async def pipe(self, *argv: str, **_: Any) -> command.Pipe:
        """See command.pipe: what feeds and reads a program itself has none here."""
        self._start(argv)
        raise CommandFailed(f"cannot run {argv[0]}: there are no programs", command=argv[0])

    async def spawn(self, *argv: str, **_: Any) -> int:
        """See command.spawn."""
        self._start(argv)
        raise CommandFailed(f"cannot run {argv[0]}: there are no programs", command=argv[0])

    def _start(self, argv: tuple[str, ...]) -> None:
        for word in argv:
            # What execve(2) takes.
            assert b"\0" not in os.fsencode(word), f"an argument with a NUL: {argv}"


def _decoded(text: str) -> str:
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


@pytest.fixture(scope="module")
def loop() -> Iterator[Loop]:
    """The event loop of all inputs of the module."""
    one = Loop()
    yield one
    one.close()


@pytest.fixture(scope="module")
def tools() -> Iterator[Tools]:
    """Every program that is run meanwhile."""
    patch = pytest.MonkeyPatch()
    one = Tools()
    for name in ("run", "pipe", "spawn"):
        patch.setattr(command, name, getattr(one, name))
    yield one
    patch.undo()


@pytest.fixture(scope="module")
def has_tools() -> Iterator[None]:
    """As on a machine where every program is installed."""
    patch = pytest.MonkeyPatch()
    patch.setattr(shutil, "which", lambda name, **_: f"/usr/sbin/{name}")
    yield
    patch.undo()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """What became of how many inputs at each border."""
    if not ENDED:
        return
    terminalreporter.section("inputs by border")
    for border in BORDERS:
        ended = ENDED[border]
        terminalreporter.write_line(
            f"{border:16} {ended.total():7,} inputs: {ended['refused']:7,} refused in one sentence, {ended['taken']:7,} taken"
        )


def pytest_sessionfinish(session: Any, exitstatus: int) -> None:
    """A whole run in which a border had too few inputs has shown nothing."""
    if whole() and exitstatus == 0 and any(ENDED[border].total() < WANTED for border in BORDERS):
        session.exitstatus = 1
