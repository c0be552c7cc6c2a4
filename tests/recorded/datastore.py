"""Actions on images and datastores."""

from __future__ import annotations

from tests.recorded.cloud import BASE, Image, Scribble, Step
from tests.recorded.row import ASKING, NAS, ONE, PROLOG, SPACE, Action, same


def _snapshots(*numbers: int) -> tuple[Step, ...]:
    """Image 4 with those snapshots, each of another content, that were taken while a VM had it."""
    steps: tuple[Step, ...] = (Image(4, 128), f"LN onelun vm:onelun/one-4 {ONE}/disk.1 0 102")
    for number in numbers:
        steps += (f"SNAP_CREATE onelun {ONE}/disk.1 {number} 0 102", Scribble("one-4", draft=number + 1))
    return (*steps, f"MVDS onelun {ONE}/disk.1 onelun/one-4 0 102")


DATASTORE = (
    Action(
        "datastore.cp",
        lambda s: s.volume("one-3", 64, holds=BASE),
        prints="nas1/tank/one-3 raw\n",
        kills=ASKING,
    ),
    Action("datastore.mkfs", lambda s: s.volume("one-9", 100), prints="nas1/tank/one-9\n", kills=ASKING),
    Action(
        "datastore.clone",
        lambda s: s.volume("one-13", 64, like="one-3"),
        before=(Image(3, 64),),
        prints="nas1/tank/one-13 raw\n",
        kills=ASKING,
    ),
    Action("datastore.rm", lambda s: s.without("one-13"), before=(Image(3, 64), Image(13, 64)), kills=ASKING),
    Action("datastore.stat", same, prints="64\n"),
    Action("datastore.monitor", same, prints=SPACE),
    Action(
        "datastore.snap_delete",
        lambda s: s.without_snapshots("one-4", 0),
        before=_snapshots(0),
        vm=PROLOG,
        kills=(NAS,),
    ),
    Action(
        "datastore.snap_revert",
        lambda s: s.reverted("one-4", 2),
        before=_snapshots(2),
        vm=PROLOG,
        kills=(NAS,),
    ),
    Action(
        "datastore.snap_flatten",
        lambda s: s.reverted("one-4", 2).without_snapshots("one-4", 0, 2),
        before=_snapshots(0, 2),
        vm=PROLOG,
        kills=ASKING,
    ),
)
