"""stat."""

from onelun.driver.running import Run
from onelun.errors import Rejected


async def stat(run: Run) -> str:
    """Register."""
    raise Rejected("not yet")
