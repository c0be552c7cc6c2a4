"""The logging double of the old volume drivers, around real objects: what was asked of them, in which order.

`log_action`, `all_logs`, `logs_like` and `clear_logs` are as LoggingVolumeDriver had them (nova/volume/driver.py). A
recorder passes every call on, so that the order of calls is seen of code that really works; and it can fail one of them.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterable
from typing import Any


class Log:
    """The calls of all recorders that write into it. `watch` tells what is true as a call begins; it becomes `seen`."""

    def __init__(self, watch: Callable[[], Any] = lambda: None) -> None:
        self.watch = watch
        self._logs: list[dict[str, Any]] = []
        self._failures: list[tuple[str, BaseException, bool]] = []
        self._clock = 0

    def log_action(self, action: str, **parameters: Any) -> dict[str, Any]:
        """Write one call down as it begins."""
        entry = {"action": action, **parameters, "seen": self.watch(), "began": self._tick(), "ended": None}
        self._logs.append(entry)
        return entry

    def all_logs(self) -> list[dict[str, Any]]:
        """Every call, in the order in which they began."""
        return list(self._logs)

    def logs_like(self, action: str, **parameters: Any) -> list[dict[str, Any]]:
        """The calls of that action that have these parameters."""
        return [
            entry
            for entry in self._logs
            if entry["action"] == action and all(entry.get(name) == value for name, value in parameters.items())
        ]

    def clear_logs(self) -> None:
        """Forget all calls."""
        self._logs.clear()

    def actions(self, *only: str) -> list[str]:
        """The names of the calls, or of those of these names: in order, and each over before the next began."""
        chosen = [entry for entry in self._logs if not only or entry["action"] in only]
        for earlier, later in itertools.pairwise(chosen):
            assert earlier["ended"] is not None, earlier
            assert earlier["ended"] < later["began"], f"{later['action']} began before {earlier['action']} ended"
        return [entry["action"] for entry in chosen]

    def fail(self, action: str, error: BaseException, *, after: bool = False) -> None:
        """Let the next call of that action raise: instead of its work, or `after` it."""
        self._failures.append((action, error, after))

    def ended(self, entry: dict[str, Any]) -> None:
        entry["ended"] = self._tick()

    def failure(self, action: str, *, after: bool) -> None:
        for failure in self._failures:
            if (failure[0], failure[2]) == (action, after):
                self._failures.remove(failure)
                raise failure[1]

    def _tick(self) -> int:
        self._clock += 1
        return self._clock


class Recorder:
    """Stands for `inner` and writes down the calls of its methods `of`, as `door.method` or as `named` says."""

    def __init__(
        self,
        inner: Any,
        log: Log,
        door: str,
        of: Iterable[str],
        *,
        named: Callable[[str, dict[str, Any]], str] | None = None,
    ) -> None:
        self.inner = inner
        self._log = log
        self._of = frozenset(of)
        self._named = named or (lambda method, parameters: f"{door}.{method}")

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inner, name)
        return self._recorded(name, found) if name in self._of else found

    def __getitem__(self, key: Any) -> Any:
        return self.inner[key]

    def _recorded(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(method)

        async def call(*args: Any, **kwargs: Any) -> Any:
            parameters = dict(signature.bind(*args, **kwargs).arguments)
            action = self._named(name, parameters)
            entry = self._log.log_action(action, **parameters)
            try:
                self._log.failure(action, after=False)
                result = await method(*args, **kwargs)
                self._log.failure(action, after=True)
                return result
            finally:
                self._log.ended(entry)

        return call


# What changes something; looking is done at any time.
_BACKEND = ("create", "clone", "publish", "record", "grow", "trash", "destroy", "purge", "snapshot", "revert")
_BACKEND_DEVICES = ("delete_snapshot", "activate", "deactivate")
_EXPORTER = ("export", "grow", "unexport")
_CONNECTOR = ("connect", "grow", "disconnect")


def backend(inner: Any, log: Log) -> Any:
    """A Backend whose changes are recorded: `backend.record` and so on."""
    return Recorder(inner, log, "backend", (*_BACKEND, *_BACKEND_DEVICES))


def exporter(inner: Any, log: Log) -> Any:
    """An Exporter whose changes are recorded: `exporter.export` and so on."""
    return Recorder(inner, log, "exporter", _EXPORTER)


def connector(inner: Any, log: Log) -> Any:
    """A Connector whose changes are recorded: `connector.connect` and so on."""
    return Recorder(inner, log, "connector", _CONNECTOR)


def hosts(inner: Any, log: Log) -> Any:
    """Who asks compute agents; each request is recorded as `host.set_zvol`, `host.tear_down` and so on."""

    def named(method: str, parameters: dict[str, Any]) -> str:
        return f"host.{type(parameters['request']).__struct_config__.tag}"

    return Recorder(inner, log, "host", ("ask",), named=named)
