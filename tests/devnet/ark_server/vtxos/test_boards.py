"""Boards over real gRPC: every check with its code and text. Source: sheet 10 §6.2."""

import dataclasses
from pathlib import Path

import pytest

from barkd_py.ark.board import finish_board
from barkd_py.ark.cosign import BadCosignature
from barkd_py.ark.policy import ExpiryPolicy
from barkd_py.ark.vtxo import VtxoId
from barkd_py.bitcoin.tx import OutPoint, Tx, Txid, TxIn
from barkd_py.devnet.ark_server.settings import ServerSettings
from barkd_py.devnet.ark_server.states import SpendState
from barkd_py.server_rpc.protos import bark_server_pb2 as pb
from tests.devnet.ark_server.client import BOARD_SAT, INVALID, Client, Refusal, bad
from tests.devnet.ark_server.conftest import StartServer
from tests.fakes.server_chain import FakeServerChain


async def test_board_is_cosigned_registered_and_spendable(alice: Client) -> None:
    vtxo = await alice.board()
    assert vtxo.amount_sat == BOARD_SAT - 330
    assert await alice.spend_state(vtxo.id) == pb.VTXO_SPEND_STATE_SPENDABLE
    row = await alice.server.vtxo_row(vtxo.id)
    assert (row.state, row.confirmed_height) == (SpendState.SPENDABLE, None)
    (exit_tx,) = vtxo.exit_transactions()
    funding = await alice.server.vtxo_row(VtxoId.of(vtxo.anchor_point))
    assert isinstance(funding.vtxo.policy, ExpiryPolicy)
    assert (funding.vtxo.amount_sat, funding.spent_by) == (BOARD_SAT, exit_tx.txid)
    assert funding.state is SpendState.SPENT
    assert funding.confirmed_height is not None


async def test_each_cosignature_has_its_own_nonce_and_is_valid(alice: Client) -> None:
    board = await alice.prepare_board()
    first = await alice.call(alice.ark.RequestBoardCosign, board.request)
    second = await alice.call(alice.ark.RequestBoardCosign, board.request)
    assert first.pub_nonce != second.pub_nonce
    vtxo = finish_board(
        board.template, alice.secret, board.sec_nonce, board.pub_nonce, second.pub_nonce, second.partial_sig
    )
    assert vtxo.is_fully_signed


async def test_server_signs_for_its_own_fee_only(alice: Client) -> None:
    board = await alice.prepare_board(fee_sat=0)
    answer = await alice.call(alice.ark.RequestBoardCosign, board.request)
    with pytest.raises(BadCosignature):
        finish_board(
            board.template,
            alice.secret,
            board.sec_nonce,
            board.pub_nonce,
            answer.pub_nonce,
            answer.partial_sig,
        )


@pytest.mark.parametrize(
    ("metadata", "text"),
    [
        ((), "missing pver header"),
        ((("pver", "five"),), "invalid protocol version header"),
        ((("pver", "-1"),), "invalid protocol version header"),
        (
            (("pver", "3"),),
            "bad user input: Your client version is too old, "
            "you need to update in order to be able to board.",
        ),
    ],
)
async def test_protocol_version_is_looked_at_first(
    alice: Client, metadata: tuple[tuple[str, str], ...], text: str
) -> None:
    refusal = await alice.refusal(alice.ark.RequestBoardCosign, pb.BoardCosignRequest(), metadata)
    assert refusal == Refusal(INVALID, text, None)


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("user_pubkey", b"\x02" * 32, "invalid public key"),
        ("user_pubkey", b"\x02" + b"\xff" * 32, "invalid public key"),
        (
            "expiry_height",
            499_934_468,
            "expiry_height: invalid policy data: block height exceeds maximum value",
        ),
        ("utxo", bytes(35), "invalid outpoint"),
        ("pub_nonce", bytes(66), "invalid public musig nonce"),
        ("pub_nonce", b"", "invalid public musig nonce"),
        ("funding_tx", b"\x02", "invalid bitcoin transaction"),
        ("funding_tx", b"", "invalid bitcoin transaction"),
    ],
)
async def test_malformed_fields_are_named(alice: Client, field: str, value: object, text: str) -> None:
    board = await alice.prepare_board()
    setattr(board.request, field, value)
    refusal = await alice.refusal(alice.ark.RequestBoardCosign, board.request)
    assert refusal == Refusal(INVALID, text, None)


async def test_amount_must_reach_the_minimum(alice: Client) -> None:
    board = await alice.prepare_board(19_999)
    refusal = await alice.refusal(alice.ark.RequestBoardCosign, board.request)
    assert refusal == bad("board amount must be at least 0.00020000 BTC")


