"""What a backend says of its pool before anything is done with it."""

import pytest
from tests.support.pools import AGENT, CLOUD, OTHER_AGENT, OTHER_CLOUD, ready


async def expected(pool):
    """What is to be said of a pool in which nothing is wrong: the machine's own filesystem may be nearly full."""
    capacity = await pool.backend.capacity()
    return 1 if capacity.free_bytes < 0.15 * capacity.total_bytes else 0


async def test_of_a_pool_in_order_nothing_is_said(medium):
    assert len(await medium.backend.check(AGENT, CLOUD)) == await expected(medium)

    await medium.backend.open(AGENT, CLOUD)

    assert len(await medium.backend.check(AGENT, CLOUD)) == await expected(medium)


async def test_checking_changes_nothing(medium):
    await medium.backend.check(AGENT, CLOUD)

    await medium.again().open(OTHER_AGENT, OTHER_CLOUD)


async def test_another_agents_pool_is_named(pool):
    found = await pool.again().check(OTHER_AGENT, CLOUD)

    assert len(found) == 1 + await expected(pool)
    assert AGENT in found[0]
    assert "take-pool" in found[0]


async def test_another_clouds_pool_is_named(pool):
    await ready(pool, "one-1")

    found = await pool.again().check(AGENT, OTHER_CLOUD)

    assert len(found) == 1 + await expected(pool)
    assert CLOUD in found[0]


async def test_each_thing_that_is_broken_is_one_sentence(pool):
    await ready(pool, "one-1")
    ways = pool.broken()
    assert ways

    for words, broken in ways:
        with broken:
            found = await pool.again().check(AGENT, CLOUD)
            assert len(found) == 1, words
            assert words in found[0]
            assert "\n" not in found[0]
        assert len(await pool.again().check(AGENT, CLOUD)) == await expected(pool), words


async def test_what_check_says_of_a_foreign_pool_is_what_open_raises(pool):
    (said, *_) = await pool.again().check(OTHER_AGENT, CLOUD)

    with pytest.raises(Exception, match="take-pool") as caught:
        await pool.again().open(OTHER_AGENT, CLOUD)

    assert str(caught.value) == said
