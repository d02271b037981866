"""``python -m barkd_py.devnet.tour``, which is ``make run``."""

import contextlib
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click
import httpx
from rich.console import Console

from barkd_py.devnet.tour.programs import Daemon, Devnet, TourFailed, lock_of
from barkd_py.devnet.tour.show import print_lines_to_paste
from barkd_py.devnet.tour.steps import Tour, step

_REQUEST_TIMEOUT_SECONDS = 60.0


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
