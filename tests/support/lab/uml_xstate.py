"""What user-mode Linux needs on a host whose processor has AMX: a small library (xstate.c), compiled once for each root."""

from __future__ import annotations

import os
import shutil

from tests.support.lab.apart_root import run_in
from tests.support.lab.index import PackageIndex
from tests.support.lab.machine import Say
from tests.support.lab.place import cache
from tests.support.lab.qemu_packages import extract
from tests.support.lab.root import locked

_SOURCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "xstate.c")
_TOOLS = ("binutils", "dash", "gcc", "libc6-dev")
_COMPILE = "exec gcc -O2 -Wall -shared -fPIC -o /tmp/xstate.so /tmp/xstate.c >/tmp/log 2>&1"
_LIMIT_S = 120


def library(root: str) -> str:
    """Where it is, beside the kernel that belongs to the root, if this host needs it."""
    return os.path.join(os.path.dirname(root), "uml", "xstate.so")


def build(root: str, say: Say) -> None:
    """Compile it, in a throw-away root, if this host needs it and it is not there."""
    if os.path.exists(library(root)) or not _has_amx():
        return
    with locked(cache("xstate.lock"), say):
        if os.path.exists(library(root)):
            return
        say("compiling what user-mode Linux needs on a processor with AMX")
        work = cache("xstate")
        shutil.rmtree(work, ignore_errors=True)
        extract(PackageIndex(), _TOOLS, work)
        shutil.copy(_SOURCE, f"{work}/tmp/xstate.c")
        run_in(work, _COMPILE, what="xstate.c does not compile", limit_s=_LIMIT_S)
        # Complete or not there at all.
        os.rename(f"{work}/tmp/xstate.so", library(root))
        shutil.rmtree(work)


def _has_amx() -> bool:
    with open("/proc/cpuinfo") as file:
        return any("amx_tile" in line.split() for line in file if line.startswith("flags"))
