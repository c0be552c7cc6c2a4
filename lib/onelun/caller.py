"""The process that makes calls for `calls.Calls`: `python caller.py IDLE_S`.

Requests come by stdin, answers go by stdout, one after the other, each as four bytes of length and JSON. A request is the file of
a module, whose function `call` is called, and its arguments; the answer is what it returned, or how it failed. It ends with
its agent, at the end of stdin, and when it was asked nothing for IDLE_S. The standard library is all that it and the modules
need: it starts faster so.
"""

import importlib.util
import json
import os
import select
import sys
import traceback
from typing import Any

LENGTH = 4


def answer(path: str, *args: str) -> dict[str, Any]:
    """What the call brings: `out`, or the `errno` of an OSError, or what else it failed with."""
    try:
        return {"out": loaded(path).call(*args)}
    except OSError as error:
        return {"errno": error.errno or 0, "failed": str(error)}
    except Exception as error:  # noqa: BLE001 the agent is told of any failure, and its log of the place
        return {"failed": f"{type(error).__name__}: {error}", "place": traceback.format_exc()}


def loaded(path: str) -> Any:  # noqa: ANN401 - a module is known by what it holds
    """The module in that file, loaded once."""
    if path not in sys.modules:
        spec = importlib.util.spec_from_file_location(path, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        sys.modules[path] = module
    return sys.modules[path]


def main() -> None:
    """Serve the process that started this one."""
    asked, answered = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    # What a module prints is no answer.
    os.dup2(2, 1)
    # Nothing is asked before the last answer, so that nothing waits in the buffer.
    while select.select([asked], [], [], float(sys.argv[1]))[0] and len(header := asked.read(LENGTH)) == LENGTH:
        body = json.dumps(answer(*json.loads(asked.read(int.from_bytes(header, "big"))))).encode()
        answered.write(len(body).to_bytes(LENGTH, "big") + body)
        answered.flush()


if __name__ == "__main__":
    main()
