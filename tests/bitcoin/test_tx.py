"""Transactions, held against python-bitcoinlib; units."""

import dataclasses

import bitcoin.core
import pytest
from hypothesis import given
from hypothesis import strategies as st

from barkd_py.bitcoin.sighash import taproot_key_spend_sighash
from barkd_py.bitcoin.tx import OutPoint, Tx, TxDecodeError, Txid, TxIn, TxOut, fee_anchor
from barkd_py.bitcoin.units import BlockRef, FeeRate, Network, format_btc
from tests.support.vectors import cases, load

txids = st.binary(min_size=32, max_size=32).map(Txid)
outpoints = st.builds(OutPoint, txids, st.integers(0, 2**32 - 1))
witnesses = st.lists(st.binary(max_size=300), max_size=3).map(tuple)
inputs = st.builds(TxIn, outpoints, st.binary(max_size=30), st.integers(0, 2**32 - 1), witnesses)
outputs = st.builds(TxOut, st.integers(0, 2**63 - 1), st.binary(max_size=300))
transactions = st.builds(
    Tx,
    st.integers(0, 2**31 - 1),
    st.lists(inputs, min_size=1, max_size=3).map(tuple),
    st.lists(outputs, min_size=1, max_size=3).map(tuple),
    st.integers(0, 2**32 - 1),
)


@given(transactions)
def test_transactions_are_those_of_bitcoinlib(tx: Tx) -> None:
    other = bitcoin.core.CTransaction.deserialize(tx.serialize())
    assert other.serialize() == tx.serialize()
    assert other.GetTxid() == tx.txid
    assert bitcoin.core.Hash(tx.serialize()) == tx.wtxid
    assert other.calc_weight() == tx.weight_wu
    assert tx.vsize == -(-tx.weight_wu // 4)


@given(transactions)
def test_transactions_round_trip(tx: Tx) -> None:
    assert Tx.parse(tx.serialize()) == tx
    without_witness = tuple(dataclasses.replace(tx_in, witness=()) for tx_in in tx.inputs)
    assert Tx.parse(tx.serialize_without_witness()) == dataclasses.replace(tx, inputs=without_witness)


@given(transactions, st.data())
def test_cut_transactions_are_refused(tx: Tx, data: st.DataObject) -> None:
    raw = tx.serialize()
    with pytest.raises(TxDecodeError):
        Tx.parse(raw[: data.draw(st.integers(0, len(raw) - 1))])
    with pytest.raises(TxDecodeError):
        Tx.parse(raw + b"\x00")


def test_superfluous_witness_flag_is_refused() -> None:
    tx = Tx(2, (TxIn(OutPoint(Txid(bytes(32)), 0)),), (TxOut(1, b""),))
    raw = tx.serialize()
    with_empty_witness = raw[:4] + b"\x00\x01" + raw[4:-4] + b"\x00" + raw[-4:]
    with pytest.raises(TxDecodeError, match="no witnesses"):
        Tx.parse(with_empty_witness)


def test_replaced_transaction_has_its_own_txid() -> None:
    tx = Tx(3, (TxIn(OutPoint(Txid(bytes(32)), 0)),), (fee_anchor(),))
    before = tx.txid
    assert dataclasses.replace(tx, locktime=1).txid != before


def test_exit_transactions_have_upstreams_txids_and_sighashes() -> None:
    seen = 0
    for case in load("vtxo"):
        for item in case.get("items") or ():
            expected = item["tx"]
            tx = Tx.from_hex(expected["hex"])
            assert tx.serialize().hex() == expected["hex"]
            assert str(tx.txid) == expected["txid"]
            prevout = TxOut(
                item["spends"]["txout"]["value"], bytes.fromhex(item["spends"]["txout"]["script_pubkey"])
            )
            if item.get("sighash_kind") == "key":
                assert taproot_key_spend_sighash(tx, 0, [prevout]).hex() == item["sighash"]
            seen += 1
    assert seen > 10


def test_ids_print_reversed() -> None:
    genesis = "4a5e1e4baab89f3a32518a88c31bc87f618f76673e2cc77ab2127b7afdeda33b"
    assert str(Txid.from_hex(genesis)) == genesis
    assert Txid.from_hex(genesis)[:2].hex() == "3ba3"
    with pytest.raises(ValueError, match="32 bytes"):
        Txid(b"short")


def test_fee_rates_convert_and_round_as_upstreams() -> None:
    for case in cases("exits", kind="rate-from-sat-per-kvb"):
        assert FeeRate.from_sat_per_kvb(case["input"]).sat_per_kwu == case["sat_per_kwu"]
    for case in cases("exits", kind="rate-to-sat-per-kvb"):
        rate = FeeRate(case["sat_per_kwu"])
        assert (rate.sat_per_kvb, rate.sat_per_vb_ceil) == (case["sat_per_kvb"], case["sat_per_vb_ceil"])
    for case in cases("exits", kind="rate-from-sat-per-vb-decimal"):
        if case.get("sat_per_kwu") is None:
            with pytest.raises(ValueError, match="fee rate"):
                FeeRate.from_sat_per_vb(float(case["input"]))
        else:
            assert FeeRate.from_sat_per_vb(case["input"]).sat_per_kwu == case["sat_per_kwu"]
    for case in cases("exits", kind="fee-for-weight"):
        assert FeeRate(case["sat_per_kwu"]).fee_wu(case["weight"]) == case["fee"]


@pytest.mark.parametrize(
    ("amount_sat", "text"),
    [
        (30_000, "0.00030000 BTC"),
        (0, "0 BTC"),
        (200_000_000, "2 BTC"),
        (150_000_000, "1.50000000 BTC"),
        (-1, "-0.00000001 BTC"),
    ],
)
def test_amounts_read_as_upstreams(amount_sat: int, text: str) -> None:
    """Source: sheet 03 §0."""
    assert format_btc(amount_sat) == text


def test_block_references_round_trip() -> None:
    block = BlockRef.parse("7:" + "00" * 31 + "ff")
    assert str(block) == "7:" + "00" * 31 + "ff"
    assert block.hash[0] == 0xFF
    with pytest.raises(ValueError, match="block reference"):
        BlockRef.parse("ff")


def test_networks_have_the_names_of_bitcoin() -> None:
    assert Network.from_bitcoin_name("bitcoin") is Network.MAINNET
    assert Network.from_bitcoin_name("signet") is Network.SIGNET
    assert Network.MUTINYNET.bitcoin_name == "signet"
    assert Network.REGTEST.onchain_hrp == "bcrt"
    with pytest.raises(ValueError, match="unknown network"):
        Network.from_bitcoin_name("mutinynet")
