"""Rows of acts that belong together: not seen in the middle under the volume's name."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

_Result = TypeVar("_Result")


class Turns:
    """One at a time for each name: who gives it to another volume by two renames, and who reads it meanwhile."""

    def __init__(self) -> None:
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    @contextlib.asynccontextmanager
    async def of(self, name: str | None) -> AsyncIterator[None]:
        """Be the one for `name` (None: for none)."""
        if name is None:
            yield
            return
        async with self._locks.setdefault(name, asyncio.Lock()):
            yield

    async def within(self, name: str, step: Coroutine[Any, Any, _Result]) -> _Result:
        """Do the step as the one for `name`."""
        async with self.of(name):
            return await step
