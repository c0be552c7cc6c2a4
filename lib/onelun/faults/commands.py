"""Faults of commands: another command takes the place of the one that hangs or fails, and all else is as always."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

from onelun import command
from onelun.faults.plan import Action

if TYPE_CHECKING:
    from onelun.faults.installing import Faults
    from onelun.faults.plan import Plan

_FAIL = 'echo "a fault" >&2; exit 1'
# What is run in place of a command, which are the words after it.
_BEFORE: dict[Action, str] = {"fail": _FAIL, "hang": "exec sleep infinity"}
_AFTER: dict[Action, str] = {"fail": f'"$@"; {_FAIL}', "hang": '"$@"; exec sleep infinity'}
_REST: tuple[Action, ...] = ("die", "delay")


def commands_of(faults: Faults) -> None:
    """Put faults around the three ways to start a process."""
    for name in ("run", "pipe", "spawn"):
        _wrap(faults, name)


def _wrap(faults: Faults, name: str) -> None:
    original = getattr(command, name)

    def starting(*argv: str, **options: Any) -> Any:  # noqa: ANN401 - as command's own
        point = faults.site("command", sys._getframe(1))  # noqa: SLF001
        return original(*argv, **options) if point is None else around(point, *argv, **options)

    async def around(point: str, *argv: str, **options: Any) -> Any:  # noqa: ANN401 - as above
        if name == "run":
            # A timeout names what should have run.
            options["called"] = options.get("called") or argv[0]
        argv = await _changed(faults.due(point, "before"), argv, _BEFORE)
        # It does its work, and then does not end, or not well. One in the background has done its work when it runs.
        if name == "run":
            argv = await _changed(faults.due(point, "after", _AFTER), argv, _AFTER)
        try:
            return await original(*argv, **options)
        finally:
            if plan := faults.due(point, "after", _REST):
                await asyncio.sleep(plan.seconds)

    setattr(command, name, starting)


async def _changed(plan: Plan | None, argv: tuple[str, ...], scripts: dict[Action, str]) -> tuple[str, ...]:
    """What is started in place of `argv`."""
    if plan is None:
        return argv
    if plan.action in scripts:
        return ("sh", "-c", scripts[plan.action], "sh", *argv)
    await asyncio.sleep(plan.seconds)
    return argv
