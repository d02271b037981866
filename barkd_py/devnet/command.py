"""``barkd devnet``: run a whole regtest, and pull its levers from another terminal.

What needs the ``devnet`` extra is imported when the command runs, so that the daemon works without it.
"""

import asyncio
import importlib.util
import json
import logging
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import httpx

from barkd_py.devnet.state_dir import STATE_FILE, read_state
from barkd_py.errors import KnownError, chain_text

if TYPE_CHECKING:
    from barkd_py.devnet.runner import Devnet, DevnetOptions

DEFAULT_DIRECTORY = Path(".devnet")

#: Mining thousands of blocks through a real node takes a while.
_CONTROL_TIMEOUT_SECONDS = 300.0


class MissingExtra(click.ClickException):
    """The built-in node cannot run here."""


def _require_kernel() -> None:
    """Check that the consensus library is there. Raises MissingExtra."""
    if importlib.util.find_spec("pbk") is not None:
        return
    if sys.version_info >= (3, 14):
        raise MissingExtra(
            "the devnet needs py-bitcoinkernel, which has no build for Python 3.14 or newer: "
            "use Python 3.11, 3.12 or 3.13, or run a real node with --bitcoind PATH"
        )
    raise MissingExtra(
        "the devnet needs py-bitcoinkernel: pip install '.[devnet]' in barkd-py's checkout, "
        "or run a real node with --bitcoind PATH"
    )


