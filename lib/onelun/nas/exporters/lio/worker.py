"""The process in which LIO is changed: it may hang in the kernel for as long as the kernel likes, and only it.

Requests come by stdin, answers go by stdout, one after the other, each as four bytes of length and JSON. It ends with its
agent: at the end of stdin, and with it when it is killed. Run as `python -m onelun.nas.exporters.lio.worker PARENT`, where
PARENT is the pid of the agent.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
import sys
import traceback
from typing import IO

import msgspec

from onelun.errors import OnelunError, Unreachable
from onelun.model import Portal, Target
from onelun.nas.exporters.base import Exported
from onelun.nas.exporters.lio import configfs

LENGTH = struct.Struct(">I")
_PR_SET_PDEATHSIG = 1


class Make(msgspec.Struct, tag="make"):
    """Make a target; the answer is whether it was not complete before."""

    nas: str
    portal: Portal
    target: Target


class Shut(msgspec.Struct, tag="shut"):
    """End a target's sessions and admit nobody."""

    iqn: str
    within_s: float


class Remove(msgspec.Struct, tag="remove"):
    """Remove a target that was shut."""

    nas: str
    iqn: str


class Grow(msgspec.Struct, tag="grow"):
    """Let a target be as long as its device."""

    nas: str
    target: Target


class List(msgspec.Struct, tag="list"):
    """The answer is the NAS's targets."""

    nas: str


Request = Make | Shut | Remove | Grow | List


class Answer(msgspec.Struct):
    """How a request ended: `error` holds the fields of an error reply."""

    targets: list[Exported] = []
    made: bool = False
    error: dict[str, str | int | float | bool | None] | None = None


def answer(request: Request) -> Answer:
    """Do what is asked. Raises as the exporter's base says."""
    if isinstance(request, List):
        return Answer(targets=configfs.listed(request.nas))
    if isinstance(request, Shut):
        configfs.shut(request.iqn, request.within_s)
        return Answer()
    try:
        # Here, because most of this module needs no library: it takes as long to load as a target to make.
        from onelun.nas.exporters.lio import targets
    except ImportError as error:
        raise Unreachable(f"the library rtslib-fb is not installed ({error}): pip install rtslib-fb") from error
    match request:
        case Make():
            return Answer(made=targets.make(request.nas, request.portal, request.target))
        case Remove():
            targets.remove(request.nas, request.iqn)
        case Grow():
            targets.grow(request.nas, request.target)
    return Answer()


def serve(asked: IO[bytes], answered: IO[bytes]) -> None:
    """Answer until nothing more is asked."""
    while len(header := asked.read(LENGTH.size)) == LENGTH.size:
        request = msgspec.json.decode(asked.read(*LENGTH.unpack(header)), type=Request)
        try:
            done = answer(request)
        except OnelunError as error:
            done = Answer(error=error.to_wire())
        except Exception as error:  # noqa: BLE001 the agent is told of any failure, and its log of the place
            traceback.print_exc()
            done = Answer(error=OnelunError(f"the worker for LIO failed: {type(error).__name__}").to_wire())
        body = msgspec.json.encode(done)
        answered.write(LENGTH.pack(len(body)) + body)
        answered.flush()


def main() -> None:
    """Serve the process that started this one."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(sys.argv[1]):
        return
    answered = os.fdopen(os.dup(1), "wb")
    # What a library prints is no answer.
    os.dup2(2, 1)
    serve(sys.stdin.buffer, answered)


if __name__ == "__main__":
    main()
