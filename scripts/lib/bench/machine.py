"""The machine and the versions that a bench ran on; neither its name nor a path of it."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterator, Mapping

from onelun import __version__

PACKAGES = ("rabbitmq-server", "tgt", "qemu-utils", "open-iscsi")


def description() -> list[str]:
    """A sentence a fact."""
    with open("/proc/cpuinfo") as file:
        cpu = cpu_model(file.read())
    with open("/proc/meminfo") as file:
        memory = memory_gib(file.read())
    system = platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    return [
        f"{os.cpu_count()} processors ({cpu}), {memory} GiB of memory; load when it ended {load}",
        f"{system}, Linux {platform.release()}, Python {platform.python_version()}",
        f"onelun {__version__}{''.join(f', {name} {version}' for name, version in _versions())}",
    ]


def cpu_model(text: str) -> str:
    """What /proc/cpuinfo calls the processor."""
    fields = _fields(text)
    return fields.get("model name") or fields.get("CPU implementer") or platform.machine()


def memory_gib(text: str) -> int:
    """The memory in /proc/meminfo, rounded to whole GiB: the kernel keeps some for itself."""
    return -(-int(_fields(text)["MemTotal"].split()[0]) // (1 << 20))


def _fields(text: str) -> Mapping[str, str]:
    pairs = (line.partition(":") for line in text.splitlines())
    return {name.strip(): " ".join(value.split()) for name, _, value in pairs}


def _versions() -> Iterator[tuple[str, str]]:
    argv = ("dpkg-query", "-W", "-f", "${Package} ${Version} ${db:Status-Status}\n", *PACKAGES)
    try:
        told = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False).stdout
    except FileNotFoundError:
        return
    for words in map(str.split, told.splitlines()):
        # One that was removed has no version.
        if words[2:] == ["installed"]:
            yield words[0], words[1]
