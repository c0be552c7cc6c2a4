from __future__ import annotations

import pytest

from onelun.driver.attributes import Where, needs_of, of_disk, of_image, read
from onelun.driver.document import Datastore, Image, VmDisk
from onelun.driver.pools import pools_for
from onelun.errors import Rejected
from onelun.model import Attributes, Provisioning, Wipe

KIB = 1 << 10


def image(**attributes: str) -> Image:
    named = {f"ONELUN_{name}": text for name, text in attributes.items()}
    return Image(7, 1, "", "", "raw", "", 1, False, {}, attributes=named)


def datastore(pools: str = "nas1/tank nas2/tank", **attributes: str) -> Datastore:
    named = {"ONELUN_POOLS": pools} | {f"ONELUN_{name}": text for name, text in attributes.items()}
    return Datastore(102, "fast", pools, (), (), False, named)


@pytest.mark.parametrize(
    ("name", "text", "asked"),
    [
        ("VOLBLOCKSIZE", "64K", Attributes(volblocksize_bytes=64 * KIB)),
        ("VOLBLOCKSIZE", "1m", Attributes(volblocksize_bytes=KIB * KIB)),
        ("VOLBLOCKSIZE", "512", Attributes(volblocksize_bytes=512)),
        ("COMPRESSION", "ZSTD-3", Attributes(compression="zstd-3")),
        ("COMPRESSION", "off", Attributes(compression="off")),
        ("PROVISIONING", "Thick", Attributes(provisioning=Provisioning.THICK)),
        ("WIPE", "zero", Attributes(wipe=Wipe.ZERO)),
    ],
)
def test_each_attribute_is_read(name: str, text: str, asked: Attributes) -> None:
    assert of_image(image(**{name: text}), datastore()) == asked
    assert of_image(image(), datastore(**{name: text})) == asked


def test_an_image_s_own_wins_over_its_datastore_s_one_by_one() -> None:
    asked = of_image(image(WIPE="none", COMPRESSION="off"), datastore(WIPE="zero", PROVISIONING="thick"))

    assert asked == Attributes(compression="off", provisioning=Provisioning.THICK, wipe=Wipe.NONE)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("VOLBLOCKSIZE", "48K", "it should be a power of two from 512 bytes to 1M, such as 16K"),
        ("VOLBLOCKSIZE", "256", "it should be a power of two"),
        ("VOLBLOCKSIZE", "2M", "it should be a power of two"),
        ("VOLBLOCKSIZE", "16 K", "it should be a power of two"),
        ("VOLBLOCKSIZE", "-16K", "it should be a power of two"),
        ("VOLBLOCKSIZE", "9" * 99, "it should be a power of two"),
        ("COMPRESSION", "bzip2", "it should be on, off, lz4, lzjb, zle, gzip, gzip-N, zstd, zstd-N or zstd-fast-N"),
        ("COMPRESSION", "lz4 -o x=y", "it should be on, off"),
        ("COMPRESSION", "zstd-20", "it should be on, off"),
        ("PROVISIONING", "fat", "it should be thin or thick"),
        ("WIPE", "yes", "it should be none or discard or zero"),
    ],
)
def test_a_value_that_cannot_be_is_named_with_what_it_should_be(name: str, text: str, said: str) -> None:
    with pytest.raises(Rejected) as of_the_image:
        of_image(image(**{name: text}), datastore())
    with pytest.raises(Rejected) as of_the_datastore:
        of_image(image(), datastore(**{name: text}))

    assert of_the_image.value.sentence.startswith(f"ONELUN_{name} of image 7 is {text[:40]!r}: {said}")
    assert of_the_datastore.value.sentence.startswith(f"ONELUN_{name} of datastore fast is {text[:40]!r}: {said}")


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("ONELUN_COMPRESION", "ONELUN_COMPRESSION"),
        ("ONELUN_POOL", "ONELUN_POOLS"),
        ("ONELUN_THICK_PROVISIONING", "ONELUN_PROVISIONING"),
        ("ONELUN_BLOCKSIZE", "ONELUN_VOLBLOCKSIZE"),
        ("ONELUN_WIPED", "ONELUN_WIPE"),
    ],
)
def test_an_unknown_attribute_is_an_error_that_names_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(Rejected, match=f"datastore fast has the attribute {name}, .*: did you mean {nearest}\\?$"):
        read({name: "x"}, Where.DATASTORE, "datastore fast")


def test_an_unknown_attribute_like_none_of_ours_is_an_error_too() -> None:
    with pytest.raises(Rejected, match="did you mean ONELUN_"):
        read({"ONELUN_": "x"}, Where.IMAGE, "image 7")
    with pytest.raises(Rejected, match="did you mean ONELUN_"):
        read({"ONELUN_" + "Ж" * 500: "x"}, Where.IMAGE, "image 7")


def test_what_is_opennebula_s_own_is_nobody_s_error() -> None:
    assert read({"DRIVER": "raw", "DISK_TYPE": "BLOCK"}, Where.DATASTORE, "datastore fast") == Attributes()


@pytest.mark.parametrize(
    ("name", "where", "places"),
    [
        ("ONELUN_POOLS", Where.CLONED, "datastores and images"),
        ("ONELUN_POOLS", Where.VOLATILE, "datastores and images"),
        ("ONELUN_VOLBLOCKSIZE", Where.CLONED, "datastores and images and volatile disks"),
    ],
)
def test_an_attribute_where_it_means_nothing_is_an_error(name: str, where: Where, places: str) -> None:
    disk = VmDisk(3, "nas1/tank/one-7", True, False, 1, 1, attributes={name: "64K"})

    with pytest.raises(Rejected, match=f"disk 3 has {name}, which is for {places}: take it out"):
        of_disk(disk, where)


def test_a_disk_that_oned_does_not_know_asks_for_nothing() -> None:
    assert of_disk(None, Where.CLONED) == Attributes()


def test_an_agent_is_asked_whether_it_knows_attributes_only_when_there_are_some() -> None:
    assert needs_of(Attributes()) == ()
    assert needs_of(Attributes(wipe=Wipe.NONE)) == ("attributes",)


def test_an_image_may_name_some_of_its_datastore_s_pools_and_no_others() -> None:
    assert pools_for(image(), datastore()) == [("nas1", "tank"), ("nas2", "tank")]
    assert pools_for(image(POOLS="nas2/tank"), datastore()) == [("nas2", "tank")]
    with pytest.raises(Rejected, match="ONELUN_POOLS of image 7 has nas3/tank, which its datastore fast does not have"):
        pools_for(image(POOLS="nas2/tank, nas3/tank"), datastore())
    with pytest.raises(Rejected, match="ONELUN_POOLS of image 7 has 'tank': it should be NAS/POOL"):
        pools_for(image(POOLS="tank"), datastore())