async def test_dust_is_refused_whatever_the_minimum(
    start_server: StartServer, chain: FakeServerChain
) -> None:
    server = await start_server(ServerSettings(min_board_amount_sat=0))
    async with Client(server, chain) as alice:
        board = await alice.prepare_board()
        board.request.amount = 329
        refusal = await alice.refusal(alice.ark.RequestBoardCosign, board.request)
        assert refusal == bad("board amount must be at least 0.00000330 BTC")
        board.request.amount = 330
        refusal = await alice.refusal(alice.ark.RequestBoardCosign, board.request)
        assert refusal.code == INVALID
        assert refusal.text.startswith("bad user input: Board amount cannot support required fee: ")


async def test_amount_must_not_pass_the_maximum(start_server: StartServer, chain: FakeServerChain) -> None:
    server = await start_server(ServerSettings(max_vtxo_amount_sat=200_000_000))
    async with Client(server, chain) as alice:
        board = await alice.prepare_board(200_000_001)
        refusal = await alice.refusal(alice.ark.RequestBoardCosign, board.request)
        assert refusal == bad("board amount exceeds limit of 2 BTC")


async def test_fee_overflow_is_internal(alice: Client) -> None:
    board = await alice.prepare_board()
    board.request.amount = 2**64 - 1
    settings = alice.server.settings
    overflowing = dataclasses.replace(settings.fees.board, base_fee_sat=2**64 - 1)
    object.__setattr__(settings, "fees", dataclasses.replace(settings.fees, board=overflowing))
    refusal = await alice.refusal(alice.ark.RequestBoardCosign, board.request)
    assert refusal == Refusal("INTERNAL", "fee overflowed", None)


async def test_expiry_must_lie_between_the_tip_and_the_lifetime(alice: Client) -> None:
    board = await alice.prepare_board()
    tip = (await alice.chain.tip()).height
    lifetime = alice.server.settings.vtxo_lifetime

    board.request.expiry_height = tip - 1
    refusal = await alice.refusal(alice.ark.RequestBoardCosign, board.request)
    assert refusal == bad(f"VTXO already expired: {tip - 1} (tip = {tip})")

    board.request.expiry_height = tip + lifetime + 4
    refusal = await alice.refusal(alice.ark.RequestBoardCosign, board.request)
    assert refusal == bad(
        f"requested VTXO lifetime {lifetime + 4} is too high (server VTXO lifetime is {lifetime})"
    )

    for expiry in (tip, tip + lifetime + 3):
        board.request.expiry_height = expiry
        await alice.call(alice.ark.RequestBoardCosign, board.request)


async def test_funding_transaction_must_have_few_inputs(alice: Client) -> None:
    board = await alice.prepare_board()
    inputs = tuple(TxIn(OutPoint(Txid(bytes(32)), vout)) for vout in range(101))
    board.request.funding_tx = Tx(2, inputs, board.funding_tx.outputs).serialize()
    refusal = await alice.refusal(alice.ark.RequestBoardCosign, board.request)
    assert refusal == bad("invalid funding tx: too many inputs (max is 100)")


async def test_funding_transaction_must_be_that_of_the_outpoint(alice: Client) -> None:
    board = await alice.prepare_board()
    board.request.utxo = board.funding_tx.outpoint(1).to_bytes()
    refusal = await alice.refusal(alice.ark.RequestBoardCosign, board.request)
    assert refusal == bad("board outpoint does not match funding tx (vout)")
    board.request.utxo = OutPoint(Txid(b"\x07" * 32), 0).to_bytes()
    refusal = await alice.refusal(alice.ark.RequestBoardCosign, board.request)
    assert refusal == bad("board outpoint does not match funding tx (txid)")


async def test_virtual_transactions_fund_no_board(alice: Client) -> None:
    vtxo = await alice.board()
    (exit_tx,) = vtxo.exit_transactions()
    board = await alice.prepare_board()
    board.request.funding_tx = exit_tx.serialize_without_witness()
    board.request.utxo = exit_tx.outpoint(0).to_bytes()
    refusal = await alice.refusal(alice.ark.RequestBoardCosign, board.request)
    text = f"tx body error: bad user input: invalid funding tx: known as virtual tx: {exit_tx.txid}"
    assert refusal == Refusal(INVALID, text, None)


async def test_vtxos_fund_no_board(alice: Client) -> None:
    vtxo = await alice.board()
    board = await alice.prepare_board()
    funding_tx = Tx(2, (TxIn(vtxo.point),), board.funding_tx.outputs)
    board.request.funding_tx = funding_tx.serialize()
    board.request.utxo = funding_tx.outpoint(0).to_bytes()
    refusal = await alice.refusal(alice.ark.RequestBoardCosign, board.request)
    text = f"tx body error: bad user input: invalid funding tx: input is a VTXO: {vtxo.id}"
    assert refusal == Refusal(INVALID, text, None)


async def test_inputs_of_the_funding_transaction_must_be_known(alice: Client) -> None:
    board = await alice.prepare_board()
    unknown = Txid(b"\x09" * 32)
    funding_tx = Tx(2, (TxIn(OutPoint(unknown, 0)),), board.funding_tx.outputs)
    board.request.funding_tx = funding_tx.serialize()
    board.request.utxo = funding_tx.outpoint(0).to_bytes()
    refusal = await alice.refusal(alice.ark.RequestBoardCosign, board.request)
    assert refusal == bad(f"invalid funding tx: unknown input tx {unknown}")


