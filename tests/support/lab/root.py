"""The root that all guests share: Debian with the storage tools and the project's Python packages, built once and kept."""

from __future__ import annotations

import configparser
import contextlib
import fcntl
import glob
import hashlib
import os
import shutil
import sys
import time
from collections.abc import Iterator

from tests.support.lab.index import PackageIndex
from tests.support.lab.machine import Say
from tests.support.lab.place import CHECKOUT, LabError, cache
from tests.support.sandbox.processes import run

PACKAGES = (
    # the system
    *("ca-certificates", "iproute2", "iputils-ping", "kmod", "procps", "python3", "python3-venv", "sudo"),
    *("systemd", "udev"),
    # storage on a NAS
    *("lvm2", "thin-provisioning-tools", "tgt", "zfsutils-linux"),
    # storage on a host
    *("open-iscsi", "lsscsi", "sg3-utils"),
    # the packages of a front-end that docs/install.md names: guests reach no package source
    *("bzip2", "openssl", "rabbitmq-server", "xorriso", "xz-utils", "zstd"),
    # what tests do with volumes
    *("e2fsprogs", "fio", "libiscsi-bin", "qemu-block-extra", "qemu-utils", "xfsprogs"),
)
KERNEL = "user-mode-linux"
_INIT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "guest", "init")
# Not where onelun itself is installed: a test installs it there.
VENV = "/lab/venv"
KEEP = 2
KEEP_S = 3600
# To be raised by who changes what a build does, so that roots of before are not taken for equal.
RECIPE = "2"


def requirements() -> list[str]:
    """What setup.cfg says that onelun and its tests need of Python."""
    config = configparser.ConfigParser()
    config.read(f"{CHECKOUT}/setup.cfg")
    lines = f"{config['options']['install_requires']}\n{config['options.extras_require']['dev']}".splitlines()
    found = [text for line in lines if (text := line.split("#")[0].strip())]
    return found if any(line.startswith("rtslib") for line in found) else [*found, "rtslib-fb"]


def build(say: Say, *, refresh: bool = False) -> str:
    """The directory of the root, built if the cache has none for the packages as they are now. It may be repeated."""
    if os.geteuid() != 0:
        raise LabError("the lab needs root: its guests' root belongs to root")
    os.makedirs(cache(), exist_ok=True)
    with locked(cache("build.lock"), say):
        index = PackageIndex()
        if refresh or not index.is_there():
            index.update(say)
        path = cache(f"root-{_key(index)}")
        if not os.path.isdir(path):
            if not refresh:
                # Lists of yesterday name packages that may be gone.
                index.update(say)
                path = cache(f"root-{_key(index)}")
            if not os.path.isdir(path):
                _build(path, say)
        os.utime(path)
        _place_init(os.path.join(path, "root"))
        _prune(path)
    return os.path.join(path, "root")


def _key(index: PackageIndex) -> str:
    """A hash of all that makes the root what it is: exact versions, architecture, our own list and dependencies."""
    parts = [run("dpkg", "--print-architecture"), *requirements(), *PACKAGES, RECIPE]
    # Asking apt takes two seconds; its answer for the same lists is kept.
    question = _hash(*parts, index.stamp(), KERNEL)
    path = cache("apt", "answered")
    with contextlib.suppress(OSError, ValueError), open(path) as file:
        asked, answer = file.read().split()
        if asked == question:
            return answer
    answer = _hash(*parts, *index.versions("apt", *PACKAGES, KERNEL))
    with open(path, "w") as file:
        file.write(f"{question} {answer}\n")
    return answer


def _hash(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _build(path: str, say: Say) -> None:
    """Make it in a directory of another name, and give it its own when it is complete."""
    started = time.monotonic()
    for stale in glob.glob(cache("new-*")):
        shutil.rmtree(stale)
    new = cache(f"new-{os.path.basename(path)}")
    os.makedirs(new)
    root = os.path.join(new, "root")
    index = PackageIndex()
    say("building the guests' root: Debian packages (about a minute)")
    index.mmdebstrap(root, PACKAGES)
    say("Python packages")
    _install_python(root)
    say("the user-mode-linux kernel")
    index.unpack(KERNEL, os.path.join(new, "uml"))
    shutil.copytree(f"{new}/uml/usr/lib/uml/modules", f"{root}/usr/lib/modules", dirs_exist_ok=True)
    for name in ("lab", "checkout"):
        os.makedirs(os.path.join(root, name), exist_ok=True)
    os.rename(new, path)
    say(f"built {path} in {time.monotonic() - started:.0f} s")


def _place_init(root: str) -> None:
    """The first script comes with the checkout; it is not worth a new root."""
    with open(_INIT) as ours, open(f"{root}/lab/init", "a+") as there:
        there.seek(0)
        if there.read() == (text := ours.read()):
            return
    with open(f"{root}/lab/init.new", "w") as file:
        file.write(text)
    os.chmod(file.name, 0o755)
    os.rename(file.name, f"{root}/lab/init")


def _install_python(root: str) -> None:
    """A venv in the root. pip fetches out here, by this machine's configuration, and installs in there without network."""
    wheels = os.path.join(root, "lab", "wheels")
    os.makedirs(wheels)
    run(sys.executable, "-m", "pip", "wheel", "-q", "-w", wheels, *requirements(), timeout_s=600)
    run("chroot", root, "python3", "-m", "venv", VENV, timeout_s=120)
    install = ("install", "-q", "--isolated", "--no-index", "--find-links", "/lab/wheels", *requirements())
    run("env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "chroot", root, f"{VENV}/bin/pip", *install, timeout_s=300)
    shutil.rmtree(wheels)


def hold(root: str) -> int:
    """Keep `root` from being pruned as long as the descriptor that this returns is open in any process."""
    descriptor = os.open(root, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    return descriptor


def _prune(newest: str) -> None:
    """Keep the roots that were used last, or within the last hour, and those that guests run on."""
    paths = sorted(glob.glob(cache("root-*")), key=os.path.getmtime, reverse=True)
    for path in [path for path in paths if path != newest][KEEP - 1 :]:
        with contextlib.suppress(OSError):
            if os.path.getmtime(path) > time.time() - KEEP_S:
                continue
            descriptor = os.open(os.path.join(path, "root"), os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path)
            finally:
                os.close(descriptor)


@contextlib.contextmanager
def locked(path: str, say: Say) -> Iterator[None]:
    """Hold the lock file `path`: two builds must not collide."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another build")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
