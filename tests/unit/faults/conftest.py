"""A process that has faults, as one piece of source."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from tests.support.sandbox.place import CHECKOUT

_INSTALLED = """
import asyncio, os, sys
from onelun.faults.installing import install
from onelun.faults.plan import Plans
install(Plans(sys.argv[1], "node1"))
"""


@pytest.fixture
def process(tmp_path):
    """Run source in a process of role node1 whose faults are planned in tmp_path; how it ended."""

    def ended(source):
        argv = [sys.executable, "-c", _INSTALLED + source, str(tmp_path)]
        env = {**os.environ, "PYTHONPATH": f"{CHECKOUT}/lib"}
        return subprocess.run(argv, env=env, timeout=60, check=False, capture_output=True, text=True)

    return ended
