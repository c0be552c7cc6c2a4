"""Whether the resident frontend can be reached as the scripts reach it."""

from __future__ import annotations

import os
import socket
import stat
import struct


def findings(path: str, owner: int) -> list[str]:
    """One sentence when `path` is not served, or not by the user `owner`, as whom oned runs the scripts. Waits 5 s at most."""
    start = "start it (`systemctl start onelun-frontend`)"
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return [f"{path} is no socket: remove it and {start}"]
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
            link.settimeout(5)
            link.connect(path)
            pid, peer, _ = struct.unpack("3i", link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    except PermissionError:
        return [f"{path} may not be looked at by this user: run the check as root or as OpenNebula's user"]
    except (FileNotFoundError, ConnectionRefusedError):
        return [f"no frontend serves {path}, so that each action starts an interpreter of its own: {start}"]
    except OSError as error:
        return [f"the frontend at {path} does not answer ({error.strerror or error}): restart it"]
    if peer != owner:
        return [
            f"{path} is served by user {peer}, not by {owner} (frontend.owner), and scripts refuse it: see User= of its unit"
        ]
    if _is_of_a_release_before(pid):
        return [
            "the frontend that runs is of another release than what is installed: `systemctl restart onelun-frontend`"
        ]
    return []


def _is_of_a_release_before(pid: int) -> bool:
    """Whether libraries that the process has loaded are gone: an install puts a whole new environment in the old one's place."""
    try:
        with open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as file:
            return any("/site-packages/" in line and line.endswith(" (deleted)\n") for line in file)
    except OSError:
        return False  # only root sees it of a process that cannot be dumped
