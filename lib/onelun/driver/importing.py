"""cp."""

from onelun.driver.running import Run
from onelun.errors import Rejected


async def cp(run: Run) -> str:
    """Register."""
    raise Rejected("not yet")
