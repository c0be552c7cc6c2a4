"""A step of the backend `zfs`, cut off between any two acts of ZFS."""

from __future__ import annotations

import pytest
from tests.support.pools import AGENT, CLOUD

from onelun.nas.backends.zfs.command import Zfs

_READING = ("get", "list")
_MOST = 60


class Ended(BaseException):
    """The process ended here."""


def ending_after(monkeypatch, count):
    """From the act number `count` on, nothing happens any more."""
    left = [count]
    run = Zfs.run

    async def cut(self, *argv):
        if argv[0] not in _READING:
            left[0] -= 1
            if left[0] < 0:
                raise Ended
        return await run(self, *argv)

    monkeypatch.setattr(Zfs, "run", cut)
    return left


async def each_crash(pool, monkeypatch, prepare, act, *, acts):
    """Run `act`, cut off after 0, 1, 2 … acts, on a pool that `prepare` filled; yield what an agent meets then.

    The caller leaves the pool empty each time. `acts` is the least number of acts that the step has: fewer, and the test
    does not cut where it should.
    """
    for count in range(_MOST):
        given = await prepare()
        with monkeypatch.context() as patch:
            left = ending_after(patch, count)
            try:
                await act(pool.backend, given)
                ended = False
            except Ended:
                ended = True
        again = pool.again()
        await again.open(AGENT, CLOUD)
        yield again, given
        if not ended:
            assert left[0] >= 0
            assert count >= acts
            return
    pytest.fail("the step never came to its end")
