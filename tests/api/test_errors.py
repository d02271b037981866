"""Errors of the wallet as answers, and what the log says of them."""

import pytest

from barkd_py.api.errors import error_reply
from barkd_py.errors import ServerRejected

PREIMAGE = "ab" * 32


def test_a_preimage_in_a_refusal_is_for_the_client_and_not_for_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    words = f"invoice has already been paid, preimage: {PREIMAGE}"
    reply = error_reply(ServerRejected(words), "POST", "/api/v1/lightning/pay")
    assert reply.status == 500
    assert PREIMAGE in str(reply)
    assert "POST /api/v1/lightning/pay failed with 500 Internal Server Error: invoice has" in caplog.text
    assert PREIMAGE not in caplog.text
