"""ZFS for the kernel of QEMU guests: compiled once, in a throw-away root, and kept as an archive of some 2 MB.

The archive is named after the exact versions of both, since a module fits one kernel. zfs-dkms brings the sources; dkms
itself, which would also sign, install and compress, and keep debugging information, takes twice as long.
"""

from __future__ import annotations

import os
import shutil
import time

from tests.support.lab.apart_root import run_in
from tests.support.lab.machine import Say
from tests.support.lab.place import cache
from tests.support.lab.qemu_packages import PackageVersions, extract
from tests.support.lab.root import PackageIndex
from tests.support.sandbox.processes import run

SOURCES = "zfs-dkms"
# What configure and kbuild use, besides what the headers and zfs-dkms depend on.
_TOOLS = (
    *("bash", "coreutils", "dash", "diffutils", "file", "findutils", "gawk", "grep", "gzip", "perl-base", "sed", "tar"),
    *("binutils", "gcc", "kmod", "libc6-dev", "make", "xz-utils"),
)
_LIMIT_S = 1500

# The packages are only unpacked: what their scripts would have made is made here.
_COMPILE = """
cd /usr/src/zfs-*
export PATH=/usr/sbin:/usr/bin:/sbin:/bin KCFLAGS=-g0 KAFLAGS=-g0
exec >/tmp/log 2>&1
[ -e /usr/bin/awk ] || ln -s gawk /usr/bin/awk
./configure --with-config=kernel --with-linux="/lib/modules/$1/source" --with-linux-obj="/lib/modules/$1/build" &&
	make "-j$2" -C module && mkdir /modules &&
	find module -name '*.ko' -exec strip --strip-debug {} + -exec cp -t /modules {} +
"""


def archive(versions: PackageVersions) -> str:
    """The path of the archive in the cache for these versions."""
    name = f"zfs-{versions.of(SOURCES)}-{versions.release}_{versions.kernel}.tar.zst"
    return cache(name.replace(":", "%3a"))


def modules(versions: PackageVersions, index: PackageIndex, work: str, say: Say) -> str:
    """The archive's path; compiles it below `work`, a fresh name, unless the cache has it."""
    path = archive(versions)
    if not os.path.exists(path):
        began = time.monotonic()
        say(f"compiling ZFS {versions.of(SOURCES)} for Linux {versions.release} (about three minutes, once)")
        root = os.path.join(work, "root")
        extract(index, [f"linux-headers-{versions.release}", SOURCES, *_TOOLS], root)
        jobs, what = str(os.cpu_count() or 1), f"ZFS does not compile for Linux {versions.release}"
        run_in(root, _COMPILE, versions.release, jobs, what=what, limit_s=_LIMIT_S)
        # Complete or not there at all.
        run("tar", "--zstd", "-cf", f"{work}/archive", "-C", f"{root}/modules", ".", timeout_s=60)
        os.rename(f"{work}/archive", path)
        shutil.rmtree(work)
        say(f"compiled ZFS in {time.monotonic() - began:.0f} s")
    return path


def unpack(path: str, directory: str) -> None:
    """Unpack an archive's modules into `directory`."""
    os.makedirs(directory)
    run("tar", "--zstd", "-xf", path, "-C", directory)
