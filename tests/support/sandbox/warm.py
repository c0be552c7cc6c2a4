"""Roles whose start costs a fork: beside each one a process that has imported all of onelun, and becomes the role when asked.

For runs that start a role thousands of times (scripts/chaos); what the child runs then is the same command.
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
import socket
import sys
from typing import NoReturn

from tests.support.sandbox.place import Place
from tests.support.sandbox.processes import Process, keep_pid

_ANSWER_S = 20.0
_IMPORTED = ("onelun.cli.frontend", "onelun.cli.nas", "onelun.cli.compute", "onelun.cli.engines", "xml.dom.minidom")


def listener(place: Place, role: str) -> socket.socket:
    """Where a role's process will be asked; it gets this as its standard input."""
    os.makedirs(place.path("warm"), mode=0o700, exist_ok=True)
    found = socket.socket(socket.AF_UNIX)
    found.bind(_path(place, role))
    found.listen()
    return found


def is_warm(place: Place, role: str) -> bool:
    """Whether there is a process that becomes the role."""
    return os.path.exists(_path(place, role))


def start_warm(place: Place, role: str) -> Process:
    """Have it become the role. SandboxError when it ended at once, TimeoutError when there is no answer."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(_ANSWER_S)
        asking.connect(_path(place, role))
        return keep_pid(place, role, int(asking.recv(32)))


def _path(place: Place, role: str) -> str:
    return place.path("warm", role)


def serve(command: str) -> None:
    """Fork a child for each connection; returns in the child, which is to run `command`."""
    with socket.socket(fileno=os.dup(0)) as listening:
        _import_all()
        # Nobody waits for the children.
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        while True:
            with listening.accept()[0] as asked:
                if not (child := os.fork()):
                    break
                asked.send(str(child).encode())
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.argv = ["onelun", command]


def _import_all() -> None:
    for name in _IMPORTED:
        importlib.import_module(name)
    importlib.import_module("onelun.faults.installing")
    # Read once, and not by each child.
    importlib.import_module("onelun.faults.points").points()
    gc.freeze()


def main() -> NoReturn:
    """Become what the word says: nas, compute or frontend."""
    serve(sys.argv[1])
    importlib.import_module("onelun.cli.main").main()
    sys.exit(1)


if __name__ == "__main__":
    main()
