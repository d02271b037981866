"""Reading a mailbox page by page."""

from typing import Any

from barkd_py.ark.mailbox import MailboxAuthorization
from barkd_py.bitcoin.keys import PublicKey, SecretKey
from barkd_py.server_rpc.api import MailboxMessage, MailboxPage, UnknownMessage
from barkd_py.wallet.mailbox.pages import READ_AUTHORIZATION_SECONDS, MailboxReader

KEY = SecretKey(bytes([7] * 32))


class SlowServer:
    """Has three messages, gives one at a time, and takes an hour for each page."""

    def __init__(self) -> None:
        self.now = 1_000_000.5
        self.authorized: list[tuple[float, MailboxAuthorization]] = []

    async def read_mailbox(self, mailbox_id: PublicKey, authorization: bytes, checkpoint: int) -> MailboxPage:
        assert mailbox_id == KEY.public_key
        self.authorized.append((self.now, MailboxAuthorization.decode(authorization)))
        self.now += 3_600
        messages = () if checkpoint == 3 else (MailboxMessage(checkpoint + 1, UnknownMessage()),)
        return MailboxPage(messages, have_more=False)


async def test_each_read_is_authorized_at_its_moment() -> None:
    """What is signed once would have run out before the last page."""
    server = SlowServer()
    asked: Any = server
    reader = MailboxReader(asked, KEY, now=lambda: server.now)
    assert [message.checkpoint async for page in reader.read(0) for message in page] == [1, 2, 3]
    assert len(server.authorized) == 4
    for moment, authorization in server.authorized:
        assert authorization.expiry == int(moment) + READ_AUTHORIZATION_SECONDS
        assert authorization.is_valid_signature()
