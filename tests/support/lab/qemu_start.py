"""Become a QEMU that has the checkout: start virtiofsd, and exec QEMU in this very process.

    qemu_start.py DIRECTORY CHECKOUT QEMU ARGUMENTS...

virtiofsd serves CHECKOUT on the socket `checkout` in DIRECTORY, where QEMU is run, so that paths of sockets are short. It
ends with QEMU. Standard library alone: it starts on the bare system.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys

VIRTIOFSD = "/usr/lib/qemu/virtiofsd"
_PR_SET_PDEATHSIG = 1


def main(directory: str, checkout: str, argv: list[str]) -> None:
    """Does not return."""
    os.chdir(directory)
    if os.path.lexists("checkout"):
        os.unlink("checkout")
    # We listen and hand the socket on: QEMU, which connects once, cannot come too early.
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("checkout")
    listener.listen()
    parent = os.getpid()
    if os.fork() == 0:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        os.set_inheritable(listener.fileno(), True)
        options = ("-o", f"source={checkout}", "-o", "cache=auto", "-o", "log_level=err")
        os.execv(VIRTIOFSD, [VIRTIOFSD, f"--fd={listener.fileno()}", *options])
    listener.close()
    os.execvp(argv[0], argv)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
