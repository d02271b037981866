"""Connectors: upstream's transactions."""

from dataclasses import replace

import pytest

from barkd_py.ark.connectors import ConnectorChain, connector_forfeit_tx, connector_taproot, fan_out_tx
from barkd_py.ark.vtxo import Vtxo
from barkd_py.bitcoin.keys import PublicKey, SecretKey
from barkd_py.bitcoin.sighash import taproot_key_spend_sighash
from barkd_py.bitcoin.tx import OutPoint, TxOut
from tests.support.script_engine import is_spend_valid
from tests.support.vectors import Case, params


@pytest.mark.parametrize("case", params("connectors", kind="chain"))
def test_chains_are_upstream_s(case: Case) -> None:
    secret = SecretKey(bytes.fromhex(case["key"]["secret"]))
    taproot = connector_taproot(secret.public_key)
    assert taproot.script_pubkey.hex() == case["script_pubkey"]
    chain = ConnectorChain(case["len"], OutPoint.parse(case["utxo"]), taproot.script_pubkey)
    assert chain.budget_sat == case["required_budget"]
    assert [str(connector) for connector in chain.connectors] == case["connectors"]
    assert [tx.serialize().hex() for tx in chain.txs] == [tx["hex"] for tx in case["unsigned_txs"]]
    spender = secret.x_only_tweak_add(taproot.tweak)
    for index, tx in enumerate(chain.txs):
        spent = chain.spent_output(index)
        sighash = taproot_key_spend_sighash(tx, 0, (spent,))
        assert sighash.hex() == case["sighashes"][index]
        (tx_in,) = tx.inputs
        signed = replace(tx, inputs=(replace(tx_in, witness=(spender.sign_schnorr(sighash),)),))
        assert signed.weight_wu == case["signed_txs"][index]["weight"]
        assert is_spend_valid(signed, (spent,))


@pytest.mark.parametrize("case", params("connectors", kind="fanout"))
def test_fan_outs_are_upstream_s(case: Case) -> None:
    tx = fan_out_tx(OutPoint.parse(case["prev"]), bytes.fromhex(case["script_pubkey"]), case["nb_outputs"])
    assert tx.serialize().hex() == case["tx"]["hex"]
    assert str(tx.txid) == case["tx"]["txid"]


@pytest.mark.parametrize("case", params("forfeits", kind="connector-forfeit"))
def test_connector_forfeits_are_upstream_s(case: Case) -> None:
    vtxo = Vtxo.decode_hex(case["vtxo_hex"])
    tx = connector_forfeit_tx(vtxo, OutPoint.parse(case["connector"]))
    assert tx.serialize().hex() == case["unsigned_tx"]
    connector = connector_taproot(PublicKey.from_hex(case["connector_pubkey"]))
    prevouts = (vtxo.output, TxOut(330, connector.script_pubkey))
    assert taproot_key_spend_sighash(tx, 0, prevouts).hex() == case["sighash_vtxo_input"]
    assert taproot_key_spend_sighash(tx, 1, prevouts).hex() == case["sighash_connector_input"]


def test_no_chain_is_empty() -> None:
    with pytest.raises(ValueError, match="at least one connector"):
        ConnectorChain(0, OutPoint.parse("00" * 32 + ":0"), b"")
