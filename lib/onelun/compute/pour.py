"""Copy the first bytes of one open file into another and make them durable, as a program: `python pour.py FROM TO SIZE`.

FROM and TO are numbers of descriptors. How many bytes are durable is told on stdout, a line each time. Its status is an errno, or
0; stderr then has one word, `reading` or `writing`. It is a process of its own because both wait in the kernel, uninterruptibly,
while the path to the NAS is dead.
"""

import os
import sys

_PIECE = 4 << 20
# What is durable is told this often, and is thrown out of the cache, where it would only displace what VMs need.
_STEP = 64 << 20


def main() -> None:
    """Copy, flush, end; the kernel closes."""
    source, target, size = (int(text) for text in sys.argv[1:4])
    doing = "reading"
    try:
        os.posix_fadvise(source, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        done = told = 0
        while done < size:
            doing = "reading"
            piece = os.pread(source, min(_PIECE, size - done), done)
            if not piece:
                sys.stderr.write("short")
                sys.exit(1)
            doing = "writing"
            written = 0
            while written < len(piece):
                written += os.pwrite(target, piece[written:], done + written)
            done += written
            if done - told >= _STEP or done == size:
                os.fsync(target)
                for descriptor in (source, target):
                    os.posix_fadvise(descriptor, told, done - told, os.POSIX_FADV_DONTNEED)
                told = done
                sys.stdout.write(f"{done}\n")
                sys.stdout.flush()
    except OSError as error:
        sys.stderr.write(doing)
        sys.exit(error.errno or 1)


if __name__ == "__main__":
    main()
