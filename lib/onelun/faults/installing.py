"""Putting faults into a process: each door is replaced by one that asks for the plan before and after every step.

Nothing of this is in the way of a process without faults: its doors are what they were. A call's point is told by the line of
the source that it comes from, so what is not on the list shows as `…/unlisted`.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Callable, Container
from types import FrameType
from typing import Any

from onelun.errors import CommandFailed, OnelunError, Stalled, Unreachable
from onelun.faults.commands import commands_of
from onelun.faults.doors import JOURNAL, OS
from onelun.faults.messages import messages_of
from onelun.faults.plan import ACTIONS, Action, Plan, Plans, Side
from onelun.faults.points import points_in

# A step that is made through one of these is its caller's.
_THROUGH = ("pathlib", "contextlib", "onelun.nas.catalogue", "onelun.nas.backends.file.copying")
_sleep = time.sleep
# About as long as calls are given.
_CALL_S = 6.0
Make = Callable[[], Exception]


class Faults:
    """The faults of this process."""

    def __init__(self, plans: Plans) -> None:
        self._plans = plans

    def site(self, kind: str, frame: FrameType | None) -> str | None:
        """The point of the call that `frame` makes; None when it is no step of ours."""
        module = _module(frame)
        while frame is not None and module in _THROUGH:
            if found := self._at(kind, frame, module):
                return found
            frame = frame.f_back
            module = _module(frame)
        if frame is None or not module.startswith("onelun."):
            return None
        found = self._at(kind, frame, module)
        return found or f"{module.removeprefix('onelun.')}.{frame.f_code.co_qualname}/{kind}-unlisted"

    def _at(self, kind: str, frame: FrameType, module: str) -> str | None:
        if not module.startswith("onelun."):
            return None
        line = frame.f_lineno
        sites = points_in(module.removeprefix("onelun."))
        around = [site for site in sites if site.kind == kind and site.first <= line <= site.last]
        return min(around, key=lambda site: site.last - site.first).name if around else None

    def due(self, point: str, side: Side, only: Container[Action] = ACTIONS) -> Plan | None:
        """The plan that is for now; whoever is to die does so here."""
        plan = self._plans.due(point, side, only)
        if plan is not None and plan.action == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        return plan

    def meet(self, point: str, side: Side, fail: Make) -> None:
        """Do here what is planned for here, in a step that is no coroutine."""
        if plan := self.due(point, side):
            if plan.action == "fail":
                raise fail()
            _sleep(plan.seconds)

    async def meet_async(self, point: str, side: Side, fail: Make) -> None:
        """Do here what is planned for here."""
        if plan := self.due(point, side):
            if plan.action == "fail":
                raise fail()
            await asyncio.sleep(plan.seconds)


def install(plans: Plans) -> None:
    """Put faults into this process; once, before it begins to work."""
    faults = Faults(plans)
    for name in OS:
        _step(faults, os, name, "file", _io_error)
    _step(faults, importlib.import_module("shutil"), "rmtree", "file", _io_error)
    _step(faults, importlib.import_module("fcntl"), "ioctl", "ioctl", _io_error)
    copying = importlib.import_module("onelun.nas.backends.file.copying")
    for name in ("_renameat2", "allocate"):
        _step(faults, copying, name, "file", _io_error)
    _step(faults, asyncio, "open_connection", "connect", lambda: ConnectionRefusedError(111, "Connection refused"))
    catalogue = importlib.import_module("onelun.nas.catalogue").Catalogue
    for name in ("change", "set_meta"):
        _step(faults, catalogue, name, "catalogue", lambda: sqlite3.OperationalError("disk I/O error"))
    journal = importlib.import_module("onelun.rpc.journal").Journal
    for name in JOURNAL:
        _step(faults, journal, name, "journal", lambda: OnelunError("cannot write the journal: disk I/O error"))
    tgt = importlib.import_module("onelun.nas.exporters.tgt.ipc").ControlSocket
    _step(faults, tgt, "request", "tgt", lambda: CommandFailed("tgtd refuses: a fault", command="tgtd", status=1), _tgt)
    lio = importlib.import_module("onelun.nas.exporters.lio.process").Workers
    _step(faults, lio, "ask", "lio", lambda: CommandFailed("LIO refuses: a fault", command="lio"), _lio)
    calls = importlib.import_module("onelun.calls").Calls
    _step(faults, calls, "make", "call", lambda: CommandFailed("the kernel refuses: a fault", command="call"), _call)
    api = importlib.import_module("onelun.driver.api").Api
    _named(
        faults, api, "_post", lambda _, method, __: f"driver.api/{method}", lambda: OSError(111, "Connection refused")
    )
    server = importlib.import_module("onelun.frontend.server")
    _named(faults, server, "perform", lambda *_: "frontend.server/action", lambda: Unreachable("a fault"))
    commands_of(faults)
    messages_of(faults)
    now = time.time
    time.time = lambda: now() + plans.ahead_s()


def _module(frame: FrameType | None) -> str:
    return str(frame.f_globals.get("__name__", "")) if frame is not None else ""


def _io_error() -> OSError:
    return OSError(5, os.strerror(5))


async def _tgt(socket: Any, *_: object) -> None:  # noqa: ANN401 - the door's own object
    """What a hung tgtd looks like."""
    await asyncio.sleep(socket._timeout_s)  # noqa: SLF001
    raise Stalled(f"tgtd at {socket.path} took a request and did not answer in {socket._timeout_s:g} s")  # noqa: SLF001


async def _lio(_: object, __: object, timeout_s: float) -> None:
    """What a hung target service looks like."""
    await asyncio.sleep(timeout_s)
    raise Stalled(f"the kernel's target service did not answer within {timeout_s:g} s")


async def _call(*_: object) -> None:
    """What a call looks like that the kernel does not come back from."""
    await asyncio.sleep(_CALL_S)
    raise CommandFailed(f"a call did not end within {_CALL_S:g} s", command="call")


def _step(
    faults: Faults, owner: object, name: str, kind: str, fail: Make, hang: Callable[..., Any] | None = None
) -> None:
    """Put faults around the function or method `name`; its point is told by who calls."""
    _named(faults, owner, name, lambda *_: faults.site(kind, sys._getframe(2)), fail, hang)  # noqa: SLF001


def _named(
    faults: Faults,
    owner: object,
    name: str,
    point_of: Callable[..., str | None],
    fail: Make,
    hang: Callable[..., Any] | None = None,
) -> None:
    """Put faults around the function or method `name`; `point_of` its arguments is its point."""
    original = getattr(owner, name)

    def stepping(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - whatever the door takes
        point = point_of(*args)
        if point is None:
            return original(*args, **kwargs)
        if asyncio.iscoroutinefunction(original):
            return around(point, *args, **kwargs)
        faults.meet(point, "before", fail)
        result = original(*args, **kwargs)
        faults.meet(point, "after", fail)
        return result

    async def around(point: str, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as above
        await meet(point, "before", *args)
        result = await original(*args, **kwargs)
        await meet(point, "after", *args)
        return result

    async def meet(point: str, side: Side, *args: Any) -> None:  # noqa: ANN401 - as above
        plan = faults.due(point, side)
        if plan is None:
            return
        if plan.action == "fail":
            raise fail()
        if plan.action == "hang" and hang is not None:
            await hang(*args)
        await asyncio.sleep(plan.seconds)

    setattr(owner, name, stepping)