def _port_option(name: str, text: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A port that is remembered in the directory."""
    return click.option(
        name,
        type=click.IntRange(1, 65535),
        metavar="PORT",
        help=f"{text}  [default: that of last time, or any]",
    )


@click.group("devnet", invoke_without_command=True, short_help="Run a whole regtest in one process")
@click.option(
    "--dir",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=DEFAULT_DIRECTORY,
    show_default=True,
    help="Where its state is; it survives restarts.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@_port_option("--esplora-port", "Port of Esplora.")
@_port_option("--ark-port", "Port of the Ark server.")
@_port_option("--ark-admin-port", "Port of the Ark server's administration.")
@_port_option("--control-port", "Port of the levers.")
@click.option(
    "--bitcoind",
    type=click.Path(dir_okay=False, exists=True, path_type=Path),
    help="Run this bitcoind instead of the built-in node.",
)
@click.option("--block-interval", type=click.FloatRange(min=0.1), help="Mine a block every so many seconds.")
@click.option("--mine-on-tx", is_flag=True, help="Mine a block as soon as a transaction waits.")
@click.option(
    "--round-interval",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    help="Seconds between rounds.",
)
@click.option(
    "--vtxo-lifetime",
    type=click.IntRange(min=20, max=100_000),
    default=4320,
    show_default=True,
    help="Blocks until new VTXOs expire.",
)
@click.option(
    "--emulate",
    type=click.Choice(["0.6", "0.8"]),
    default="0.8",
    show_default=True,
    help="Generation of the Ark server; 0.6 cannot look up many VTXOs at once, nor by extended key.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the addresses as one line of JSON.")
@click.option("--verbose", is_flag=True, help="Log everything.")
@click.pass_context
def devnet(context: click.Context, /, directory: Path, **options: Any) -> None:
    """Run a bitcoin chain, an Ark server, Lightning nodes outside Ark and a faucet for regtest, until Ctrl-C.

    With a subcommand: pull a lever of the devnet that runs. The directory is named before it, as in
    barkd devnet --dir DIR mine.
    """
    context.obj = directory
    if context.invoked_subcommand is not None:
        return
    if options["bitcoind"] is None:
        _require_kernel()
    logging.basicConfig(
        level=logging.DEBUG if options["verbose"] else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    # Both libraries log each request.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.getLogger("httpcore").setLevel(logging.WARNING)
    from barkd_py.devnet.ark_server.settings import Emulation, ServerSettings
    from barkd_py.devnet.runner import DevnetOptions

    asked = DevnetOptions(
        directory=directory,
        host=options["host"],
        esplora_port=options["esplora_port"],
        ark_port=options["ark_port"],
        ark_admin_port=options["ark_admin_port"],
        control_port=options["control_port"],
        bitcoind=options["bitcoind"],
        block_interval_seconds=options["block_interval"],
        mine_on_transaction=options["mine_on_tx"],
        ark_settings=ServerSettings(
            round_interval_secs=options["round_interval"],
            vtxo_lifetime=options["vtxo_lifetime"],
            emulate=Emulation(options["emulate"]),
        ),
    )
    try:
        asyncio.run(_run(asked, as_json=options["as_json"]))
    except KnownError as error:
        raise click.ClickException(chain_text(error)) from error


async def _run(options: "DevnetOptions", *, as_json: bool) -> None:
    from barkd_py.devnet.runner import running_devnet

    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    async with running_devnet(options) as running:
        _announce(running, as_json=as_json)
        await stopping.wait()


def _announce(running: "Devnet", *, as_json: bool) -> None:
    urls = running.urls
    if as_json:
        click.echo(json.dumps(urls.to_json()))
        return
    click.echo(f"devnet runs at height {running.node.index.tip_height} ({running.node.name}):")
    click.echo(f"  Esplora     {urls.esplora_url}")
    click.echo(f"  Ark server  {urls.ark_server_url}")
    click.echo(f"  its admin   {urls.ark_admin_url}")
    click.echo(f"  levers      {urls.control_url}")
    if urls.bitcoind_url is not None:
        click.echo(f"  bitcoind    {urls.bitcoind_url} (cookie: {urls.bitcoind_cookie})")
    click.echo(f"Its state is in {urls.directory}. Ctrl-C stops it.")


@devnet.command()
@click.pass_obj
def status(directory: Path) -> None:
    """Show height, waiting transactions and addresses."""
    _print(_ask(directory, "GET", "/status"))


@devnet.command()
@click.argument("blocks", type=click.IntRange(min=1), default=1)
@click.pass_obj
def mine(directory: Path, blocks: int) -> None:
    """Mine BLOCKS blocks (1)."""
    _print(_ask(directory, "POST", "/mine", {"blocks": blocks}))


@devnet.command()
@click.argument("address")
@click.argument("amount_sat", type=click.IntRange(min=1))
@click.option("--no-mine", is_flag=True, help="Leave it unconfirmed.")
@click.pass_obj
def fund(directory: Path, address: str, amount_sat: int, no_mine: bool) -> None:
    """Pay AMOUNT_SAT to an on-chain ADDRESS and mine a block."""
    body = {"address": address, "amount_sat": amount_sat, "mine": not no_mine}
    _print(_ask(directory, "POST", "/fund", body))


@devnet.command()
@click.argument("depth", type=click.IntRange(min=1))
@click.pass_obj
def reorg(directory: Path, depth: int) -> None:
    """Replace the last DEPTH blocks by one more, all empty."""
    _print(_ask(directory, "POST", "/reorg", {"depth": depth}))


@devnet.command("round")
@click.pass_obj
def hold_round(directory: Path) -> None:
    """Let the Ark server hold a round now."""
    _print(_ask(directory, "POST", "/round"))


@devnet.command()
@click.argument("amount_sat", type=click.IntRange(min=1), required=False)
@click.pass_obj
def invoice(directory: Path, amount_sat: int | None) -> None:
    """A Lightning node outside Ark makes an invoice of AMOUNT_SAT, or of no amount."""
    _print(_ask(directory, "POST", "/lightning/invoice", {"amount_sat": amount_sat}))


@devnet.command()
@click.argument("text", metavar="INVOICE")
@click.pass_obj
def pay(directory: Path, text: str) -> None:
    """A Lightning node outside Ark pays the INVOICE of a wallet."""
    _print(_ask(directory, "POST", "/lightning/pay", {"invoice": text}))


def _ask(directory: Path, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """Send a request to the levers of the devnet in a directory. Raises ClickException."""
    state = read_state(directory)
    if state is None:
        raise click.ClickException(f"no devnet in {directory} ({STATE_FILE} is missing); name it with --dir")
    try:
        response = httpx.request(
            method,
            state["urls"]["control_url"] + path,
            json=body,
            timeout=_CONTROL_TIMEOUT_SECONDS,
            trust_env=False,
        )
    except httpx.HTTPError as error:
        raise click.ClickException(f"the devnet in {directory} does not answer; is it running?") from error
    answer = response.json()
    if response.is_error:
        raise click.ClickException(answer["error"])
    return answer


def _print(answer: Any) -> None:
    click.echo(json.dumps(answer, indent=2))
