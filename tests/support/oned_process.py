"""A oned for the e2e tests, as a program: `python -m tests.support.oned_process STATE`.

It prints its address and its session, and serves until it is killed. The file STATE says, anew before each answer, which VMs it
has, a line each: ID RECORDING LCM_STATE HOST. Further words NAME=VALUE change elements of the VM, DISK:NAME=VALUE of a disk, and
DISK:- takes a disk away. A line `image ID NAME=VALUE...` is an image, and with a line `broken` no answer makes sense.
"""

from __future__ import annotations

import re
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from tests.support.oned import Oned, serving


def tell(oned: Oned, state: str) -> None:
    """Have oned know the VMs that `state` tells, and no others."""
    oned.documents.clear()
    oned.datastore("onedatastore-show-sys_onelun", 103)
    oned.broken = None
    for line in state.splitlines():
        match line.split():
            case ["broken"]:
                oned.broken = b"<html>busy</html>"
            case ["image", number, *changes]:
                oned.image(int(number), **dict(change.split("=", 1) for change in changes))
            case [number, recording, lcm, host, *changes]:
                oned.vm(recording, int(number), lcm=int(lcm), host=host)
                for change in changes:
                    _change(oned, int(number), change)


def _change(oned: Oned, vm_id: int, change: str) -> None:
    if change.endswith(":-"):
        oned.no_disk(vm_id, int(change.removesuffix(":-")))
    elif ":" in change:
        disk, name, value = re.split("[:=]", change, maxsplit=2)
        oned.disk(vm_id, int(disk), **{name: value})
    else:
        name, value = change.split("=", 1)
        oned.element(vm_id, name, value)


def main(path: str) -> None:
    """Serve until the process is killed."""
    with tempfile.TemporaryDirectory() as directory, serving(Path(directory)) as (oned, _):
        answer, turn = oned.answer, threading.Lock()

        def anew(method: str, parameters: tuple[Any, ...]) -> list[Any]:
            with turn:
                tell(oned, Path(path).read_text())
                return answer(method, parameters)

        oned.answer = anew  # type: ignore[method-assign]
        sys.stdout.write(f"{oned.url} {oned.session}\n")
        sys.stdout.flush()
        threading.Event().wait()


if __name__ == "__main__":
    main(sys.argv[1])