async def test_funding_transaction_is_ignored_where_it_is_not_required(
    start_server: StartServer, chain: FakeServerChain
) -> None:
    server = await start_server(ServerSettings(require_board_funding_tx=False))
    async with Client(server, chain) as alice:
        board = await alice.prepare_board()
        board.request.funding_tx = b"nonsense"
        answer = await alice.ark.RequestBoardCosign(board.request, metadata=(("pver", "1"),))
        assert len(answer.partial_sig) == 32


# --- registration


def board_request(encoded: bytes) -> pb.BoardVtxoRequest:
    return pb.BoardVtxoRequest(board_vtxo=encoded)


async def test_undecodable_board_says_why(alice: Client) -> None:
    refusal = await alice.refusal(alice.ark.RegisterBoardVtxo, board_request(b"\x02"))
    text = "invalid vtxo: I/O error: failed to fill whole buffer"
    assert refusal == Refusal(INVALID, text, None)


async def test_board_needs_its_funding_transaction_confirmed(
    start_server: StartServer, chain: FakeServerChain
) -> None:
    server = await start_server(ServerSettings(required_board_confirmations=3))
    async with Client(server, chain) as alice:
        vtxo, funding_tx = await alice.signed_board()
        request = board_request(vtxo.encode())

        refusal = await alice.refusal(alice.ark.RegisterBoardVtxo, request)
        assert refusal == Refusal("INTERNAL", f"funding tx not found: {funding_tx.txid}", None)
        chain.add_to_mempool(funding_tx)
        refusal = await alice.refusal(alice.ark.RegisterBoardVtxo, request)
        assert refusal == Refusal("INTERNAL", "board funding tx still unconfirmed", None)
        chain.mine(funding_tx)
        refusal = await alice.refusal(alice.ark.RegisterBoardVtxo, request)
        assert refusal == bad(f"funding tx has 1 confirmations, requires 3: {vtxo.id}")
        chain.mine(count=2)
        await alice.call(alice.ark.RegisterBoardVtxo, request)
        assert await alice.spend_state(vtxo.id) == pb.VTXO_SPEND_STATE_SPENDABLE


async def test_board_whose_funding_output_is_spent_is_refused(alice: Client) -> None:
    vtxo, funding_tx = await alice.signed_board()
    alice.chain.mine(funding_tx)
    alice.chain.add_to_mempool(vtxo.exit_transactions()[0])
    refusal = await alice.refusal(alice.ark.RegisterBoardVtxo, board_request(vtxo.encode()))
    assert refusal == bad("VTXO funding output is already spent, user exit in progress")


async def test_unsigned_board_is_refused(alice: Client) -> None:
    board = await alice.prepare_board()
    alice.chain.mine(board.funding_tx)
    unsigned = board.template.unsigned_vtxo.encode()
    refusal = await alice.refusal(alice.ark.RegisterBoardVtxo, board_request(unsigned))
    assert refusal.code == INVALID
    assert refusal.text.startswith("bad user input: invalid vtxo: ")
    assert refusal.text.endswith("missing cosigned signature")


async def test_payment_is_no_board(alice: Client) -> None:
    vtxo = await alice.board()
    (paid,) = await alice.pay([vtxo], (vtxo.amount_sat, alice.policy))
    refusal = await alice.refusal(alice.ark.RegisterBoardVtxo, board_request(paid.encode()))
    assert refusal.code == INVALID
    assert refusal.text.startswith("bad user input: vtxo is not a board: ")


async def test_registering_a_board_again_changes_nothing(alice: Client) -> None:
    vtxo = await alice.board()
    (paid,) = await alice.pay([vtxo], (vtxo.amount_sat, alice.policy))
    await alice.call(alice.ark.RegisterBoardVtxo, board_request(vtxo.encode()))
    assert await alice.spend_state(vtxo.id) == pb.VTXO_SPEND_STATE_SPENT
    assert await alice.spend_state(paid.id) == pb.VTXO_SPEND_STATE_SPENDABLE


async def test_keys_and_books_survive_a_restart(
    start_server: StartServer, chain: FakeServerChain, tmp_path: Path
) -> None:
    server = await start_server(ServerSettings())
    async with Client(server, chain) as alice:
        vtxo = await alice.board()
        await server.stop()
    mnemonic = tmp_path / "ark" / "mnemonic"
    assert mnemonic.stat().st_mode & 0o777 == 0o600
    assert mnemonic.parent.stat().st_mode & 0o777 == 0o700
    again = await start_server(ServerSettings())
    assert again.keys.server_pubkey == server.keys.server_pubkey
    assert again.keys.mailbox_pubkey == server.keys.mailbox_pubkey
    assert (await again.vtxo_row(vtxo.id)).state is SpendState.SPENDABLE
