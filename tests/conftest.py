"""Settings for all tests."""

from hypothesis import settings

# A loaded machine must not fail a test; how fast things are is for the benchmarks.
settings.register_profile("barkd", deadline=None)
settings.load_profile("barkd")
