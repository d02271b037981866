"""What is wired to what: one function for each room of the wallet, which builds its part.

A function takes the `Base` that all parts stand on, and the parts that its own one asks. What parts tell each
other the other way round, so that neither room knows the other, is all in `connect`.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from barkd_py.ark.lightning_receive import ClaimWindow
from barkd_py.bitcoin.units import Network
from barkd_py.chain.source import ChainSource
from barkd_py.config import WalletConfig
from barkd_py.onchain.wallet import OnchainWallet
from barkd_py.server_rpc.api import ArkServerApi
from barkd_py.wallet.actions.executor import ActionExecutor
from barkd_py.wallet.addresses import Addresses
from barkd_py.wallet.arkoor.machine import ArkoorSendMachine
from barkd_py.wallet.arkoor.service import ArkoorSends
from barkd_py.wallet.boards.machine import BoardMachine
from barkd_py.wallet.boards.service import Boards
from barkd_py.wallet.exits.claims.homeward import HomewardClaims
from barkd_py.wallet.exits.service import Exits
from barkd_py.wallet.keychain import Keychain
from barkd_py.wallet.lightning.on_chain import LightningExits
from barkd_py.wallet.lightning.receive.machine import LightningReceiveMachine, ReceiveSettings
from barkd_py.wallet.lightning.receive.service import LightningReceives, revealed_preimage
from barkd_py.wallet.lightning.send.invoices import InvoiceSource
from barkd_py.wallet.lightning.send.lnurl import LnurlClient
from barkd_py.wallet.lightning.send.machine import LightningSendMachine
from barkd_py.wallet.lightning.send.service import LightningSends, SendRules
from barkd_py.wallet.lightning.service import Lightning
from barkd_py.wallet.locks import NamedLocks
from barkd_py.wallet.mailbox.reader import Mailbox
from barkd_py.wallet.mailbox.receipts import KeptMail
from barkd_py.wallet.offboards.machine import OffboardMachine
from barkd_py.wallet.offboards.service import Offboards
from barkd_py.wallet.recovery.evidence import Evidence
from barkd_py.wallet.recovery.ledger import Ledger
from barkd_py.wallet.recovery.service import Recovery
from barkd_py.wallet.round_rescue import RoundRescue
from barkd_py.wallet.rounds.bounds import UnattendedBounds
from barkd_py.wallet.rounds.service import Rounds
from barkd_py.wallet.rounds.swap import SwapLimits
from barkd_py.wallet.store import Store
from barkd_py.wallet.vtxos.anchors import Anchors
from barkd_py.wallet.vtxos.importing import VtxoImport
from barkd_py.wallet.vtxos.registration import Registration


@dataclass(frozen=True, slots=True)
class Base:
    """What all parts stand on. onchain: None if the wallet has no coins of its own on the chain."""

    store: Store
    network: Network
    config: WalletConfig
    chain: ChainSource
    onchain: OnchainWallet | None
    server: ArkServerApi
    keychain: Keychain
    locks: NamedLocks
    executor: ActionExecutor
    registration: Registration
    monotonic: Callable[[], float]
    now: Callable[[], float]


def make_exits(base: Base, addresses: Addresses) -> Exits:
    return Exits(
        base.store,
        base.chain,
        base.onchain,
        base.keychain,
        base.locks,
        base.network,
        late_income=KeptMail(base.store, addresses.of_keys).on_chain,
        exit_margin=base.config.vtxo_exit_margin,
    )


def make_claims(base: Base, exits: Exits) -> HomewardClaims:
    return HomewardClaims(exits.claim, base.chain, base.onchain, base.keychain, base.network)


def make_boards(base: Base, exits: Exits) -> Boards:
    machine = BoardMachine(
        base.store,
        base.chain,
        base.server,
        base.registration,
        base.onchain,
        vtxo_exit_margin=base.config.vtxo_exit_margin,
        start_exit=exits.start_held,
    )
    return Boards(
        base.store,
        base.executor,
        machine,
        base.keychain,
        base.server,
        base.chain,
        base.onchain,
        base.locks,
    )


def make_arkoor(base: Base) -> ArkoorSends:
    return ArkoorSends(
        base.store,
        base.executor,
        ArkoorSendMachine(
            base.store,
            base.keychain,
            base.server,
            base.chain,
            base.registration,
            exit_margin=base.config.vtxo_exit_margin,
        ),
        base.keychain,
        base.server,
        base.chain,
        network=base.network,
        change_split_factor=base.config.change_vtxo_split_factor,
    )


def make_offboards(base: Base) -> Offboards:
    machine = OffboardMachine(
        base.store,
        base.keychain,
        base.server,
        base.chain,
        base.registration,
        required_confirmations=base.config.offboard_required_confirmations,
        lost_tx_grace_secs=base.config.offboard_lost_tx_grace_period_secs,
        now=base.now,
    )
    return Offboards(
        base.store,
        base.executor,
        machine,
        base.keychain,
        base.server,
        base.chain,
        change_split_factor=base.config.change_vtxo_split_factor,
    )


def make_rounds(base: Base, exits: Exits, claims: HomewardClaims) -> Rounds:
    config = base.config
    return Rounds(
        base.store,
        base.server,
        base.chain,
        base.keychain,
        base.registration,
        base.locks,
        limits=SwapLimits(config.round_tx_required_confirmations, config.vtxo_exit_margin),
        rescue=RoundRescue(base.store, base.chain, exits, claims, exit_margin=config.vtxo_exit_margin),
        unattended=UnattendedBounds(config.vtxo_refresh_max_fee_ppm, config.vtxo_refresh_expiry_threshold),
        gap_limit=config.vtxo_key_gap_limit,
    )


def make_mailbox(base: Base, addresses: Addresses) -> Mailbox:
    return Mailbox(
        base.store,
        base.server,
        base.chain,
        base.keychain,
        addresses,
        base.registration,
        base.locks,
        gap_limit=base.config.vtxo_key_gap_limit,
        now=base.now,
    )


def make_lightning(base: Base, exits: Exits, claims: HomewardClaims) -> Lightning:
    anchors = Anchors(base.chain)
    wakeup = asyncio.Event()
    return Lightning(
        sends=_lightning_sends(base, exits, anchors, wakeup),
        receives=_lightning_receives(base, LightningExits(exits, claims), anchors, wakeup),
        wakeup=wakeup,
    )


def _lightning_sends(base: Base, exits: Exits, anchors: Anchors, wakeup: asyncio.Event) -> LightningSends:
    config = base.config
    machine = LightningSendMachine(
        base.store,
        base.keychain,
        base.server,
        base.chain,
        base.registration,
        anchors,
        threshold=config.vtxo_refresh_expiry_threshold,
        exit_margin=config.vtxo_exit_margin,
        start_exit=exits.start_held,
    )
    lnurl = LnurlClient(base.network, socks5_proxy=config.socks5_proxy)
    return LightningSends(
        base.store,
        base.executor,
        machine,
        base.keychain,
        base.server,
        base.chain,
        InvoiceSource(base.server, lnurl, base.network, now=base.now),
        network=base.network,
        rules=SendRules(config.change_vtxo_split_factor, config.vtxo_exit_margin),
        wakeup=wakeup,
        now=base.now,
    )


def _lightning_receives(
    base: Base, exits: LightningExits, anchors: Anchors, wakeup: asyncio.Event
) -> LightningReceives:
    config = base.config
    window = ClaimWindow(config.vtxo_exit_margin, config.htlc_recv_claim_delta)
    machine = LightningReceiveMachine(
        base.store,
        base.keychain,
        base.server,
        base.chain,
        base.registration,
        anchors,
        ReceiveSettings(window, config.lightning_receive_claim_retries),
        exits=exits,
        now=base.now,
    )
    return LightningReceives(
        base.store,
        base.executor,
        machine,
        base.keychain,
        base.server,
        base.locks,
        network=base.network,
        window=window,
        wakeup=wakeup,
        now=base.now,
    )


def make_evidence(base: Base) -> Evidence:
    return Evidence(
        base.store, base.server, base.chain, base.keychain, gap_limit=base.config.vtxo_key_gap_limit
    )


def make_recovery(
    base: Base, exits: Exits, rounds: Rounds, mailbox: Mailbox, lightning: Lightning
) -> Recovery:
    async def rescan_onchain() -> None:
        if base.onchain is not None:
            await base.onchain.rescan()

    return Recovery(
        base.store,
        base.server,
        base.keychain,
        make_evidence(base),
        Ledger(base.store, mailbox.received_on),
        network=base.network,
        start_exits=exits.start_found,
        complete_round=rounds.on_completed,
        drain_mailbox=mailbox.sync,
        rescan_onchain=rescan_onchain,
        take_back=lightning.adopt,
        wake_registration=base.registration.wake,
        now=base.now,
        monotonic=base.monotonic,
    )


def make_vtxo_import(base: Base) -> VtxoImport:
    return VtxoImport(
        base.store,
        base.server,
        base.chain,
        base.keychain,
        base.registration,
        network=base.network,
        default_gap_limit=base.config.vtxo_key_gap_limit,
    )


def connect(
    base: Base,
    *,
    exits: Exits,
    arkoor: ArkoorSends,
    offboards: Offboards,
    rounds: Rounds,
    mailbox: Mailbox,
    lightning: Lightning,
    recovery: Recovery,
) -> None:
    """Tell the parts what they call without knowing whose it is."""
    exits.holders.extend([arkoor.lets_go, offboards.lets_go, rounds.lets_go, lightning.lets_go])
    exits.preimage_sources.append(revealed_preimage)
    mailbox.on_round_completed = rounds.on_completed
    mailbox.on_incoming_lightning = lightning.on_incoming
    mailbox.on_lightning_send_finished = lightning.on_send_finished
    mailbox.is_blocked = recovery.is_mailbox_blocked
    base.executor.on_refused = recovery.look_at
