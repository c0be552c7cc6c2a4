"""Requests to a NAS that make and change volumes. `del_zvol` is the seed's."""

from __future__ import annotations

from onelun.model import Attributes, Filesystem, Owner
from onelun.rpc.schema import Reply, Request


class CreateZvol(Request, tag="create_zvol", frozen=True):
    """Make an empty volume of `size_bytes`, formatted before anybody sees it when it is to have a `filesystem`.

    An equal one that exists is success; a different one is a conflict. A VM's volatile disk of an earlier life of the same ids
    is made anew unless it is complete and was never connected. `attributes` that the pool's kind cannot give are rejected.
    """

    zvol: str
    zpool: str
    size_bytes: int
    owner: Owner
    filesystem: Filesystem | None = None
    attributes: Attributes = Attributes()


class ZvolCreated(Reply, tag="zvol_created", frozen=True):
    """The volume is ready."""

    uuid: str
    size_bytes: int


class CloneZvol(Request, tag="clone_zvol", frozen=True):
    """Make `zvol` with the content of the volume `origin` of the same pool, grown to `size_bytes` when that is more.

    A VM's disk of an earlier life of the same ids is made anew unless it is complete and was never connected. What
    `attributes` do not ask for is the origin's; the size of its blocks always is, and asking for one is rejected.
    """

    zvol: str
    zpool: str
    origin: str
    owner: Owner
    size_bytes: int | None = None
    attributes: Attributes = Attributes()


class ZvolCloned(Reply, tag="zvol_cloned", frozen=True):
    """The clone is ready."""

    uuid: str
    size_bytes: int


class ResizeZvol(Request, tag="resize_zvol", frozen=True):
    """Make a volume `size_bytes` long, on the hosts that have it too. That size already: success; smaller: refused.

    With `cloud` it must be that cloud's. A target daemon that cannot grow what is in use has hosts let go of it for a moment;
    where a host has it open it is busy, and nothing is changed.
    """

    zvol: str
    size_bytes: int
    zpool: str | None = None
    uuid: str | None = None
    cloud: str | None = None


class ZvolResized(Reply, tag="zvol_resized", frozen=True):
    """The volume and its devices have the size."""

    uuid: str
    size_bytes: int


class DelZvol(Request, tag="del_zvol", frozen=True):
    """Erase a volume. An image of a cloud needs `owner` equal to the volume's own; it goes to the trash first.

    With the seed's field alone, what is attached, ambiguous between pools, or a cloud's image is refused.
    """

    zvol: str
    zpool: str | None = None
    uuid: str | None = None
    owner: Owner | None = None


class ZvolDeleted(Reply, tag="zvol_deleted", frozen=True):
    """The volume is out of sight."""


class AdoptZvol(Request, tag="adopt_zvol", frozen=True):
    """Make what lies in the pool's place as `zvol`, and is nobody's, the volume `name` of an image; its data is not touched.

    `owner` is an image of a cloud; without `image_id` it is whichever image has it as its SOURCE, and a repeat with one says
    which. Repeated it succeeds. What is open or mounted is busy, what is a volume already a conflict.
    """

    zvol: str
    zpool: str
    owner: Owner
    name: str | None = None


class ZvolAdopted(Reply, tag="zvol_adopted", frozen=True):
    """The volume is ready."""

    zvol: str
    uuid: str
    size_bytes: int


class ReleaseZvol(Request, tag="release_zvol", frozen=True):
    """Let go of an image's volume with its data: it is nobody's then. With a host or a snapshot it is a conflict.

    An absent volume is success.
    """

    zvol: str
    zpool: str
    cloud: str


class ZvolReleased(Reply, tag="zvol_released", frozen=True):
    """`name` is what it is called in the pool's place now; null when there was no such volume."""

    name: str | None


class SaveZvol(Request, tag="save_zvol", frozen=True):
    """Save a VM's disk over an image (3.4's save-as): detach it, copy it over `target`, then destroy the disk.

    An image is only copied, never destroyed. Repeated after success, it succeeds.
    """

    zvol: str
    zpool: str
    target: str
    cloud: str
    vm: int
    disk: int
    path: str
    remotehost: str | None = None


class ZvolSaved(Reply, tag="zvol_saved", frozen=True):
    """The image has the disk's content."""

    uuid: str
