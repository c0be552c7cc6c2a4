"""Make the last writes to a block device durable, as a program: `python flush.py DEVICE`. Its status is an errno, or 0.

It is a process of its own because both calls wait in the kernel, uninterruptibly, while the path to the NAS is dead.
O_EXCL finds whoever holds the device in any mount namespace (open(2)).
"""

import os
import sys


def main() -> None:
    """Open, flush, end; the kernel closes."""
    try:
        os.fsync(os.open(sys.argv[1], os.O_RDONLY | os.O_EXCL))
    except OSError as error:
        sys.exit(error.errno)


if __name__ == "__main__":
    main()
