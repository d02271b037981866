"""``make run``: a tour of barkd-py on a regtest of its own, which then stays up to play with.

It starts ``barkd devnet`` and two daemons, gives the first wallet money, moves it onto Ark, pays the second
wallet, pays and is paid over Lightning, shows what both have, and prints lines to paste. Everything goes
through the REST API and the levers of devnet, as any other program would do it. State is in ``.devnet``;
another run goes on from there.

However the tour ends, the programs that it started end too (see child.py), and a run that follows at once
waits for them: all of them hold the lock of the tour.
"""

import contextlib
import fcntl
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import click
import httpx
from rich.console import Console
from rich.table import Table

from barkd_py.errors import BarkdError

_BARKD = (sys.executable, "-m", "barkd_py.devnet.child")

_FUND_SAT = 1_000_000
_BOARD_SAT = 400_000
_SEND_SAT = 100_000
_INVOICE_SAT = 20_000

#: How long a part may take to start, and a payment to arrive, on a slow machine.
_PATIENCE_SECONDS = 60.0
_POLL_SECONDS = 0.1
_REQUEST_TIMEOUT_SECONDS = 60.0
_STOP_TIMEOUT_SECONDS = 20.0

#: The daemons of a run that was killed need a moment to end.
_LAST_RUN_SECONDS = 15.0

_LOCK_FILE = "tour.lock"
_HISTORY_ROWS = 6


class TourFailed(BarkdError):
    """A step did not work out. details: the end of the log of the program that failed, or nothing."""

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.details = details


# -- programs ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Program:
    """A started program. log: what it prints."""

    name: str
    process: "subprocess.Popen[bytes]"
    log: Path

    @classmethod
    def start(
        cls, name: str, arguments: list[str], log: Path, lock: int, settings: Mapping[str, str] | None = None
    ) -> "Program":
        """Start ``barkd`` with arguments, in a session of its own: Ctrl-C is for us alone.

        lock: an open file that it holds for as long as it lives. settings: environment variables.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            process = subprocess.Popen(  # noqa: S603
                [*_BARKD, *arguments],
                stdin=subprocess.PIPE,  # never written to: its end is the sign that we are gone
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=(lock,),
                env={**os.environ, **(settings or {})},
            )
        return cls(name, process, log)

    def check(self) -> None:
        """Raises TourFailed if it has ended."""
        code = self.process.poll()
        if code is not None:
            lines = self.log.read_text(errors="replace").splitlines()
            raise TourFailed(f"{self.name} ended with code {code}", "\n".join(lines[-15:]))

    def stop(self) -> None:
        """Ask it to end and wait."""
        self.process.terminate()
        try:
            self.process.wait(_STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()


def wait_for(what: str, ready: Callable[[], bool], *programs: Program) -> None:
    """Poll until something is so. Raises TourFailed if it takes too long or a program ends meanwhile."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not ready():
        for program in programs:
            program.check()
        if time.monotonic() > deadline:
            raise TourFailed(f"waited {_PATIENCE_SECONDS:.0f} s for {what}")
        time.sleep(_POLL_SECONDS)


@contextlib.contextmanager
def lock_of(directory: Path, console: Console) -> Iterator[int]:
    """The open lock of a directory, once no program of an earlier run is left. Raises TourFailed."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / _LOCK_FILE).open("a") as file:

        def is_ours() -> bool:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            return False

        if not is_ours():
            with console.status("Waiting for the last run to end …"):
                deadline = time.monotonic() + _LAST_RUN_SECONDS
                while not is_ours():
                    if time.monotonic() > deadline:
                        raise TourFailed(f"another tour is up in {directory}; stop it with Ctrl-C")
                    time.sleep(_POLL_SECONDS)
        yield file.fileno()


def port_for(memory: Path) -> int:
    """The port that a file remembers if it is still free, else another, which is remembered."""
    with contextlib.suppress(FileNotFoundError, ValueError, OSError):
        return _bindable(int(memory.read_text()))
    port = _bindable(0)
    memory.parent.mkdir(parents=True, exist_ok=True)
    memory.write_text(f"{port}\n")
    return port


def _bindable(port: int) -> int:
    """A port that is free now: this one, or any if it is 0. Raises OSError."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        return int(listener.getsockname()[1])


def _answer(response: httpx.Response) -> Any:
    if response.is_error:
        with contextlib.suppress(ValueError):
            body = response.json()
            raise TourFailed(str(body.get("message") or body.get("error")))
        raise TourFailed(f"{response.request.url} answered {response.status_code}")
    return response.json() if response.content else None


# -- devnet --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Devnet:
    """The running devnet, by its levers."""

    program: Program
    esplora_url: str
    ark_server_url: str
    control_url: str
    http: httpx.Client

    @classmethod
    def start(cls, directory: Path, logs: Path, lock: int) -> Program:
        # Blocks come by themselves, so that whatever one tries out afterwards confirms.
        arguments = ["devnet", "--dir", str(directory), "--mine-on-tx", "--json"]
        return Program.start("barkd devnet", arguments, logs / "devnet.log", lock)

    @classmethod
    def connect(cls, program: Program, http: httpx.Client) -> "Devnet":
        """Wait for the line in which it says where its parts are."""
        urls: dict[str, Any] = {}

        def has_said() -> bool:
            first, newline, _ = program.log.read_text(errors="replace").partition("\n")
            if newline:
                with contextlib.suppress(ValueError):  # a warning came first: the program says what is wrong
                    urls.update(json.loads(first))
            return bool(urls)

        wait_for("devnet to start", has_said, program)
        return cls(program, urls["esplora_url"], urls["ark_server_url"], urls["control_url"], http)

    def pull(self, lever: str, **body: object) -> Any:
        """Pull a lever. Raises TourFailed."""
        return _answer(self.http.post(self.control_url + lever, json=body))

    def height(self) -> int:
        return int(_answer(self.http.get(self.control_url + "/status"))["height"])


