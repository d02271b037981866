"""The search by extended public key: how far a page may advance us, whatever the server proves."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from barkd_py.ark.policy import PubkeyPolicy
from barkd_py.ark.vtxo import Vtxo, VtxoId
from barkd_py.ark.wallet_keys import MAX_VTXO_KEY_INDEX, WalletKeys
from barkd_py.bitcoin.bip32 import parse_mnemonic
from barkd_py.bitcoin.units import Network
from barkd_py.server_rpc.api import RecoveredVtxo, VtxoSpendState, XpubRecoveryPage
from barkd_py.wallet.keychain import MAX_GAP_LIMIT, Keychain
from barkd_py.wallet.recovery import xpub
from barkd_py.wallet.recovery.judgement import Disproven, Proof, Proven
from barkd_py.wallet.recovery.progress import Progress
from barkd_py.wallet.recovery.xpub import XpubSearch
from barkd_py.wallet.store import Store
from tests.wallet.samples import user_vtxos

KEYS = WalletKeys(parse_mnemonic("abandon " * 11 + "about"))
GAP = 50


class Chain:
    """Proves everything, or nothing."""

    def __init__(self, proof: Proof) -> None:
        self._proof = proof

    async def prove(self, vtxos: Sequence[Vtxo]) -> Mapping[VtxoId, Proof]:
        return {vtxo.id: self._proof for vtxo in vtxos}


def told(key_index: int, claimed_index: int) -> RecoveredVtxo:
    """A VTXO of one of our keys, and the index that the server says it has."""
    vtxo = replace(user_vtxos()[0], policy=PubkeyPolicy(KEYS.vtxo_pubkey(key_index)))
    return RecoveredVtxo(vtxo, claimed_index, VtxoSpendState.SPENDABLE)


def search_with(keychain: Any, chain: Any, max_pages: int = 10) -> XpubSearch:
    nobody: Any = None
    return XpubSearch(nobody, keychain, chain, network=Network.REGTEST, now=lambda: 0.0, max_pages=max_pages)


@pytest.mark.parametrize(
    ("entry", "proof", "revealed"),
    [
        (told(GAP, GAP), Proven(), GAP + 1),
        (told(40, 40), Disproven("no"), 0),  # nothing on the chain: perhaps the server made it up
        (told(40, 41), Proven(), 0),  # the key is not at the place that is named
        (told(GAP + 1, GAP + 1), Proven(), 0),  # or one answer has us store keys without end
    ],
)
async def test_what_is_revealed_for_an_answer(
    sqlite_store: Store,
    monkeypatch: pytest.MonkeyPatch,
    entry: RecoveredVtxo,
    proof: Proof,
    revealed: int,
) -> None:
    monkeypatch.setattr(xpub, "MAX_GAP_LIMIT", GAP)
    keychain = Keychain(KEYS, sqlite_store)
    (sighting,) = await search_with(keychain, Chain(proof)).believed([entry])
    assert sighting.vtxo == entry.vtxo
    assert await keychain.next_index() == revealed


CURSOR = user_vtxos()[0].id


@pytest.mark.parametrize(
    ("before", "scanned", "cursor", "is_done"),
    [
        (Progress(), 100, None, False),
        (Progress(xpub_start=5), 0, None, True),  # nothing moves
        (Progress(xpub_start=5, xpub_cursor=CURSOR), 0, CURSOR, True),
        (Progress(xpub_start=5), 0, CURSOR, False),  # within a batch
        (Progress(xpub_misses=MAX_GAP_LIMIT - 101), 100, None, False),
        (Progress(xpub_misses=MAX_GAP_LIMIT - 100), 100, None, True),
        (Progress(xpub_pages=8), 100, None, False),
        (Progress(xpub_pages=9), 100, None, True),
        (Progress(xpub_start=MAX_VTXO_KEY_INDEX - 101), 100, None, False),
        (Progress(xpub_start=MAX_VTXO_KEY_INDEX - 100), 100, None, True),
    ],
)
def test_a_server_that_always_has_more_is_not_asked_for_ever(
    before: Progress, scanned: int, cursor: VtxoId | None, is_done: bool
) -> None:
    page = XpubRecoveryPage((), scanned, have_more=True, cursor=cursor)
    assert search_with(None, None).after(before, page).is_xpub_done is is_done
