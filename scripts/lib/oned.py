"""oned's side of the driver contract: the documents and the calls, as OpenNebula 3.4 and 7.5 make them.

3.4 gives a datastore action its document in argv and a transfer action no ids; since 6.8 the document is on stdin, since
3.6 a transfer action's last two arguments are the ids of VM and datastore. 3.4 reads `SOURCE SIZE` from cp and mkfs,
7.5 `SOURCE FORMAT` from cp and `SOURCE` from mkfs (OpenNebula's ImageManagerDriver.cc and ImageManagerProtocol.cc).
"""

from __future__ import annotations

import base64
import os
import subprocess
import time
from dataclasses import dataclass, field
from xml.sax.saxutils import escape

CHECKOUT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# oned itself waits for ever; an action that takes longer than this has failed all the same.
LIMIT_S = 150
DATASTORE_ID, SYSTEM_ID = 102, 103


@dataclass(frozen=True)
class Image:
    """An image as oned knows it. `source` is empty until cp or mkfs has told it."""

    id: int
    name: str
    size_mb: int
    path: str = ""
    persistent: bool = False
    source: str = ""
    regtime: int = field(default_factory=lambda: int(time.time()))


@dataclass(frozen=True)
class Outcome:
    """How an action ended."""

    status: int
    stdout: str
    stderr: str
    seconds: float


@dataclass(frozen=True)
class Oned:
    """One release of OpenNebula that drives the sandbox. `environment` is what the scripts get."""

    release: str
    datastores: str
    environment: dict[str, str]
    pools: str = "nas1/tank"
    safe_dirs: str = "/tmp"

    @property
    def old(self) -> bool:
        """Whether it is 3.4."""
        return self.release == "3.4"

    def directory(self, vm: int) -> str:
        """A VM's directory as oned writes it: with the two slashes that its default configuration leads to."""
        return f"{os.path.dirname(self.datastores)}//{os.path.basename(self.datastores)}/{SYSTEM_ID}/{vm}"

    def datastore(self, action: str, image: Image | None) -> Outcome:
        """Run a datastore action on an image, or on the datastore."""
        document = base64.b64encode(self.document(image).encode()).decode()
        number = str(image.id if image else DATASTORE_ID)
        argv = [document, number] if self.old else [number]
        return self._run(f"datastore/onelun/{action}", argv, "" if self.old else document)

    def transfer(self, action: str, *locations: str, vm: int, of_system: bool = False) -> Outcome:
        """Run a transfer action; `of_system` when it is the system datastore's."""
        ids = [] if self.old else [str(vm), str(SYSTEM_ID if of_system else DATASTORE_ID)]
        return self._run(f"tm/onelun/{action}", [*locations, *ids], "")

    def monitor_system(self) -> Outcome:
        """Monitor the system datastore, as 6.4 and later do."""
        document = base64.b64encode(self.document(None).encode()).decode()
        return self._run("tm/onelun/monitor", [str(SYSTEM_ID)], document)

    def source_in(self, action: str, stdout: str, image: Image) -> str:
        """SOURCE, from what cp or mkfs printed. Raises ValueError for what this release would not take."""
        words = stdout.split()
        wanted = [str(image.size_mb)] if self.old else ["raw"] if action == "cp" else []
        if stdout.count("\n") != 1 or not words or words[1:] != wanted:
            raise ValueError(f"{action} printed {stdout!r}; {self.release} wants SOURCE {' '.join(wanted)}")
        return words[0]

    def document(self, image: Image | None) -> str:
        """DS_DRIVER_ACTION_DATA for an image, or for the datastore alone."""
        kind = "" if self.old else "<TYPE>0</TYPE><DISK_TYPE>2</DISK_TYPE><STATE>0</STATE>"
        return (
            f"<DS_DRIVER_ACTION_DATA>{self._image(image) if image else ''}"
            f"<DATASTORE><ID>{DATASTORE_ID}</ID><UID>0</UID><GID>0</GID><NAME>onelun</NAME>"
            f"<DS_MAD>onelun</DS_MAD><TM_MAD>onelun</TM_MAD>"
            f"<BASE_PATH><![CDATA[{self.datastores}/{DATASTORE_ID}]]></BASE_PATH>{kind}"
            f"<TEMPLATE><ONELUN_POOLS><![CDATA[{self.pools}]]></ONELUN_POOLS>"
            f"<SAFE_DIRS><![CDATA[{self.safe_dirs}]]></SAFE_DIRS></TEMPLATE></DATASTORE></DS_DRIVER_ACTION_DATA>"
        )

    def _image(self, image: Image) -> str:
        kind = "<FSTYPE></FSTYPE>" if self.old else "<FORMAT></FORMAT><FS></FS><DISK_TYPE>2</DISK_TYPE>"
        return (
            f"<IMAGE><ID>{image.id}</ID><UID>0</UID><GID>0</GID><UNAME>oneadmin</UNAME><GNAME>oneadmin</GNAME>"
            f"<NAME>{escape(image.name)}</NAME><TYPE>{2 if image.persistent else 0}</TYPE>"
            f"<PERSISTENT>{int(image.persistent)}</PERSISTENT><REGTIME>{image.regtime}</REGTIME>"
            f"<SOURCE><![CDATA[{image.source}]]></SOURCE><PATH><![CDATA[{image.path}]]></PATH>{kind}"
            f"<SIZE>{image.size_mb}</SIZE><STATE>4</STATE><RUNNING_VMS>0</RUNNING_VMS>"
            f"<DATASTORE_ID>{DATASTORE_ID}</DATASTORE_ID><DATASTORE>onelun</DATASTORE><TEMPLATE></TEMPLATE></IMAGE>"
        )

    def _run(self, script: str, argv: list[str], stdin: str) -> Outcome:
        started = time.monotonic()
        try:
            done = subprocess.run(
                [os.path.join(CHECKOUT, script), *argv],
                input=stdin,
                capture_output=True,
                text=True,
                timeout=LIMIT_S,
                check=False,
                env={"PATH": os.environ.get("PATH", "/usr/bin:/bin"), **self.environment},
            )
        except subprocess.TimeoutExpired:
            return Outcome(255, "", f"no answer within {LIMIT_S} s", time.monotonic() - started)
        return Outcome(done.returncode, done.stdout, done.stderr, time.monotonic() - started)
