"""Writes as a VM does with its disk: records of a block each, past the host's cache, each flushed before it counts.

    writer.py write DEVICE NAME STOP [WRITERS]   writes record 0, 1, 2, ... as NAME, WRITERS at a time, until the file STOP is
                                                 there or the device is full; prints the number of each that was flushed
    writer.py verify DEVICE NAME <NUMBERS        fails unless every record of these numbers is there, as NAME wrote it
    writer.py stamp DEVICE...                    writes one record, named after the device, to each
    writer.py stamped COUNT DEVICE...            fails unless it is there on each, and they are COUNT

A record says whose it is, its number, and its checksum. At the end `write` tells on stderr its longest wait for a flush.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import sys
import threading
import time

BLOCK = 4096
# Verified at a time.
CHUNK = 256


def record(name: str, number: int) -> bytes:
    """The content of the record `number` of `name`."""
    body = f"{name} {number}\n".encode().ljust(BLOCK - 32, bytes([number % 251 + 1]))
    return body + hashlib.sha256(body).digest()


class Writer:
    """Hands out numbers to its threads, and says which are durable."""

    def __init__(self, device: str, name: str, stop: str) -> None:
        self._device = os.open(device, os.O_RDWR | os.O_DIRECT)
        self._end = os.lseek(self._device, 0, os.SEEK_END) // BLOCK
        self._name = name
        self._stop = stop
        self._next = 0
        self._lock = threading.Lock()
        self.longest_s = 0.0
        self.error: OSError | None = None

    def run(self) -> None:
        """Write until it is told to stop; the first error ends all threads."""
        # Direct I/O wants aligned memory.
        block = mmap.mmap(-1, BLOCK)
        try:
            while self.error is None and not os.path.exists(self._stop) and (number := self._take()) < self._end:
                block[:] = record(self._name, number)
                began = time.monotonic()
                if os.pwrite(self._device, block, number * BLOCK) != BLOCK:
                    raise OSError(0, "a short write")
                os.fdatasync(self._device)
                self._tell(number, time.monotonic() - began)
        except OSError as error:
            self.error = error

    def _take(self) -> int:
        with self._lock:
            self._next += 1
            return self._next - 1

    def _tell(self, number: int, took_s: float) -> None:
        with self._lock:
            self.longest_s = max(self.longest_s, took_s)
            print(number, flush=True)


def write(device: str, name: str, stop: str, writers: int) -> None:
    """See above."""
    writer = Writer(device, name, stop)
    threads = [threading.Thread(target=writer.run) for _ in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(f"the longest wait was {writer.longest_s:.1f} s", file=sys.stderr)
    if writer.error is not None:
        sys.exit(f"writer: {writer.error.strerror} on {device}")


def verify(device: str, name: str, numbers: set[int]) -> None:
    """See above."""
    descriptor = os.open(device, os.O_RDONLY | os.O_DIRECT)
    blocks = mmap.mmap(-1, BLOCK * CHUNK)
    wrong = []
    for first in range(0, max(numbers, default=-1) + 1, CHUNK):
        os.preadv(descriptor, [blocks], first * BLOCK)
        for number in sorted(numbers.intersection(range(first, first + CHUNK))):
            place = (number - first) * BLOCK
            if blocks[place : place + BLOCK] != record(name, number):
                wrong.append(number)
    if wrong or not numbers:
        sys.exit(f"writer: {len(wrong)} of {len(numbers)} records of {name} are not on {device}: {wrong[:10]}")
    print(f"{len(numbers)} records of {name} are on {device}")


def stamp(device: str) -> None:
    """See above."""
    block = mmap.mmap(-1, BLOCK)
    block[:] = record(device, 0)
    descriptor = os.open(device, os.O_RDWR | os.O_DIRECT)
    os.pwrite(descriptor, block, 0)
    os.fsync(descriptor)
    os.close(descriptor)


def is_stamped(device: str) -> bool:
    """See above."""
    block = mmap.mmap(-1, BLOCK)
    descriptor = os.open(device, os.O_RDONLY | os.O_DIRECT)
    os.preadv(descriptor, [block], 0)
    os.close(descriptor)
    return block[:] == record(device, 0)


def stamped(count: int, devices: list[str]) -> None:
    """See above."""
    right = sum(map(is_stamped, devices))
    if (right, len(devices)) != (count, count):
        sys.exit(f"writer: {right} of {len(devices)} devices are as they were written, {count} should be")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["write", device, name, stop, *writers]:
            write(device, name, stop, int(*writers or "1"))
        case ["verify", device, name]:
            verify(device, name, {int(line) for line in sys.stdin if line.strip()})
        case ["stamp", *devices]:
            for device in devices:
                stamp(device)
        case ["stamped", count, *devices]:
            stamped(int(count), devices)
        case _:
            sys.exit(__doc__)
