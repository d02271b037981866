"""What several wallets own together: it never changes, whatever they do and whatever happens to them.

Everything that they own, plus everything that they paid in fees, is one sum. Fees on chain are read from the
chain itself. A child that pays for an exit also collects the anchor of its parent, where the board's fee is.

And what a wallet owns off-chain is, to the satoshi, what its history tells.
"""

import asyncio
import contextlib
import itertools
import time
from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from barkd_py.bitcoin.script import P2A_SCRIPT
from tests.support.processes import NO_TLS, Daemon, Devnet

EXIT_DELTA = 12
SETTLE_WITHIN_SECS = 600.0

# A payment over Lightning whose payee cannot be reached any more comes back when its HTLC expires.
PATIENT_PUSHES = 15
BLOCKS_TO_EXPIRY = 20

Json = dict[str, Any]


class NotOnChain(Exception):
    """A transaction of a wallet that the chain has not heard of, or not yet."""


@dataclass
class Books:
    """daemons: by name. foreign: transactions that none of the wallets paid for. wealth_sat: once known.
    brought_back: wallets that were recovered, restored or imported into: what they found so is not in their
    history.

    Movements are remembered, since a wallet that is recovered from its words has lost them.
    """

    devnet: Devnet
    daemons: Mapping[str, Daemon]
    foreign: set[str]
    chain: httpx.AsyncClient
    wealth_sat: int = 0
    brought_back: set[str] = field(default_factory=set)
    _costs_sat: dict[str, int] = field(default_factory=dict)
    _movements: dict[tuple[str, str, int], Json] = field(default_factory=dict)

    async def settle(self) -> None:
        """Do what has to be done until nothing is pending, and the books balance."""
        deadline = time.monotonic() + SETTLE_WITHIN_SECS
        for push in itertools.count():
            loose = await self._some_loose_end()
            if loose is None:
                return
            if time.monotonic() > deadline:
                ends = [each async for each in self.loose_ends()]
                tails = "\n".join(f"{name}: {each.process.tail()}" for name, each in self.daemons.items())
                raise AssertionError(f"never settled: {ends}\n{tails}")
            expires = push > PATIENT_PUSHES and "pending_lightning_send_sat" in str(loose)
            await self._push_on(BLOCKS_TO_EXPIRY if expires else 1)

    async def _push_on(self, blocks: int) -> None:
        daemons = self.daemons.values()
        if any(await asyncio.gather(*(daemon.get("/wallet/rounds") for daemon in daemons))):
            await self.devnet.pull("/round")
            await asyncio.sleep(0.2)  # rounds take their time; asking again is all that there is to do
        waits_for_delta = False
        for daemon in daemons:
            live = await daemon.get("/exits/status/live")
            waits_for_delta |= any(each["state"]["type"] == "awaiting-delta" for each in live)
            if live:
                await _push_exits(daemon, live)
        await self.devnet.mine(EXIT_DELTA if waits_for_delta else blocks)
        await asyncio.gather(*(_sync(daemon) for daemon in daemons))

    async def _some_loose_end(self) -> tuple[str, Any] | None:
        """One is enough to go on; looking for the others takes time."""
        async with contextlib.aclosing(self.loose_ends()) as ends:
            return await anext(ends, None)

    async def loose_ends(self) -> AsyncGenerator[tuple[str, Any], None]:
        """What is not at its end, and what it is called."""
        for name, daemon in self.daemons.items():
            async for what, ends in _loose_ends_of(daemon, has_history=name not in self.brought_back):
                if ends:
                    yield f"{name}: {what}", ends
        if held := [each for each in (await self._outside())["incoming"] if each["status"] == "held"]:
            yield "from outside", held
        if self.wealth_sat:
            try:
                if missing_sat := self.wealth_sat - await self.measured_wealth_sat():
                    yield "missing_sat", missing_sat
            except NotOnChain as error:
                yield "not on the chain", str(error)

    async def measured_wealth_sat(self) -> int:
        """What all own, and all fees that they ever paid. Raises NotOnChain."""
        owned_sat: int = await self._paid_to_outside_sat()
        txids: set[str] = set()
        for name, daemon in self.daemons.items():
            owned_sat += sum((await daemon.get("/wallet/balance")).values())
            owned_sat += (await daemon.get("/onchain/balance"))["total_sat"]
            for movement in await daemon.get("/history"):
                self._movements[name, movement["time"]["created_at"], movement["id"]] = movement
            txids |= {tx["txid"] for tx in await daemon.get("/onchain/transactions")}
        movements = self._movements.values()
        owned_sat += sum(each["offchain_fee_sat"] for each in movements if each["status"] == "successful")
        offboards = {each.get("metadata", {}).get("offboard_txid") for each in movements}
        return owned_sat + sum([await self._cost_sat(txid) for txid in txids - offboards - self.foreign])

    async def _paid_to_outside_sat(self) -> int:
        """Over Lightning, less what came from there."""
        books = await self._outside()
        paid_msat: int = sum(
            each["amount_msat"] for each in books["payments"] if each["status"] == "succeeded"
        )
        came_msat: int = sum(each["amount_msat"] for each in books["incoming"] if each["status"] == "settled")
        return (paid_msat - came_msat) // 1000

    async def _outside(self) -> Json:
        """What the nodes outside know of payments."""
        return await self.read_devnet("/lightning")

    async def read_devnet(self, path: str) -> Json:
        async with httpx.AsyncClient(base_url=self.devnet.control_url, timeout=60, verify=NO_TLS) as http:
            books: Json = (await http.get(path)).raise_for_status().json()
            return books

    async def _cost_sat(self, txid: str) -> int:
        """What a transaction of ours cost us, less the anchor that it collects."""
        if txid not in self._costs_sat:
            answer = await self.chain.get(f"/tx/{txid}")
            if answer.status_code == 404:
                raise NotOnChain(txid)
            tx = answer.raise_for_status().json()
            prevouts = [each["prevout"] for each in tx["vin"]]
            anchors = [out for out in prevouts if out["scriptpubkey"] == P2A_SCRIPT.hex()]
            self._costs_sat[txid] = tx["fee"] - sum(out["value"] for out in anchors)
        return self._costs_sat[txid]


