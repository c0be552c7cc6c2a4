"""oned's API over XML-RPC: what an action needs to know of a VM. Everything else speaks to this interface alone.

oned closes each connection and has 15 of them for all users, so few calls are made at a time, with short timeouts.
`stat` and `monitor` never come here: oned waits for them inside a call of its own.
"""

from __future__ import annotations

import asyncio
import http.client
import logging
import os
import xmlrpc.client
from collections.abc import Callable
from typing import Any

from onelun.driver.document import Datastore, Listed, Vm, parse_datastore, parse_datastores, parse_hosts, parse_vm
from onelun.driver.registered import Registered, parse_image, parse_images, parse_vm_ids
from onelun.errors import ProtocolError, Rejected, Unreachable

log = logging.getLogger(__name__)

_TIMEOUT_S = 5.0
_AT_ONCE = 2
# ErrorCode of OpenNebula's src/rm/Request.h.
_AUTHENTICATION = 0x0100
_NO_EXISTS = 0x0400
# Of the pools' calls: everybody's objects, from the first to the last, and of VMs every state but DONE.
_ALL, _NO_RANGE, _NOT_DONE = (-2,), (-1, -1), -1


class Api:
    """The calls that actions make, as the user of the session in the file `auth` ("user:password")."""

    def __init__(self, url: str, auth: str) -> None:
        self._url = url
        self._auth = os.path.expanduser(auth)
        self._session: str | None = None
        self._turn = asyncio.Semaphore(_AT_ONCE)

    async def vm(self, vm_id: int) -> Vm | None:
        """The VM, or None when oned says that there is none of that id.

        Raises Unreachable when oned does not answer or refuses the session: then nothing is known, and nothing may be guessed.
        """
        body = await self._call("one.vm.info", vm_id)
        return None if body is None else parse_vm(body)

    async def datastore(self, datastore_id: int) -> Datastore | None:
        """The datastore, or None when oned says that there is none of that id. Raises as `vm` does."""
        body = await self._call("one.datastore.info", datastore_id)
        return None if body is None else parse_datastore(body)

    async def document(self, kind: str, object_id: int) -> str | None:
        """The document of a vm, an image or a datastore as it is, for a driver of OpenNebula's own. Raises as `vm` does."""
        return await self._call(f"one.{kind}.info", object_id)

    async def version(self) -> str:
        """OpenNebula's release. Raises Unreachable."""
        return await self._call("one.system.version") or ""

    async def hosts(self) -> list[str]:
        """Oned's names of all hosts that the session's user may see. Raises Unreachable."""
        return parse_hosts(await self._call("one.hostpool.info") or "")

    async def datastores(self) -> list[Listed]:
        """All datastores that the session's user may see. Raises Unreachable."""
        return parse_datastores(await self._call("one.datastorepool.info") or "")

    async def image(self, image_id: int) -> Registered | None:
        """The image, or None when oned says that there is none of that id. Raises as `vm` does."""
        body = await self._call("one.image.info", image_id)
        return None if body is None else parse_image(body)

    async def images(self) -> list[Registered]:
        """All images that the session's user may see. Raises Unreachable."""
        return parse_images(await self._call("one.imagepool.info", *_ALL, *_NO_RANGE) or "")

    async def vm_ids(self) -> list[int]:
        """The ids of all VMs that the session's user may see and that are not done. Raises Unreachable."""
        return parse_vm_ids(await self._call("one.vmpool.info", *_ALL, *_NO_RANGE, _NOT_DONE) or "")

    async def _call(self, method: str, *arguments: int) -> str | None:
        async with self._turn:
            session = self._session or self._read_session()
            answer = await self._ask(method, session, *arguments)
            if _refused(answer):
                # oneadmin's password may have been changed while we run.
                log.info("api method=%s session=refused reading=%s", method, self._auth)
                answer = await self._ask(method, self._read_session(), *arguments)
        if answer[0] is True:
            return str(answer[1])
        if len(answer) > 2 and answer[2] == _NO_EXISTS:
            return None
        reason = " ".join(str(answer[1]).split())[:300]
        raise Unreachable(f"oned at {self._url} refuses {method}: {reason}", method=method)

    async def _ask(self, method: str, *arguments: str | int) -> list[Any]:
        try:
            async with asyncio.timeout(2 * _TIMEOUT_S):
                answer = await asyncio.to_thread(self._post, method, arguments)
        except (OSError, TimeoutError, http.client.HTTPException, xmlrpc.client.Error) as error:
            said = str(error) or type(error).__name__
            raise Unreachable(f"oned does not answer at {self._url} (frontend.api): {said}", method=method) from error
        except Exception as error:
            # expat's own error is no subclass of any of xmlrpc's, and a broken answer can raise more than that.
            raise ProtocolError(f"oned's answer to {method} is not XML-RPC: {error}") from error
        if not isinstance(answer, list) or len(answer) < 2:
            raise ProtocolError(f"oned's answer to {method} has another shape than OpenNebula's")
        return answer

    def _post(self, method: str, arguments: tuple[str | int, ...]) -> object:
        transport = _Transport() if self._url.startswith("http:") else _SafeTransport()
        with xmlrpc.client.ServerProxy(self._url, transport=transport) as proxy:
            call: Callable[..., object] = getattr(proxy, method)
            return call(*arguments)

    def _read_session(self) -> str:
        try:
            with open(self._auth, encoding="utf-8") as file:
                self._session = file.readline().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise Rejected(f"cannot read oned's session from {self._auth} (frontend.api_auth): {error}") from error
        return self._session


def _refused(answer: list[Any]) -> bool:
    return answer[0] is False and len(answer) > 2 and answer[2] == _AUTHENTICATION


class _Transport(xmlrpc.client.Transport):
    """HTTP with a timeout, which xmlrpc.client has no word for."""

    def make_connection(self, host: Any) -> http.client.HTTPConnection:  # noqa: ANN401 - the type that the base class has
        connection = super().make_connection(host)
        connection.timeout = _TIMEOUT_S
        return connection


class _SafeTransport(xmlrpc.client.SafeTransport):
    """HTTPS with a timeout."""

    def make_connection(self, host: Any) -> http.client.HTTPSConnection:  # noqa: ANN401 - as above
        connection = super().make_connection(host)
        connection.timeout = _TIMEOUT_S
        return connection
