"""What a tour does, step by step, on whatever the run before has left."""

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.console import Console

from barkd_py.devnet.tour.programs import Daemon, Devnet, TourFailed, wait_for
from barkd_py.devnet.tour.show import balance_table, history_table

_FUND_SAT = 1_000_000
_BOARD_SAT = 400_000
_SEND_SAT = 100_000
_INVOICE_SAT = 20_000


class Tour:
    """The steps, in their order."""

    def __init__(self, console: Console, devnet: Devnet, alice: Daemon, bob: Daemon) -> None:
        self._console = console
        self._devnet = devnet
        self._alice = alice
        self._bob = bob

    def run(self) -> None:
        """Everything. Raises TourFailed."""
        with step(self._console, "Opening two wallets") as note:
            made = [daemon.ensure_wallet(self._devnet) for daemon in (self._alice, self._bob)]
            note("alice and bob" + ("" if all(made) else ", as they were left last time"))
        self._fund()
        self._board()
        self._pay()
        self._pay_over_lightning()
        self._show()

    def _fund(self) -> None:
        with step(self._console, f"Paying alice {_FUND_SAT:,} sat on chain") as note:
            address = self._alice.post("onchain/addresses/next")["address"]
            paid = self._devnet.pull("/fund", address=address, amount_sat=_FUND_SAT)

            def has_money() -> bool:
                self._alice.post("onchain/sync")
                return int(self._alice.get("onchain/balance")["confirmed_sat"]) >= _BOARD_SAT

            wait_for("alice's money", has_money, self._alice.program, self._devnet.program)
            note(f"confirmed in block {paid['height']}")

    def _board(self) -> None:
        with step(self._console, f"Moving {_BOARD_SAT:,} sat onto Ark (a board)") as note:
            before = self._alice.spendable_sat()
            self._alice.post("boards/board-amount", {"amount_sat": _BOARD_SAT})

            def is_spendable() -> bool:
                self._alice.post("wallet/sync")
                return self._alice.spendable_sat() > before

            wait_for("the board", is_spendable, self._alice.program, self._devnet.program)
            note(f"alice can spend {self._alice.spendable_sat():,} sat")

    def _pay(self) -> None:
        with step(self._console, f"Paying bob {_SEND_SAT:,} sat on Ark") as note:
            before = self._bob.spendable_sat()
            address = self._bob.post("wallet/addresses/next")["address"]
            started = time.monotonic()
            self._alice.post("wallet/send", {"destination": address, "amount_sat": _SEND_SAT})
            sent = time.monotonic()
            # Bob is not asked to synchronise: his daemon listens to his mailbox.
            wait_for(
                "bob's money",
                lambda: self._bob.spendable_sat() > before,
                self._bob.program,
                self._alice.program,
            )
            arrived = time.monotonic()
            note(f"sent in {(sent - started) * 1000:.0f} ms, there after {(arrived - started) * 1000:.0f} ms")

    def _pay_over_lightning(self) -> None:
        with step(self._console, f"Paying {_INVOICE_SAT:,} sat over Lightning") as note:
            asked = self._devnet.pull("/lightning/invoice", amount_sat=_INVOICE_SAT)
            started = time.monotonic()
            self._alice.post("lightning/pay", {"destination": asked["invoice"]})

            def is_paid() -> bool:
                return bool(self._alice.get(f"lightning/sends/{asked['payment_hash']}")["state"] == "paid")

            wait_for("alice's payment", is_paid, self._alice.program, self._devnet.program)
            paid = time.monotonic()
            invoice = self._bob.post("lightning/receives/invoice", {"amount_sat": _INVOICE_SAT})["invoice"]
            before, asking = self._bob.spendable_sat(), time.monotonic()
            outcome = self._devnet.pull("/lightning/pay", invoice=invoice)
            if outcome["status"] != "settled":
                raise TourFailed(f"the payment to bob {outcome['status']}: {outcome['reason']}")
            wait_for("bob's money", lambda: self._bob.spendable_sat() > before, self._bob.program)
            taken = time.monotonic() - asking
            note(f"out in {(paid - started) * 1000:.0f} ms, back in {taken * 1000:.0f} ms")

    def _show(self) -> None:
        daemons = (self._alice, self._bob)
        self._console.print()
        self._console.print(balance_table(daemons))
        for daemon in daemons:
            self._console.print(history_table(daemon))


@contextlib.contextmanager
def step(console: Console, title: str) -> Iterator[Callable[[str], None]]:
    """Show that a step is under way, and afterwards how it went and how long it took."""
    notes: list[str] = []
    started = time.monotonic()
    with console.status(title + " …"):
        yield notes.append
    took = f"[dim]({time.monotonic() - started:.1f} s)[/dim]"
    console.print(
        f"[green]✓[/green] {title}: {', '.join(notes)} {took}"
        if notes
        else f"[green]✓[/green] {title} {took}"
    )
