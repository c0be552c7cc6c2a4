"""Secrets are in the memory of agents, and of what they start: neither leaves it in a core dump."""

from __future__ import annotations

import os
import subprocess
import sys

# What an agent does, and then a program that it starts.
AGENT = """
import ctypes, resource, subprocess, sys
from onelun.cli.serving import run_until_signalled

async def work():
    print(resource.getrlimit(resource.RLIMIT_CORE))
    print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))  # PR_GET_DUMPABLE
    print(subprocess.check_output([sys.executable, "-ISc", CHILD], text=True), end="")

CHILD = "import resource; print(resource.getrlimit(resource.RLIMIT_CORE))"
run_until_signalled(work())
"""


def test_neither_an_agent_nor_what_it_starts_can_be_dumped():
    done = subprocess.run(
        ["sh", "-c", 'ulimit -c unlimited; exec "$@"', "sh", sys.executable, "-c", AGENT],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )

    assert done.stdout.splitlines() == ["(0, 0)", "0", "(0, 0)"]
