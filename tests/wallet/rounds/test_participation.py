from barkd_py.ark.vtxo import Vtxo
from barkd_py.bitcoin.keys import PublicKey
from barkd_py.wallet.rounds.participation import has_counterparty_risk
from tests.ark.test_vtxo import user_vtxo


def test_a_coin_whose_history_others_signed_is_at_risk() -> None:
    board, payment = user_vtxo("board"), user_vtxo("arkoor-checkpoint-out0")
    change = user_vtxo("arkoor-checkpoint-out1-change")
    alice, receiver = board.user_pubkey, payment.user_pubkey

    def risk(vtxo: Vtxo, *ours: PublicKey) -> bool:
        return has_counterparty_risk(vtxo, ours)

    assert not risk(board, alice)
    assert risk(board, receiver)
    # The sender signed the payment, so only the sender is safe.
    assert risk(payment, receiver)
    assert not risk(payment, receiver, alice)
    assert not risk(change, change.user_pubkey, alice)
