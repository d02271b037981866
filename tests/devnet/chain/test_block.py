"""Blocks as bytes, and how they are built."""

from dataclasses import replace

import pytest
from bitcoin.core import CBlock

from barkd_py.bitcoin.encode import DecodeError
from barkd_py.bitcoin.hashes import sha256d
from barkd_py.bitcoin.tx import BlockHash, OutPoint, Tx, Txid, TxIn, TxOut
from barkd_py.devnet.chain.block import (
    Block,
    BlockHeader,
    BlockTemplate,
    build_block,
    is_coinbase,
    median_time,
    merkle_root,
    subsidy_sat,
)

#: Bitcoin Core's regtest genesis block.
GENESIS_HASH = "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206"
GENESIS_HEADER = bytes.fromhex(
    "0100000000000000000000000000000000000000000000000000000000000000000000003ba3edfd7a7b12b27ac72c3e"
    "67768f617fc81bc3888a51323a9fb8aa4b1e5e4adae5494dffff7f2002000000"
)

SPEND = Tx(
    2,
    (TxIn(OutPoint(Txid(b"\x05" * 32), 1), witness=(b"\x01" * 64,)),),
    (TxOut(1000, b"\x51\x20" + bytes(32)),),
)


def template(
    height: int, *transactions: Tx, fees_sat: int = 0, extra_nonce: bytes = b"nonce"
) -> BlockTemplate:
    return BlockTemplate(
        previous=BlockHash(b"\x09" * 32),
        height=height,
        time=1_700_000_000,
        reward_script=b"\x51\x20" + b"\x02" * 32,
        extra_nonce=extra_nonce,
        transactions=transactions,
        fees_sat=fees_sat,
    )


def test_header_of_the_genesis_block_hashes_to_its_known_id() -> None:
    header = BlockHeader.parse(GENESIS_HEADER)
    assert str(header.hash) == GENESIS_HASH
    assert (header.version, header.time, header.bits, header.nonce) == (1, 1296688602, 0x207FFFFF, 2)
    assert header.serialize() == GENESIS_HEADER


def test_header_of_another_length_is_refused() -> None:
    for data in (GENESIS_HEADER[:-1], GENESIS_HEADER + b"\x00"):
        with pytest.raises(DecodeError):
            BlockHeader.parse(data)


def test_another_library_reads_a_built_block_the_same_way() -> None:
    block = build_block(template(500, SPEND))
    other = CBlock.deserialize(block.serialize())
    assert other.GetHash() == block.header.hash
    assert other.calc_merkle_root() == block.header.merkle_root
    assert other.vtx[0].wit.vtxinwit[0].scriptWitness.stack == (bytes(32),)
    assert [tx.GetTxid() for tx in other.vtx] == [tx.txid for tx in block.transactions]


def test_block_survives_a_round_trip() -> None:
    block = build_block(template(7, SPEND, SPEND))
    assert Block.parse(block.serialize()) == block


def test_hash_of_a_solved_block_meets_the_target() -> None:
    for number in range(20):
        block = build_block(template(1, extra_nonce=bytes((number, 0))))
        assert int.from_bytes(block.header.hash, "little") <= 0x7FFFFF << 232


@pytest.mark.parametrize(
    ("height", "script_start"),
    [
        (1, "51"),
        (16, "60"),
        (17, "0111"),
        (127, "017f"),
        (128, "028000"),
        (255, "02ff00"),
        (256, "020001"),
        (32768, "03008000"),
    ],
)
def test_coinbase_begins_with_its_height(height: int, script_start: str) -> None:
    coinbase = build_block(template(height)).transactions[0]
    assert coinbase.inputs[0].script_sig.hex().startswith(script_start)
    assert is_coinbase(coinbase)


def test_coinbase_takes_subsidy_and_fees() -> None:
    coinbase = build_block(template(150, fees_sat=123)).transactions[0]
    assert coinbase.outputs[0].value_sat == 2_500_000_123


def test_extra_nonce_makes_coinbases_different() -> None:
    first, second = (
        build_block(template(5, extra_nonce=extra)).transactions[0].txid for extra in (b"one", b"two")
    )
    assert first != second


@pytest.mark.parametrize(
    ("height", "subsidy"),
    [
        (1, 5_000_000_000),
        (149, 5_000_000_000),
        (150, 2_500_000_000),
        (300, 1_250_000_000),
        (4950, 0),
        (9600, 0),
    ],
)
def test_subsidy_halves_every_150_blocks(height: int, subsidy: int) -> None:
    assert subsidy_sat(height) == subsidy


def test_merkle_root_counts_the_last_of_an_odd_row_twice() -> None:
    one, two, three = (bytes((number,)) * 32 for number in (1, 2, 3))
    left, right = sha256d(one + two), sha256d(three + three)
    assert merkle_root([one]) == one
    assert merkle_root([one, two, three]) == sha256d(left + right)


def test_commitment_covers_the_witnesses() -> None:
    other = replace(SPEND, inputs=(replace(SPEND.inputs[0], witness=(b"\x02" * 64,)),))
    commitments = {
        build_block(template(5, tx)).transactions[0].outputs[1].script_pubkey for tx in (SPEND, other)
    }
    assert len(commitments) == 2


def test_median_time_looks_at_the_last_eleven() -> None:
    assert median_time([100, *range(1, 12)]) == 6
    assert median_time([3, 1, 2]) == 2
    assert median_time([5]) == 5


def test_ordinary_transaction_is_no_coinbase() -> None:
    assert not is_coinbase(SPEND)
