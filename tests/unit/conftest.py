"""For all unit tests: what is drawn is the same each time, and no machine is too slow for it."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "onelun", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("onelun")
