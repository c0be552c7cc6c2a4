"""A small oned: a real XML-RPC server that serves recorded documents, and can be told what state a VM is in."""

from __future__ import annotations

import http.server
import re
import signal
import sys
import threading
import xmlrpc.client
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.recorded import show

AUTHENTICATION = 0x0100
NO_EXISTS = 0x0400


class Oned:
    """Answers one.vm.info, one.image.info, one.datastore.info, the pools' infos and one.system.version to who has the session."""

    def __init__(self, release: str = "7.5") -> None:
        self.release = release
        self.session = "oneadmin:onepass"
        self.documents: dict[tuple[str, int], str] = {}
        self.pools: dict[str, str] = {}
        self.calls: list[tuple[str, int | None]] = []
        self.refused = 0
        self.broken: bytes | None = None
        self.url = ""

    def vm(
        self,
        recorded: str,
        vm_id: int = 0,
        *,
        lcm: int | None = None,
        state: int | None = None,
        host: str | None = None,
    ) -> None:
        """Serve the recorded VM under that id, in those states, on that host."""
        wanted = {"ID": vm_id, "LCM_STATE": lcm, "STATE": state, "HOSTNAME": host}
        self.documents["vm", vm_id] = show(recorded, **{k: str(v) for k, v in wanted.items() if v is not None})

    def image(self, image_id: int, **elements: str) -> None:
        """Serve a recorded image under that id, with its elements replaced."""
        self.documents["image", image_id] = show("oneimage-show-t-blk", ID=str(image_id), **elements)

    def disk(self, vm_id: int, disk_id: int, **elements: str | None) -> None:
        """Change elements of a disk, or add them; None takes one away."""
        text = self.documents["vm", vm_id]
        disks = re.findall(r"<DISK>.*?</DISK>", text)
        old = next(disk for disk in disks if f"<DISK_ID><![CDATA[{disk_id}]]></DISK_ID>" in disk)
        new = old
        for name, value in elements.items():
            replacement = "" if value is None else f"<{name}>{value}</{name}>"
            if f"<{name}>" not in new:
                new = new.replace("</DISK>", f"<{name}></{name}></DISK>")
            new = re.sub(f"<{name}>.*?</{name}>", lambda _, to=replacement: to, new)
        self.documents["vm", vm_id] = text.replace(old, new)

    def no_disk(self, vm_id: int, disk_id: int) -> None:
        """The VM has that disk no more."""
        text = self.documents["vm", vm_id]
        gone = [d for d in re.findall(r"<DISK>.*?</DISK>", text) if f"<DISK_ID><![CDATA[{disk_id}]]></DISK_ID>" in d]
        self.documents["vm", vm_id] = text.replace(gone[0], "")

    def element(self, vm_id: int, name: str, value: str) -> None:
        """Change an element of the VM itself."""
        old = self.documents["vm", vm_id]
        self.documents["vm", vm_id] = re.sub(f"<{name}>.*?</{name}>", f"<{name}>{value}</{name}>", old, count=1)

    def datastore(self, recorded: str, datastore_id: int, *, pools: str = "") -> None:
        """Serve the recorded datastore under that id, with those ONELUN_POOLS."""
        text = show(recorded, ID=str(datastore_id))
        self.documents["datastore", datastore_id] = text.replace(
            "<TEMPLATE>", f"<TEMPLATE><ONELUN_POOLS>{pools}</ONELUN_POOLS>", 1
        )

    def forget(self, vm_id: int) -> None:
        self.documents.pop(("vm", vm_id), None)

    def answer(self, method: str, parameters: tuple[Any, ...]) -> list[Any]:
        """What oned answers: success, body, code of the error."""
        session, *rest = parameters
        if session != self.session:
            self.refused += 1
            return [False, f"[{method}] User couldn't be authenticated, aborting call.", AUTHENTICATION, 0, 0]
        self.calls.append((method, rest[0] if rest else None))
        if method == "one.system.version":
            return [True, f"{self.release}.0", 0, 0, 0]
        kind = method.split(".")[1]
        if kind.endswith("pool"):
            return [True, self.pools.get(kind) or self._pool(kind[:-4], of_all=rest[-1:] != [-1]), 0, 0, 0]
        found = self.documents.get((kind, rest[0]))
        if found is None:
            return [False, f"[{method}] Error getting {kind} [{rest[0]}].", NO_EXISTS, 0, 0]
        return [True, found, 0, 0, 0]

    def _pool(self, kind: str, *, of_all: bool) -> str:
        """All that it has of a kind; of VMs, with the state -1, what is not done."""
        found = [text for (of, _), text in self.documents.items() if of == kind]
        if kind == "vm" and not of_all:
            found = [text for text in found if "<STATE>6</STATE>" not in text]
        name = f"{kind.upper()}_POOL"
        return f"<{name}>{''.join(found)}</{name}>" if kind in ("vm", "image") and found else f"<{name}/>"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        parameters, method = xmlrpc.client.loads(body)
        oned = self.server.oned
        answer = oned.broken
        if answer is None:
            answer = xmlrpc.client.dumps((oned.answer(str(method), parameters),), methodresponse=True).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/xml")
        self.send_header("Content-Length", str(len(answer)))
        # The real one closes every connection.
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *arguments: object) -> None:
        pass


class _Server(http.server.ThreadingHTTPServer):
    oned: Oned


@contextmanager
def serving(directory: Path, release: str = "7.5", port: int = 0) -> Iterator[tuple[Oned, str]]:
    """A oned that listens, at any port unless told, and the path of the session file of its user."""
    oned = Oned(release)
    auth = directory / "one_auth"
    auth.write_text(f"{oned.session}\n")
    with _Server(("127.0.0.1", port), _Handler) as server:
        server.oned = oned
        oned.url = f"http://127.0.0.1:{server.server_port}/RPC2"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield oned, str(auth)
        finally:
            server.shutdown()
            thread.join()


def main(directory: Path) -> None:
    """Serve the documents in the directory (`vm.70`, `image.27`) until SIGTERM; the URL is printed first."""
    with serving(directory) as (oned, _):
        for path in directory.glob("*.[0-9]*"):
            kind, _, number = path.name.partition(".")
            if kind in ("vm", "image", "datastore"):
                oned.documents[kind, int(number)] = path.read_text()
        print(oned.url, flush=True)
        signal.sigwait({signal.SIGTERM, signal.SIGINT})


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    main(Path(sys.argv[1]))
