"""Settings for all tests."""

import os

from hypothesis import HealthCheck, settings

# The core of gRPC reads this once; by default it writes to stderr when the servers of tests stop.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

# A loaded machine must not fail a test; how fast things are is for the benchmarks.
settings.register_profile("barkd", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("barkd")

# A run that logs a secret anywhere has failed.
pytest_plugins = ("tests.support.secret_watch",)