# -- daemons -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Daemon:
    """A wallet daemon, by its REST API."""

    name: str
    datadir: Path
    url: str
    program: Program
    http: httpx.Client

    @classmethod
    def start(cls, name: str, directory: Path, logs: Path, lock: int, devnet: Devnet) -> "Daemon":
        datadir, port = directory / name, port_for(directory / f"{name}.port")
        arguments = ["--datadir", str(datadir), "--port", str(port)]
        # Devnet may have moved to other ports since the wallet was made.
        settings = {"BARK_SERVER_ADDRESS": devnet.ark_server_url, "BARK_ESPLORA_ADDRESS": devnet.esplora_url}
        program = Program.start(f"barkd of {name}", arguments, logs / f"{name}.log", lock, settings)
        return cls(name, datadir, f"http://127.0.0.1:{port}", program, devnet.http)

    @property
    def token_file(self) -> Path:
        return self.datadir / "auth_token"

    def wait_until_up(self) -> None:
        def answers() -> bool:
            with contextlib.suppress(httpx.TransportError):
                return self.http.get(self.url + "/ping").is_success
            return False

        wait_for(f"{self.name}'s daemon", answers, self.program)

    def get(self, path: str) -> Any:
        """GET a path of the API. Raises TourFailed."""
        return _answer(self.http.get(f"{self.url}/api/v1/{path}", headers=self._headers()))

    def post(self, path: str, body: object = None) -> Any:
        """POST to a path of the API. Raises TourFailed."""
        return _answer(self.http.post(f"{self.url}/api/v1/{path}", json=body, headers=self._headers()))

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token_file.read_text().strip()}"}

    def ensure_wallet(self, devnet: Devnet) -> bool:
        """Make a wallet unless there is one; whether it is new."""
        if self.get("wallet").get("fingerprint"):
            return False
        self.post(
            "wallet/create",
            {
                "network": "regtest",
                "ark_server": devnet.ark_server_url,
                "chain_source": {"esplora": {"url": devnet.esplora_url}},
            },
        )
        return True

    def spendable_sat(self) -> int:
        return int(self.get("wallet/balance")["spendable_sat"])


# -- the tour ------------------------------------------------------------------------------------------


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
        with step(self._console, f"Paying {_INVOICE_SAT:,} sat over Lightning, both ways") as note:
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
            note(f"alice paid in {(paid - started) * 1000:.0f} ms, bob was paid in {taken * 1000:.0f} ms")

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
    took = f"[dim]{time.monotonic() - started:.1f} s[/dim]"
    console.print(
        f"[green]✓[/green] {title}: {', '.join(notes)} {took}"
        if notes
        else f"[green]✓[/green] {title} {took}"
    )


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
        table.add_column(column)
    for column in ("amount", "fee"):
        table.add_column(column, justify="right")
    for movement in shown:
        subsystem = movement["subsystem"]
        table.add_row(
            movement["time"]["created_at"][:19].replace("T", " "),
            f"{subsystem['name'].removeprefix('bark.')} {subsystem['kind']}",
            movement["status"],
            f"{movement['effective_balance_sat']:+,} sat",
            f"{movement['offchain_fee_sat']:,} sat",
        )
    return table


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


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    """Leave whatever is going on; what is stopped afterwards must not be interrupted again."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


@click.command()
@click.option(
    "--dir",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".devnet"),
    show_default=True,
    help="Where all state is.",
)
@click.option("--exit", "leave", is_flag=True, help="End after the tour instead of staying up.")
def main(directory: Path, leave: bool) -> None:
    """Show barkd-py on a regtest of its own, and stay up until Ctrl-C."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    console = Console(highlight=False)
    try:
        with contextlib.ExitStack() as stack:
            _run(stack, console, directory, leave=leave)
            console.print("Stopping …")
    except KeyboardInterrupt:
        console.print(f"Stopped. The next run goes on from here; to begin anew, remove {directory}.")
    except (TourFailed, httpx.HTTPError) as error:
        console.print(f"[red]✗[/red] {error}")
        if isinstance(error, TourFailed) and error.details:
            click.echo(error.details, err=True)
        console.print(f"The logs are in {directory / 'logs'}.")
        sys.exit(1)


def _run(stack: contextlib.ExitStack, console: Console, directory: Path, *, leave: bool) -> None:
    started = time.monotonic()
    logs, wallets = directory / "logs", directory / "wallets"
    http = stack.enter_context(httpx.Client(timeout=_REQUEST_TIMEOUT_SECONDS, trust_env=False))
    console.print("[bold]barkd-py[/bold]: a regtest with an Ark server and two wallets")
    lock = stack.enter_context(lock_of(directory, console))
    with step(console, "Starting a chain, an Ark server and two daemons") as note:
        program = Devnet.start(directory, logs, lock)
        stack.callback(program.stop)
        devnet = Devnet.connect(program, http)
        daemons = [Daemon.start(name, wallets, logs, lock, devnet) for name in ("alice", "bob")]
        for daemon in daemons:
            stack.callback(daemon.program.stop)
        for daemon in daemons:
            daemon.wait_until_up()
        note(f"block height {devnet.height()}")
    alice, bob = daemons
    Tour(console, devnet, alice, bob).run()
    console.print(f"[bold]Done in {time.monotonic() - started:.0f} s.[/bold]")
    if leave:
        return
    print_lines_to_paste(devnet, alice, bob)
    console.print(f"Everything stays up until Ctrl-C. The logs are in {logs}.")
    while True:
        for running in (program, alice.program, bob.program):
            running.check()
        time.sleep(0.5)


if __name__ == "__main__":
    main()
