"""Answers of oned's API, over its own HTTP: damaged, of another shape, or documents of other things."""

from __future__ import annotations

import xmlrpc.client
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from hypothesis import strategies as st
from tests.support.fuzzing import Loop, attacks, refusable
from tests.support.mutation import as_bytes, documents, texts, values
from tests.support.recorded import show

from onelun.driver.api import Api

SHOWN = tuple(
    show(name)
    for name in (
        "onevm-show-running",
        "onedatastore-show-img_onelun",
        "onedatastore-list",
        "onehost-show-host01",
        "vm-0.lcm-12",
    )
)
RIGHT = tuple([True, text, 0] for text in SHOWN)
WRONG = ([False, "[one.vm.info] Error getting virtual machine [7].", 0x0400], [False, "no", 0x0100], [True, "7.0.0", 0])


class Oned(BaseHTTPRequestHandler):
    """Answers everything with the same body."""

    answer = b""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Type", "text/xml")
        self.send_header("Content-Length", str(len(Oned.answer)))
        self.end_headers()
        self.wfile.write(Oned.answer)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    auth = tmp_path_factory.mktemp("oned") / "auth"
    auth.write_text("oneadmin:secret\n")
    with ThreadingHTTPServer(("127.0.0.1", 0), Oned) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield Api(f"http://127.0.0.1:{server.server_port}/RPC2", str(auth))
        server.shutdown()
        thread.join(10)


def body(answer: object) -> bytes:
    """The answer as XML-RPC has it, as far as that can say it."""
    try:
        return xmlrpc.client.dumps((answer,), methodresponse=True, allow_none=True).encode("utf-8", "surrogatepass")
    except (OverflowError, TypeError):
        return b""


BODIES = st.one_of(
    values([*RIGHT[:2], *WRONG]).map(body),
    documents(SHOWN).map(lambda text: body([True, text, 0])),
    texts([body(answer).decode() for answer in (RIGHT[1], *WRONG)]).map(as_bytes),
    documents([body(answer).decode() for answer in (RIGHT[1], *WRONG)]).map(as_bytes),
)


@attacks("tools", BODIES)
def test_answers_of_oned(loop: Loop, api: Api, answer: bytes) -> None:
    Oned.answer = answer
    for question in (api.version, api.hosts, api.datastores):
        refusable(loop, question())
    refusable(loop, api.datastore(102))
    refusable(loop, api.document("vm", 7))
    loop.run(api.vm(7))
