"""The package lists that the guests' root is built from, apart from this machine's own."""

from __future__ import annotations

import contextlib
import glob
import os
from collections.abc import Iterator

from tests.support.lab import sources
from tests.support.lab.machine import Say
from tests.support.lab.place import cache
from tests.support.sandbox.processes import run


class PackageIndex:
    """The package lists of the guests' sources, apart from this machine's own."""

    def __init__(self) -> None:
        self._dir = cache("apt")
        self._list = os.path.join(self._dir, "sources.list")
        self._config = os.path.join(self._dir, "apt.conf")
        for part in ("lists/partial", "cache/archives/partial", "empty.d"):
            os.makedirs(os.path.join(self._dir, part), exist_ok=True)
        for path, text in ((self._list, sources.sources()), (self._config, sources.settings() + self._places())):
            with open(path, "w") as file:
                file.write(text)
        open(os.path.join(self._dir, "status"), "a").close()

    def _places(self) -> str:
        return (
            f'Dir::State::lists "{self._dir}/lists";\nDir::State::status "{self._dir}/status";\n'
            f'Dir::Cache "{self._dir}/cache";\nDir::Etc::sourcelist "{self._list}";\n'
            f'Dir::Etc::sourceparts "{self._dir}/empty.d";\nAPT::Sandbox::User "root";\n'
        )

    def stamp(self) -> str:
        """Another text for other lists."""
        with contextlib.suppress(OSError):
            return f"{os.stat(os.path.join(self._dir, 'fetched-from')).st_mtime_ns}"
        return ""

    def is_there(self) -> bool:
        """Whether lists were fetched from the sources as they are now."""
        stamp = os.path.join(self._dir, "fetched-from")
        with contextlib.suppress(OSError), open(stamp) as file:
            return file.read() == sources.sources()
        return False

    def update(self, say: Say) -> None:
        """Fetch them."""
        say("fetching package lists")
        self.apt("update", timeout_s=300)
        with open(os.path.join(self._dir, "fetched-from"), "w") as file:
            file.write(sources.sources())

    def versions(self, *packages: str) -> list[str]:
        """Every package that installing these on nothing would install, with its version."""
        planned = self.apt("install", "--simulate", "--no-install-recommends", *packages, timeout_s=60)
        return sorted(line for line in planned.splitlines() if line.startswith("Inst "))

    def apt(self, *arguments: str, timeout_s: float) -> str:
        """apt-get with these lists."""
        return run("env", f"APT_CONFIG={self._config}", "apt-get", "-q", "-y", *arguments, timeout_s=timeout_s)

    def mmdebstrap(self, root: str, packages: tuple[str, ...]) -> None:
        """Unpack and configure `packages` below `root`. No service starts: mmdebstrap forbids it while it installs."""
        without = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "locale")]
        settings = os.path.join(self._dir, "fetching.conf")
        with open(settings, "w") as file:
            file.write(sources.settings())
        argv = ["mmdebstrap", "--mode=root", "--variant=minbase", f"--include={','.join(packages)}"]
        run(*argv, f"--aptopt={settings}", *without, sources.codename(), root, self._list, timeout_s=900)

    def unpack(self, package: str, directory: str) -> None:
        """Unpack one package, installing nothing."""
        with _working_directory(os.path.join(self._dir, "cache")):
            self.apt("download", package, timeout_s=600)
            (archive,) = glob.glob(f"{package}_*.deb")
            try:
                run("dpkg-deb", "-x", archive, directory, timeout_s=60)
            finally:
                os.unlink(archive)


@contextlib.contextmanager
def _working_directory(path: str) -> Iterator[None]:
    before = os.getcwd()
    os.chdir(path)
    try:
        yield
    finally:
        os.chdir(before)
