"""How a border is attacked: so many inputs a test, each given some seconds of the processor, and a table of what came of them.

What an input may end in is a value or one of the project's own errors, which is one sentence. Anything else is a finding.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import signal
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from onelun.errors import OnelunError

BORDERS = ("arguments", "messages", "configuration", "tools", "names and files")
"""Where something comes in that others wrote."""
WANTED = 10_000
"""How many inputs each border gets in a whole run."""
FEW = 40
"""How many each test gets among the tests that every change must pass."""
# Of the processor, so that a busy machine finds nothing; what needs a hundredth of it is slow already.
_CPU_S = 10.0

# Border → what became of its inputs; test → how many it had.
ENDED: defaultdict[str, Counter[str]] = defaultdict(Counter)


class Hang(BaseException):
    """One input kept the processor busy for seconds. No `except Exception` of the project's may swallow it."""


def inputs() -> int:
    """How many inputs each test gets."""
    return int(os.environ.get("ONELUN_FUZZ") or FEW)


def whole() -> bool:
    """Whether this is a whole run."""
    return bool(os.environ.get("ONELUN_FUZZ"))


def attacks(border: str, *strategies: st.SearchStrategy[Any], share: float = 1.0) -> Callable[..., Any]:
    """A test of that border, called with what the strategies draw, `share` times as often as others.

    Raising an OnelunError is a refusal, which is as good as taking the input; returning False says that there was one.
    """
    assert border in BORDERS

    def decorate(test: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(test)
        def attack(*args: Any, **named: Any) -> None:
            with _within_reason():
                try:
                    taken = test(*args, **named)
                except OnelunError as error:
                    check_sentence(error)
                    ENDED[border]["refused"] += 1
                else:
                    ENDED[border]["refused" if taken is False else "taken"] += 1

        drawn = given(*strategies)(attack)
        return settings(
            max_examples=max(1, round(inputs() * share)),
            # Small runs are the same every time: a change is not refused for what another run would have found.
            derandomize=not whole(),
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=(Phase.generate, Phase.shrink),
        )(drawn)

    return decorate


def check_sentence(error: OnelunError) -> None:
    """Whether the error can be told: a sentence that can be encoded, of which a person can read the whole."""
    assert type(error) is not OnelunError or error.sentence, "an error without a sentence"
    assert error.sentence.strip(), f"{type(error).__name__} without a sentence"
    assert "Traceback" not in error.sentence


class Loop:
    """An event loop for all inputs of a module: one for each would cost more than the inputs."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self.lost: list[dict[str, Any]] = []
        self._runner.get_loop().set_exception_handler(lambda _, context: self.lost.append(context))

    def run(self, work: Any, within_s: float = 30.0) -> Any:
        """The result. Nothing that it started may have failed unseen, and it must end in time."""

        async def limited() -> Any:
            async with asyncio.timeout(within_s):
                return await work

        result = self._runner.run(limited())
        lost, self.lost[:] = list(self.lost), []
        assert not lost, lost
        return result

    def close(self) -> None:
        """End it."""
        self._runner.close()


def refusable(loop: Loop, work: Any) -> Any:
    """The result of one of several questions about one input; None where it is refused."""
    try:
        return loop.run(work)
    except OnelunError as error:
        check_sentence(error)
        return None


@contextlib.contextmanager
def _within_reason() -> Iterator[None]:
    def hang(*_: object) -> None:
        raise Hang(f"more than {_CPU_S:g} s of the processor for one input")

    before = signal.signal(signal.SIGVTALRM, hang)
    signal.setitimer(signal.ITIMER_VIRTUAL, _CPU_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
