"""Make the last writes to a block device durable, as a program: `python flush.py DEVICE`. Its status is an errno, or 0.

It is a process of its own, or one of `calls.Calls`, because both calls wait in the kernel, uninterruptibly, while the path to
the NAS is dead.
O_EXCL finds whoever holds the device in any mount namespace (open(2)).
"""

import os
import sys


def call(device: str) -> str:
    """Open, flush, close. Raises OSError; returns nothing that tells more."""
    descriptor = os.open(device, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return ""


def main() -> None:
    """Flush that device, and end."""
    try:
        call(sys.argv[1])
    except OSError as error:
        sys.exit(error.errno)


if __name__ == "__main__":
    main()
