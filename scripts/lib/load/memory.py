"""Many requests, and the memory of each resident process meanwhile.

The actions are handed to the frontend's socket as the stub hands them in, but by this process alone: stubs keep no memory.
"""

from __future__ import annotations

import asyncio
import base64
import uuid
from collections.abc import Mapping, Sequence
from functools import partial

from scripts.lib.load.report import Report
from scripts.lib.load.site import Site, site
from scripts.lib.oned import Image

from onelun.frontend.framing import frame, read_frame

AT_ONCE = 16
# A look at the datastore, an image made, another look, the image removed; now and then its disk goes to a host and back.
_REQUESTS_A_LIFE = 4
_ATTACH_EVERY = 50
MIB = 1 << 20
MOST_GROWTH = 0.05
# A tenth of the requests until caches are full, as the 5,000 of 50,000.
_WARM = 10
_LOOKS = 10


class FailedError(Exception):
    """An action failed."""


async def act(at: Site, action: str, argv: Sequence[str], stdin: str = "") -> None:
    """Hand an action in, and see it succeed."""
    reader, writer = await asyncio.open_unix_connection(at.place.frontend_socket)
    try:
        call = b"\0".join(word.encode() for word in ("1", str(uuid.uuid4()), "0", action, *argv))
        writer.write(
            frame(b"C", call) + (frame(b"I", base64.b64encode(stdin.encode())) if stdin else b"") + frame(b"G", b"")
        )
        said: dict[bytes, bytes] = {}
        while b"S" not in said:
            kind, payload = await read_frame(reader)
            said[kind] = said.get(kind, b"") + payload
    finally:
        writer.close()
    if said[b"S"] != b"0":
        raise FailedError(f"{action} {' '.join(argv)}: {said.get(b'E', b'').decode(errors='replace').strip()}")


async def _life(at: Site, number: int) -> None:
    image = Image(number, "for a moment", 16, persistent=True, source=f"nas1/tank/one-{number}")
    document = partial(at.oned.document, image)
    await act(at, "datastore/monitor", ["102"], at.oned.document(None))
    await act(at, "datastore/mkfs", [str(number)], document())
    if number % _ATTACH_EVERY == 0:
        disk = at.at("host01", number, 0)
        await act(at, "tm/ln", [f"frontend:{image.source}", disk, str(number), "102"])
        await act(at, "tm/mvds", [disk, image.source, str(number), "102"])
        await act(at, "tm/delete", [at.at("host01", number), str(number), "103"])
    await act(at, "datastore/monitor", ["102"], at.oned.document(None))
    await act(at, "datastore/rm", [str(number)], document())


async def _lives(at: Site, numbers: Sequence[int]) -> list[str]:
    """Live them, AT_ONCE beside each other; what failed."""
    left, failures = list(reversed(numbers)), []

    async def one_after_the_other() -> None:
        while left:
            try:
                await _life(at, left.pop())
            except (FailedError, OSError, asyncio.IncompleteReadError) as error:
                failures.append(str(error))

    await asyncio.gather(*(one_after_the_other() for _ in range(AT_ONCE)))
    return failures


def run(report: Report, requests: int) -> None:
    """All of it."""
    report.begin("memory")
    lives = max(_LOOKS, requests // _REQUESTS_A_LIFE)
    step = lives // _LOOKS
    with site(report) as at:
        failures: list[str] = []
        first = at.held()
        for number in range(_LOOKS):
            failures += asyncio.run(_lives(at, range(1 + number * step, 1 + (number + 1) * step)))
            now = at.held()
            if (number + 1) * _WARM // _LOOKS == 1:
                first = now
            told = ", ".join(f"{role} {size / MIB:.1f}" for role, size in now.memory.items())
            report.say(f"{(number + 1) * step * _REQUESTS_A_LIFE} requests; MiB: {told}; {len(failures)} failed")
        for sentence in failures[:10]:
            report.say(sentence)
        asked = step * _LOOKS * _REQUESTS_A_LIFE
        report.row(f"{asked} actions, {AT_ONCE} at once", f"{len(failures)} failed", "none failed", met=not failures)
        grown(report, first.memory, at.held().memory, MOST_GROWTH)
        report.left(at.left())


def grown(report: Report, before: Mapping[str, int], after: Mapping[str, int], most: float) -> None:
    """Tell how much more memory each role has than before."""
    for role, size in after.items():
        growth = size / before[role] - 1
        figure = f"{before[role] / MIB:.1f} MiB, then {size / MIB:.1f} MiB ({100 * growth:+.1f} %)"
        report.row(
            f"memory of {role} after a tenth, and at the end", figure, f"< {100 * most:+.0f} %", met=growth < most
        )
