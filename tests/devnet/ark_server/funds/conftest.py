"""The server and the users of the rounds' tests: it has money, they have VTXOs."""

from tests.devnet.ark_server.rounds.conftest import alice, bob, connect, server, settings

__all__ = ["alice", "bob", "connect", "server", "settings"]
