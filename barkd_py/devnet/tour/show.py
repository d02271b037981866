"""What a tour shows: balances, histories, and lines to paste into another terminal."""

import json
import shlex
import sys
import time
from pathlib import Path

import click
from rich.table import Table

from barkd_py.devnet.tour.programs import Daemon, Devnet

_HISTORY_ROWS = 6


def balance_table(daemons: tuple[Daemon, ...]) -> Table:
    table = Table(title="Balances", title_justify="left")
    table.add_column("wallet")
    for column in ("Ark, spendable", "Ark, pending", "on chain"):
        table.add_column(column, justify="right")
    for daemon in daemons:
        balance = daemon.get("wallet/balance")
        pending = sum(value for name, value in balance.items() if name.startswith("pending_"))
        on_chain = daemon.get("onchain/balance")["total_sat"]
        amounts = (balance["spendable_sat"], pending, on_chain)
        table.add_row(daemon.name, *(f"{amount:,} sat" for amount in amounts))
    return table


def history_table(daemon: Daemon) -> Table:
    movements = daemon.get("history")  # the latest first
    shown = movements[:_HISTORY_ROWS]
    title = f"History of {daemon.name}" + ("" if shown == movements else f", the latest of {len(movements)}")
    table = Table(title=title, title_justify="left")
    for column in ("time (UTC)", "what", "status"):
        table.add_column(column, no_wrap=True)
    for column in ("amount", "fee"):
        table.add_column(column, justify="right")
    for movement in shown:
        table.add_row(
            movement["time"]["created_at"][:16].replace("T", " "),  # to the minute: the table has 80 columns
            name_of(**movement["subsystem"]),
            movement["status"],
            f"{movement['effective_balance_sat']:+,} sat",
            f"{movement['offchain_fee_sat']:,} sat",
        )
    return table


def name_of(name: str, kind: str) -> str:
    """Of a subsystem: `bark.arkoor`, `send` is an "arkoor send", `bark.board`, `board` a "board"."""
    words = name.removeprefix("bark.").split("_")
    return " ".join(words if kind == words[-1] else [*words, kind])


def print_lines_to_paste(devnet: Devnet, alice: Daemon, bob: Daemon) -> None:
    """Commands for another terminal, as plain text: no line is broken."""
    address = bob.post("wallet/addresses/next")["address"]
    fund_address = alice.post("onchain/addresses/next")["address"]
    curl = f"curl -sw '\\n' -H \"Authorization: Bearer $TOKEN\" {alice.url}/api/v1"
    script = Path(sys.executable).with_name("barkd")
    barkd = shlex.quote(str(script)) if script.exists() else f"{shlex.quote(sys.executable)} -m barkd_py.cli"
    datadir = shlex.quote(str(alice.datadir.absolute()))
    backup = alice.datadir.absolute().with_name(f"alice-{time.strftime('%H%M%S')}.backup")
    curl_bob = f"curl -sw '\\n' -H \"Authorization: Bearer $BOBS_TOKEN\" {bob.url}/api/v1"
    as_json = "-H 'Content-Type: application/json' -d"
    lever = f"curl -sw '\\n' {devnet.control_url}"
    send = json.dumps({"destination": address, "amount_sat": 5000})
    asked = json.dumps({"amount_sat": 3000})
    find_invoice = "grep -o 'lnbcrt[a-z0-9]*'"
    fund = json.dumps({"address": fund_address, "amount_sat": 50_000})
    claim = json.dumps({"destination": fund_address})
    progress = f"{curl}/exits/progress {as_json} '{{}}'"
    mine = f"{lever}/mine -d '{json.dumps({'blocks': 1})}'"
    lines = [
        "Lines for another terminal. Alice's balance and history:",
        "",
        f"TOKEN=$(cat {shlex.quote(str(alice.token_file.absolute()))})",
        f"{curl}/wallet/balance",
        f"{curl}/history",
        "",
        "A payment to bob, and what he has then:",
        "",
        f"{curl}/wallet/send {as_json} '{send}'",
        f"BOBS_TOKEN=$(cat {shlex.quote(str(bob.token_file.absolute()))})",
        f"sleep 1; {curl_bob}/wallet/balance",  # his daemon is told of the payment; that takes a moment
        "",
        "Alice pays a Lightning node outside Ark; such a node pays bob:",
        "",
        f"INVOICE=$({lever}/lightning/invoice -d '{asked}' | {find_invoice})",
        f'{curl}/lightning/pay {as_json} "{{\\"destination\\": \\"$INVOICE\\"}}"',
        f"INVOICE=$({curl_bob}/lightning/receives/invoice {as_json} '{asked}' | {find_invoice})",
        f'{lever}/lightning/pay -d "{{\\"invoice\\": \\"$INVOICE\\"}}"',
        "",
        "A block; coins from the faucet for alice, and what she has on chain then:",
        "",
        mine,
        f"{lever}/fund -d '{fund}'",
        f"{curl}/onchain/sync -X POST",
        f"{curl}/onchain/balance",
        "",
        "A backup of alice's wallet, while it runs; her words, which bring back most (docs/recovery.md):",
        "",
        f"{barkd} --datadir {datadir} backup {shlex.quote(str(backup))}",
        f"cat {shlex.quote(str(alice.datadir.absolute() / 'mnemonic'))}",
        "",
        "The whole API of alice's daemon to try in a browser; for Authorize, her token:",
        "",
        f"{alice.url}/swagger-ui",
        "echo $TOKEN",
        "",
        "The Ark server vanishes, and alice takes her coins onto the chain without it: the price, the start,",
        "blocks until all can be claimed, the claim, what she has then. (/ark-server/start: it is back.)",
        "",
        f"{lever}/ark-server/stop -X POST",
        f"{curl}/exits/fee",
        f"{curl}/exits/start/all -X POST",
        f"for block in $(seq 40); do {progress} | grep done.:true && break; {mine}; done",
        f"{curl}/exits/claim/all {as_json} '{claim}'",
        f"sleep 1; {curl}/onchain/sync -X POST",
        f"{curl}/onchain/balance",
    ]
    click.echo("\n" + "\n".join(lines) + "\n")
