"""What stands behind a target, looked at before it is offered."""

from __future__ import annotations

import os
import stat

from onelun.errors import CommandFailed, Conflict, NotFound, Rejected
from onelun.model import Target


def check_device(target: Target) -> None:
    """Check that the target's device can be opened and is as long as the volume.

    Raises NotFound without it, Rejected when it is neither file nor block device, Conflict when it has another size.
    """
    try:
        descriptor = os.open(target.device, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NotFound(f"there is no {target.device} to export") from None
    except OSError as error:
        raise CommandFailed(f"cannot open {target.device}: {error.strerror}", command="open") from error
    try:
        mode = os.fstat(descriptor).st_mode
        size = os.lseek(descriptor, 0, os.SEEK_END) if stat.S_ISREG(mode) or stat.S_ISBLK(mode) else -1
    finally:
        os.close(descriptor)
    if size < 0:
        raise Rejected(f"{target.device} is neither a file nor a block device")
    if size != target.size_bytes:
        raise Conflict(f"{target.device} has {size} bytes, not the volume's {target.size_bytes}")