async def _sync(daemon: Daemon) -> None:
    await daemon.post("/wallet/sync")
    await daemon.post("/onchain/sync")


async def _push_exits(daemon: Daemon, live: list[Json]) -> None:
    if any(each["state"]["type"] == "claimable" for each in live):
        address = (await daemon.post("/onchain/addresses/next"))["address"]
        await daemon.post("/exits/claim/all", {"destination": address})
    else:
        await daemon.post("/exits/progress")


async def _loose_ends_of(daemon: Daemon, *, has_history: bool) -> AsyncGenerator[tuple[str, Any], None]:
    balance = await daemon.get("/wallet/balance")
    at_rest = ("spendable_sat", "needs_refresh_sat")
    yield "balance", {key: sat for key, sat in balance.items() if sat and key not in at_rest}
    history = await daemon.get("/history")
    yield "history", [each for each in history if each["status"] == "pending"]
    if has_history:
        yield "not as the history tells it (sat)", sum(balance.values()) - told_sat(history)
    yield "told twice", told_twice(history)
    vtxos = await daemon.get("/wallet/vtxos")
    yield "vtxos", [each for each in vtxos if each["state"]["type"] != "spendable"]
    exits = await daemon.get("/exits/status/live")
    yield "exits", [each for each in exits if each["state"]["type"] != "claimed"]
    yield "rounds", await daemon.get("/wallet/rounds")
    yield "boards", await daemon.get("/boards/pending")
    onchain = await daemon.get("/onchain/balance")
    yield "unconfirmed", onchain["total_sat"] - onchain["confirmed_sat"]


def told_sat(history: Iterable[Json]) -> int:
    """What a wallet must own off-chain once nothing is pending: the sum of all that ever changed it.

    What failed may have cost something; an exit has left, whatever became of it on the chain.
    """
    return sum(each["effective_balance_sat"] for each in history)


def told_twice(history: Iterable[Json]) -> list[str]:
    """VTXOs that came, or went, in more than one movement."""
    successful = [each for each in history if each["status"] == "successful"]
    return sorted(
        f"{vtxo_id} ({side})"
        for side in ("input_vtxos", "output_vtxos")
        for vtxo_id, times in Counter(own for each in successful for own in each[side]).items()
        if times > 1
    )
