"""A cable between an initiator and a portal of the same machine, that can be cut: then nothing passes, and nobody is told.

It is a relay on a port of its own, in a thread of its own, since tests block while they write to a disk. What was under
way when it was cut is lost with its connection, as it is when the initiator has given up before the cable heals.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading

from onelun.model import Portal

_PIECE = 1 << 18


class Cable:
    """Relays what comes to `portal` on to `far` until it is cut. To be used in a `with`."""

    def __init__(self, far: Portal, address: str = "127.0.0.1") -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._far = far
        self._listener = socket.create_server((address, 0), family=family, backlog=64)
        self.portal = Portal(address, self._listener.getsockname()[1])
        self._passes = threading.Event()
        self._passes.set()
        self._ended = threading.Event()
        self._resets = threading.Event()
        self._thread = threading.Thread(target=self._relay, daemon=True)

    def __enter__(self) -> Cable:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._passes.set()
        self._thread.join(10)

    def cut(self) -> None:
        """Let nothing pass. Connections stay, and new ones are taken and say nothing, as with a dead host behind them."""
        self._passes.clear()

    def heal(self) -> None:
        """Let new connections pass; those from before the cut are reset."""
        self._resets.set()
        self._passes.set()

    def _relay(self) -> None:
        peers: dict[socket.socket, socket.socket] = {}
        with selectors.DefaultSelector() as selector, contextlib.ExitStack() as opened:
            opened.enter_context(self._listener)
            selector.register(self._listener, selectors.EVENT_READ)
            while not self._ended.is_set():
                self._passes.wait()
                if self._resets.is_set():
                    self._resets.clear()
                    for one in [*peers]:
                        selector.unregister(one)
                        one.close()
                    peers.clear()
                for key, _ in selector.select(0.05):
                    if not self._passes.is_set():
                        break
                    if key.fileobj is self._listener:
                        self._join(selector, peers, opened)
                    else:
                        self._pass_on(selector, peers, key.fileobj)  # type: ignore[arg-type]

    def _join(
        self,
        selector: selectors.BaseSelector,
        peers: dict[socket.socket, socket.socket],
        opened: contextlib.ExitStack,
    ) -> None:
        near = opened.enter_context(self._listener.accept()[0])
        try:
            far = opened.enter_context(socket.create_connection((self._far.address, self._far.port), 5))
        except OSError:
            near.close()
            return
        for one, other in ((near, far), (far, near)):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            one.settimeout(10)
            peers[one] = other
            selector.register(one, selectors.EVENT_READ)

    @staticmethod
    def _pass_on(
        selector: selectors.BaseSelector, peers: dict[socket.socket, socket.socket], one: socket.socket
    ) -> None:
        if one not in peers:
            return
        try:
            data = one.recv(_PIECE)
            peers[one].sendall(data)
        except OSError:
            data = b""
        if not data:
            other = peers.pop(one)
            peers.pop(other)
            for end in (one, other):
                selector.unregister(end)
                end.close()
