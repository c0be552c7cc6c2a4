"""The private node itself: what it leaves, and that another process can stop it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.support import broker as module
from tests.support.broker import PrivateBroker, stop_by_directory
from tests.support.requires import requires


def processes_of(directory: str) -> list[str]:
    """The living processes whose HOME is the node's directory."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            zombie = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except OSError:
            continue
        if f"HOME={directory}".encode() in environment and not zombie:
            found.append(pid)
    return found


def test_a_node_started_by_one_process_is_stopped_by_another_and_nothing_is_left():
    requires("rabbitmq-server")
    node = PrivateBroker()
    directory = node.node.directory
    try:
        root = Path(module.__file__).parents[2]
        url = subprocess.run(
            [sys.executable, module.__file__, "start", directory],
            env={"PYTHONPATH": f"{root}/lib:{root}", "PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            timeout=300,
            check=True,
        ).stdout
        running = processes_of(directory)
        stop_by_directory(directory)
        stop_by_directory(directory)

        assert url.startswith("amqp://admin:")
        assert len(running) >= 3
        assert processes_of(directory) == []
    finally:
        stop_by_directory(directory)
        node.stop()
    assert not os.path.exists(directory)


def test_a_node_whose_first_process_was_killed_is_still_ended_whole():
    requires("rabbitmq-server")
    node = PrivateBroker()
    directory = node.node.directory
    try:
        node.start()
        os.kill(node.node.pids[0], signal.SIGKILL)
    finally:
        node.stop()

    assert processes_of(directory) == []
    assert not os.path.exists(directory)
