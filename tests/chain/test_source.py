"""Both kinds of chain source on the built-in node; the same cases run on a real one in tests/interop."""

from tests.chain.source_cases import *  # noqa: F403
