"""Reading a URL, in a process of its own that writes to stdout: it can be killed, and a hostile server stays outside.

`python fetch.py URL` writes the body; with a number of bytes behind the URL it writes one line of JSON with
`length` (the whole length in bytes, or null) and then at most that many first bytes. An error is one line on stderr.
"""

from __future__ import annotations

import http.client
import json
import sys
import urllib.error
import urllib.request
from typing import Any

_SILENCE_S = 60
_PIECE = 1 << 20


class _WebOnly(urllib.request.HTTPRedirectHandler):
    """Redirects stay on the web: urllib would also follow one to ftp."""

    def redirect_request(self, *arguments: Any) -> urllib.request.Request | None:  # noqa: ANN401 - as the base class has it
        url = arguments[-1]
        if not str(url).startswith(("http://", "https://")):
            raise urllib.error.URLError(f"it leads to {str(url)[:100]}, which is not on the web")
        return super().redirect_request(*arguments)


def read(url: str, first: int | None) -> None:
    """Write what the URL holds to stdout. Raises OSError, HTTPException, ValueError."""
    headers = {"User-Agent": "onelun", "Accept-Encoding": "identity"}
    if first is not None:
        headers["Range"] = f"bytes=0-{first - 1}"
    opener = urllib.request.build_opener(_WebOnly)
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - the caller has checked that it is http or https
    with opener.open(request, timeout=_SILENCE_S) as response:
        length = _length(response)
        if first is not None:
            head = response.read(first)
            sys.stdout.buffer.write(json.dumps({"length": length}).encode() + b"\n" + head)
            return
        done = 0
        while piece := response.read(_PIECE):
            sys.stdout.buffer.write(piece)
            done += len(piece)
    if length is not None and done != length:
        raise OSError(f"the server closed the connection after {done} of {length} bytes")


def _length(response: http.client.HTTPResponse) -> int | None:
    ranged = response.headers.get("Content-Range", "").rpartition("/")[2]
    text = ranged if response.status == http.client.PARTIAL_CONTENT else response.headers.get("Content-Length", "")
    return int(text) if text.strip().isdecimal() else None


def main(arguments: list[str]) -> int:
    """Read a URL; return the status to end with."""
    try:
        read(arguments[0], int(arguments[1]) if len(arguments) > 1 else None)
        sys.stdout.buffer.flush()
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        text = f"{error.code} {error.reason}" if isinstance(error, urllib.error.HTTPError) else str(reason)
        sys.stderr.write(" ".join(text.split())[:300] + "\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
