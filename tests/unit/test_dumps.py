"""Secrets are in the memory of agents, and of what they start: neither leaves it in a core dump."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

# What it prints at its end, and what a program that it starts finds.
TOLD = """
import atexit, ctypes, resource, subprocess, sys

CHILD = "import resource; print(resource.getrlimit(resource.RLIMIT_CORE))"

@atexit.register
def tell():
    print(resource.getrlimit(resource.RLIMIT_CORE))
    print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))  # PR_GET_DUMPABLE
    print(subprocess.check_output([sys.executable, "-ISc", CHILD], text=True), end="")
"""
AGENT = """
from onelun.cli.serving import run_until_signalled

async def work(): pass

run_until_signalled(work())
"""
# Without a configuration it ends soon, and OpenNebula hears of it on stderr.
ACTION = """
from onelun.cli.action import action

action.main(["tm/ln", "a", "b"])
"""


@pytest.mark.parametrize("what", [AGENT, ACTION], ids=["an agent", "an action by itself"])
def test_neither_a_process_nor_what_it_starts_can_be_dumped(what: str):
    done = subprocess.run(
        ["sh", "-c", 'ulimit -c unlimited; exec "$@"', "sh", sys.executable, "-c", TOLD + what],
        capture_output=True,
        text=True,
        timeout=30,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "ONELUN_CONFIG": "/nowhere"},
    )

    assert done.stdout.splitlines() == ["(0, 0)", "0", "(0, 0)"], done.stderr
