"""Hears when an agent says that it is ready (sd_notify(3)), and then starts what is ordered after it, as systemd would.

listen.py SOCKET PROGRAM: PROGRAM, if there is such, is run each time that READY=1 comes to the SOCKET; its output is in
/var/log/after.log. Standard library alone: it starts on the bare root.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys


def main(path: str, program: str) -> None:
    """Listen for ever."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as unix:
        # Its name appears when it can be written to.
        unix.bind(f"{path}.new")
        os.rename(f"{path}.new", path)
        while True:
            if "READY=1" in unix.recv(4096).decode(errors="replace").split() and os.access(program, os.X_OK):
                with open("/var/log/after.log", "ab") as log:
                    subprocess.run([program], stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
