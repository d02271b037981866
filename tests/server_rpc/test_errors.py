"""How a failed call reads to the daemon's clients: as in the answers of the real barkd."""

import grpc
import pytest

from barkd_py.errors import ServerRejected, ServerUnavailable
from barkd_py.server_rpc.errors import translate


def _failure(code: grpc.StatusCode, details: str) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details=details)


@pytest.mark.parametrize(
    ("code", "details", "text"),
    [
        # Recorded from barkd 0.8.0.
        (
            grpc.StatusCode.INTERNAL,
            "no active hold-compatible cln node",
            "code: 'Internal error', message: \"no active hold-compatible cln node\"",
        ),
        (grpc.StatusCode.UNAVAILABLE, "", "code: 'The service is currently unavailable'"),
        (
            grpc.StatusCode.OUT_OF_RANGE,
            'a "quoted" é',
            'code: \'Operation was attempted past the valid range\', message: "a \\"quoted\\" é"',
        ),
    ],
)
def test_a_status_reads_as_barkds_clients_know_it(code: grpc.StatusCode, details: str, text: str) -> None:
    error = translate(_failure(code, details), "SomeCall")
    assert isinstance(error, ServerUnavailable)
    assert str(error) == text


@pytest.mark.parametrize("code", list(grpc.StatusCode))
def test_every_status_has_its_words(code: grpc.StatusCode) -> None:
    text = str(translate(_failure(code, "why"), "SomeCall"))
    assert text.startswith("code: '")
    assert ("Unknown error" in text) == (code is grpc.StatusCode.UNKNOWN)


def test_a_refusal_stays_one() -> None:
    error = translate(_failure(grpc.StatusCode.NOT_FOUND, "x"), "SomeCall")
    assert isinstance(error, ServerRejected)


def test_a_preimage_that_the_server_says_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    preimage = "ab" * 32
    failure = _failure(grpc.StatusCode.INVALID_ARGUMENT, f"this payment has completed. preimage: {preimage}")
    assert preimage in str(translate(failure, "SomeCall"))  # it is a proof of payment, and read from there
    assert "this payment has completed" in caplog.text
    assert preimage not in caplog.text
