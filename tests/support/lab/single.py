"""A throw-away guest around one command: `scripts/lab run`. Nothing of it is left, however it ends."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence

from tests.support.lab.apart import fork_apart, wait_for
from tests.support.lab.cables import make_bridges, plug_in
from tests.support.lab.calls import pass_through
from tests.support.lab.guests import start, wait
from tests.support.lab.machine import Guest, Say
from tests.support.lab.place import NAS, Lab, cache
from tests.support.lab.root import hold
from tests.support.sandbox.processes import run


def run_once(
    kind: str, argv: Sequence[str], disks: Sequence[str], memory_mib: int, limit_s: float, say: Say, root: str
) -> int:
    """Boot a guest with empty data disks of these sizes (as truncate takes them), run `argv` in it, return its status.

    Everything is in namespaces that end with us: the guest, its network, and its files, which are in memory.
    """
    os.makedirs(cache("run"), exist_ok=True)
    hold(root)
    child = fork_apart(dies_with_us=True)
    if child:
        return wait_for(child)
    status = 1
    try:
        status = _inside(kind, argv, disks, memory_mib, limit_s, say, root)
    except Exception as error:
        print(f"scripts/lab: {error}", file=sys.stderr)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _inside(
    kind: str, argv: Sequence[str], disks: Sequence[str], memory_mib: int, limit_s: float, say: Say, root: str
) -> int:
    lab = Lab(0, cache("run"))
    run("mount", "-t", "tmpfs", "-o", "mode=700,size=90%", "lab", lab.dir)
    os.mkdir(lab.path("memory"))
    files = []
    for number, size in enumerate(disks, start=1):
        files.append(lab.path(f"disk{number}"))
        run("truncate", "-s", size, files[-1])
    guest = Guest(lab, NAS, kind, memory_mib, tuple(files))
    make_bridges(lab)
    plug_in(guest)
    began = time.monotonic()
    process = start(guest, root)
    wait(guest, process)
    say(f"a guest is up after {time.monotonic() - began:.1f} s")
    return pass_through(lab, guest.name, argv, limit_s)
