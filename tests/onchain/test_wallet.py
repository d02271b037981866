"""The wallet on the built-in node, over both kinds of chain source."""

from tests.onchain.wallet_cases import *  # noqa: F403
