"""The protocol core alone: decoding and validating VTXOs by depth, cosigning.

Every VTXO is of keys that were not seen before, and caches are emptied before each measurement: what a wallet
receives from a stranger is all new.
"""

import functools
import gc
import time
from collections.abc import Callable, Sequence
from itertools import count

from barkd_py.ark.arkoor import (
    ArkoorDestination,
    ArkoorPart,
    finish_part,
    generate_part_nonces,
    server_cosign_part,
)
from barkd_py.ark.board import BoardTemplate, finish_board, generate_board_nonce, server_cosign_board
from barkd_py.ark.policy import PubkeyPolicy
from barkd_py.ark.validation import validate
from barkd_py.ark.vtxo import Vtxo
from barkd_py.bitcoin.hashes import sha256
from barkd_py.bitcoin.keys import SecretKey
from barkd_py.bitcoin.tx import OutPoint, Tx, TxIn
from tests.bench.report import OURS, Report

SERVER = SecretKey(sha256(b"bench server"))
DEPTHS = (1, 3, 5, 7, 9, 11)
SAMPLES = 20

_numbers = count()


def fresh_key() -> SecretKey:
    return SecretKey(sha256(f"bench user {next(_numbers)}".encode()))


def make_board() -> tuple[Vtxo, SecretKey, Tx]:
    """A signed VTXO of depth 1, its key, and the transaction that funds it."""
    user = fresh_key()
    unfunded = OutPoint(Tx(2, (), ()).txid, 0)
    template = BoardTemplate(user.public_key, SERVER.public_key, 1_000_000, 0, 900_000, 144, unfunded)
    origin = TxIn(OutPoint(Tx(2, (), (), next(_numbers)).txid, 0))
    funding = Tx(2, (origin,), (template.funding_output,))
    template = BoardTemplate(
        user.public_key, SERVER.public_key, 1_000_000, 0, 900_000, 144, OutPoint(funding.txid, 0)
    )
    sec_nonce, pub_nonce = generate_board_nonce(template, user)
    answer = server_cosign_board(template, SERVER, pub_nonce)
    vtxo = finish_board(template, user, sec_nonce, pub_nonce, answer.pub_nonce, answer.partial_sig)
    return vtxo, user, funding


def pay_on(vtxo: Vtxo, owner: SecretKey) -> tuple[Vtxo, SecretKey]:
    """Pay half of a VTXO to a new key; returns that VTXO, two transactions deeper."""
    payee = fresh_key()
    half = vtxo.amount_sat // 2
    outputs = (
        ArkoorDestination(vtxo.amount_sat - half, PubkeyPolicy(payee.public_key)),
        ArkoorDestination(half, PubkeyPolicy(owner.public_key)),
    )
    part = ArkoorPart(vtxo, outputs)
    nonces = generate_part_nonces(part, owner)
    answer = server_cosign_part(part, SERVER, [pub_nonce for _, pub_nonce in nonces])
    return finish_part(part, owner, nonces, *answer)[0], payee


def make_vtxo(depth: int) -> tuple[Vtxo, Tx]:
    vtxo, owner, funding = make_board()
    while vtxo.exit_depth < depth:
        vtxo, owner = pay_on(vtxo, owner)
    return vtxo, funding


def empty_caches() -> None:
    for cached in gc.get_objects():
        if isinstance(cached, functools._lru_cache_wrapper) and cached.__module__.startswith("barkd_py."):
            cached.cache_clear()


def time_each(work: Callable[[int], object], samples: int) -> float:
    """Milliseconds per call, over all samples; CPU time, so that neighbours do not count."""
    empty_caches()
    began = time.process_time()
    for index in range(samples):
        work(index)
    return 1000 * (time.process_time() - began) / samples


def measure_core(report: Report) -> None:
    for depth in DEPTHS:
        made = [make_vtxo(depth) for _ in range(SAMPLES)]
        encoded = [vtxo.encode() for vtxo, _ in made]
        report.add(f"decode a VTXO of depth {depth}", OURS, time_each(_decode(encoded), SAMPLES), "ms CPU")
        decoded = list(map(Vtxo.decode, encoded))
        anchors = [anchor for _, anchor in made]
        report.add(
            f"validate it, depth {depth}", OURS, time_each(_validate(decoded, anchors), SAMPLES), "ms CPU"
        )
    boards = [make_board() for _ in range(SAMPLES)]
    report.add(
        "cosign a payment, both sides",
        OURS,
        time_each(lambda index: pay_on(boards[index][0], boards[index][1]), SAMPLES),
        "ms CPU",
    )


def _decode(encoded: Sequence[bytes]) -> Callable[[int], object]:
    return lambda index: Vtxo.decode(encoded[index])


def _validate(decoded: Sequence[Vtxo], anchors: Sequence[Tx]) -> Callable[[int], object]:
    return lambda index: validate(decoded[index], anchors[index])
