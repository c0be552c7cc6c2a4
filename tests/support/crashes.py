"""A step of the file backend, cut off between any two changes of the disk."""

from __future__ import annotations

import os

import pytest

from onelun.nas.backends.file import building as filebuilding

_CHANGES = ("mkdir", "rename", "ftruncate", "unlink", "rmdir", "fsync", "fdatasync")


class Ended(BaseException):
    """The process ended here."""


def ending_after(monkeypatch, count):
    """From the change number `count` on, nothing happens any more."""
    left = [count]

    def cut(act):
        def acting(*args, **kwargs):
            left[0] -= 1
            if left[0] < 0:
                raise Ended
            return act(*args, **kwargs)

        return acting

    for name in _CHANGES:
        monkeypatch.setattr(os, name, cut(getattr(os, name)))
    for module, name in ((filebuilding, "exchange"), (filebuilding, "rename_new")):
        monkeypatch.setattr(module, name, cut(getattr(module, name)))
    return left


def each_crash(path, monkeypatch, opened, prepare, act, *, reopened=None):
    """Run `act` on a fresh pool, cut off after 0, 1, 2 … changes; yield the pool each time, opened again.

    `reopened` opens it then, unless by `opened`.
    """
    for count in range(200):
        directory = path / f"crash-{count}"
        directory.mkdir()
        pool = opened(directory)
        given = prepare(pool)
        with monkeypatch.context() as patch:
            left = ending_after(patch, count)
            try:
                act(pool, given)
                ended = False
            except Ended:
                ended = True
        yield (reopened or opened)(directory), given
        if not ended:
            assert left[0] >= 0
            assert count >= 3, "too few changes were seen: the test does not cut where it should"
            return
    pytest.fail("the step never came to its end")
