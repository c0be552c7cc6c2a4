"""What a SCSI disk says of itself now, its size and its serial, asked by its BSG node.

The kernel's own knowledge (sysfs, the block device's size) is of the moment when the disk appeared. The node of the
generic SCSI layer (bsg, linux/bsg.h) is used and not the block device: a question that hangs on a dead path must not
count as a user of the disk. Another process does it (`calls.Calls`) because it hangs uninterruptibly then.
"""

import array
import errno
import fcntl
import os
import struct

SG_IO = 0x2285
TIMEOUT_MS = 4000
# struct sg_io_v4
REQUEST = struct.Struct("=iIIIQQIIIIQIIIIQQIIQIIIIIIIIiiQII")
CHECK_CONDITION = 2
UNIT_ATTENTION = 6
DRIVER_SENSE = 8
ATTEMPTS = 6


def call(node: str) -> str:
    """Ask for the size and page 0x80: `SIZE SERIAL`. Raises OSError."""
    descriptor = os.open(node, os.O_RDWR | os.O_CLOEXEC)
    try:
        # READ CAPACITY (16): the last block's number, and the length of a block (SBC-3, 5.16).
        last, length = struct.unpack(">QI", ask(descriptor, struct.pack(">BBQIBB", 0x9E, 0x10, 0, 32, 0, 0), 32)[:12])
        # INQUIRY, unit serial number (SPC-4, 7.8.15).
        page = ask(descriptor, struct.pack(">BBBHB", 0x12, 1, 0x80, 255, 0), 255)
    finally:
        os.close(descriptor)
    serial = page[4 : 4 + page[3]].strip(b"\0 ")
    return f"{(last + 1) * length} {serial.decode('ascii', 'replace')}"


def ask(descriptor: int, command: bytes, length: int) -> bytes:
    """The answer to a SCSI command. A unit attention is news that the next command does not get again (SAM-5, 5.14)."""
    for _ in range(ATTEMPTS):
        request, answer, sense = array.array("B", command), array.array("B", bytes(length)), array.array("B", bytes(64))
        block = array.array("B", pack(request, answer, sense))
        fcntl.ioctl(descriptor, SG_IO, block)
        driver, transport, device = REQUEST.unpack(block)[21:24]
        if (transport, device) == (0, 0) and driver in (0, DRIVER_SENSE):
            return answer.tobytes()
        if transport or device != CHECK_CONDITION or sense_key(sense) != UNIT_ATTENTION:
            raise OSError(errno.EREMOTEIO, "")
    raise OSError(errno.EAGAIN, "")


def pack(request: "array.array[int]", answer: "array.array[int]", sense: "array.array[int]") -> bytes:
    """The struct sg_io_v4 for a command that reads: a SCSI command (protocol 0), where it is, and where what comes goes."""
    return REQUEST.pack(
        *(ord("Q"), 0, 0, len(request), request.buffer_info()[0], 0, 0, 0, 0, len(sense), sense.buffer_info()[0]),
        *(0, 0, 0, len(answer), 0, answer.buffer_info()[0], TIMEOUT_MS, 0, 0),
        *(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0),
    )


def sense_key(sense: "array.array[int]") -> int:
    """The sense key in either format (SPC-4, 4.5)."""
    return (sense[1] if sense[0] & 0x7F in (0x72, 0x73) else sense[2]) & 0x0F
