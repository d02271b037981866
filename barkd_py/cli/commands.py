"""The commands. What only one of them needs is imported when it runs, so that the others start at once."""

import asyncio
import importlib
import logging
import os
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import click

from barkd_py import logs
from barkd_py.cli.flags import (
    ClapError,
    Flags,
    Options,
    StartupError,
    daemon_flags,
    flag,
    global_flags,
    read_flags,
    usage_of,
    web_ui_flags,
)
from barkd_py.cli.process import database_url, run_daemon
from barkd_py.datadir import Datadir
from barkd_py.errors import BarkdError
from barkd_py.version import VERSION

log = logging.getLogger(__name__)


def _prepare(options: Options) -> None:
    """Make the data directory and start logging to it. Raises DatadirError."""
    existed = options.datadir.prepare()
    _set_up_logs(options, options.log_file, existed=existed)


def _set_up_logs(options: Options, log_file: Path | None, *, existed: bool) -> None:
    logs.set_up(verbose=options.verbose, quiet=options.quiet, log_file=log_file)
    if existed:
        for warning in options.datadir.loose_modes(options.datadir.path, mode=0o700):
            log.warning("%s", warning)


class _Group(click.Group):
    """A group that mounts devnet only when it is asked for: it needs an extra, and the daemon does not."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*super().list_commands(ctx), *(["devnet"] if self.name == "barkd" else [])]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name != "devnet" or self.name != "barkd":
            return super().get_command(ctx, name)
        try:
            module = importlib.import_module("barkd_py.devnet.command")
        except ImportError as error:
            return _missing_devnet(error)
        command: click.Command = module.devnet
        return command


def _missing_devnet(error: ImportError) -> click.Command:
    def complain() -> NoReturn:
        raise StartupError(
            "barkd devnet needs the extra 'devnet': pip install '.[devnet]' in barkd-py's checkout"
        ) from BarkdError(str(error))

    return click.Command(
        "devnet", callback=complain, help="A whole regtest in one process (needs the extra devnet)"
    )


def _print_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        click.echo(f"barkd {VERSION} ()")
        ctx.exit()


_EPILOG = """\b
Environment without a flag:
  BARKD_DATABASE_URL   postgresql://USER:PASSWORD@HOST/DATABASE instead of <datadir>/db.sqlite
  BARKD_REST_CONTRACT  auto, 0.1.4 or 0.8.0: in which version's words clients are answered
  BARK_LOG             levels of the log, as in debug or info,barkd_py.api=trace
  BARK_<KEY>           beats that key of config.toml

\b
Requests need the token: Authorization: Bearer $(barkd secret show)
The API, to read and to try: http://127.0.0.1:3000/swagger-ui"""


@click.group(
    "barkd",
    cls=_Group,
    invoke_without_command=True,
    subcommand_metavar="[COMMAND]",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="Bark daemon: an Ark wallet with a REST API. Without a command it serves until SIGTERM or Ctrl-C.",
    epilog=_EPILOG,
)
@global_flags
@daemon_flags
@web_ui_flags
@click.option(
    "-V",
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_print_version,
    help="Print version",
)
@click.pass_context
def barkd(ctx: click.Context, /, **_flags: Any) -> None:
    if ctx.invoked_subcommand is None:
        options = read_flags(ctx)
        _prepare(options)
        run_daemon(options)


@barkd.group(cls=_Group, invoke_without_command=True, subcommand_metavar="<COMMAND>")
@global_flags
@click.pass_context
def secret(ctx: click.Context, /, **_flags: Any) -> None:
    """Manage auth secrets"""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
        ctx.exit(2)


def _prepare_subcommand(ctx: click.Context, *, make: bool = True) -> Datadir:
    """make: the data directory is made if it is missing; else nothing is written before the command does."""
    options = read_flags(ctx)
    if make or options.datadir.path.is_dir():
        _prepare(options)
    else:
        own = options.log_file == options.datadir.debug_log
        _set_up_logs(options, None if own else options.log_file, existed=False)
    if Flags(ctx, os.environ).was_given("port", "host"):
        log.warning("--port and --host are only used when running the daemon, ignoring")
    return options.datadir


@secret.command()
@global_flags
@click.pass_context
def show(ctx: click.Context, /, **_flags: Any) -> None:
    """Print the current bearer token"""
    from barkd_py.api.auth import load_token

    token = load_token(_prepare_subcommand(ctx))
    if token is None:
        raise StartupError("no auth token found — run `barkd secret refresh` to generate one")
    click.echo(token.encode())


@secret.command()
@global_flags
@flag("--secret", metavar="<SECRET>", help="The secret to use, as 64 hex characters")
@click.pass_context
def refresh(ctx: click.Context, /, **_flags: Any) -> None:
    """Regenerate the default auth secret and print the bearer token"""
    from barkd_py.api.auth import AuthToken, store_token

    given = Flags(ctx, os.environ).text("secret")
    if given is not None and re.fullmatch("[0-9a-fA-F]{64}", given) is None:
        raise ClapError(
            f"invalid value '{given}' for '--secret <SECRET>': must be exactly 64 hex characters (32 bytes)"
        )
    datadir = _prepare_subcommand(ctx)
    token = AuthToken.generate() if given is None else AuthToken(bytes.fromhex(given))
    store_token(datadir, token)
    log.info("Restart barkd for the new token to take effect.")
    click.echo(token.encode())


@barkd.command(short_help="Write the whole wallet to a file")
@global_flags
@flag("--with-mnemonic", is_flag=True, help="Take the mnemonic along: whoever has the file has the money")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.pass_context
def backup(ctx: click.Context, /, file: Path, **_flags: Any) -> None:
    """Write the whole wallet to FILE; the daemon may be running"""
    from barkd_py.daemon.backup import make

    with_mnemonic = Flags(ctx, os.environ).is_set("with_mnemonic")
    made = asyncio.run(
        make(
            _prepare_subcommand(ctx, make=False),
            database_url(),
            file,
            now=datetime.now(UTC),
            with_mnemonic=with_mnemonic,
        )
    )
    click.echo(f"Backup number {made.number} of wallet {made.fingerprint} is in {file}")
    if not with_mnemonic:
        click.echo("The mnemonic is not in it: you need both.")


@barkd.command(short_help="Put a backup back into an empty datadir")
@global_flags
@flag("--mnemonic-file", metavar="<FILE>", help="Where the words are; - is the standard input")
@flag(
    "--accept-stale",
    is_flag=True,
    help="Put it back even if it is not the newest state of the wallet, or nobody can tell",
)
@click.argument("file", type=click.Path(dir_okay=False, exists=True, path_type=Path))
@click.pass_context
def restore(ctx: click.Context, /, file: Path, **_flags: Any) -> None:
    """Put the backup in FILE back into an empty datadir; no daemon runs on it"""
    from barkd_py.daemon.backup import restore as put_back

    flags = Flags(ctx, os.environ)
    words = flags.text("mnemonic_file")
    done = asyncio.run(
        put_back(
            file,
            _prepare_subcommand(ctx, make=False),
            database_url(),
            ask_mnemonic=lambda: _read_words(words),
            accept_stale=flags.is_set("accept_stale"),
            now=datetime.now(UTC),
        )
    )
    for warning in done.warnings:
        click.echo(f"WARNING: {warning}", err=True)
    click.echo(f"Wallet {done.backup.fingerprint} is back, as it was at {done.backup.made_at}.")
    if done.aside is not None:
        click.echo(f"It is in the database of BARKD_DATABASE_URL now; its old one is {done.aside}.")
    click.echo("Start barkd: it looks for what has happened since before it does anything else.")


def _read_words(file: str | None) -> str:
    """The mnemonic, from a file, the standard input, or a person."""
    if file is None and not sys.stdin.isatty():
        raise StartupError("the backup has no mnemonic: give --mnemonic-file")
    if file is None:
        answer: str = click.prompt("Mnemonic", hide_input=True, err=True)
        return answer
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StartupError(f"failed to read {file}") from BarkdError(str(error))


@barkd.command("help", context_settings={"ignore_unknown_options": True})
@click.argument("command", nargs=-1)
@click.pass_context
def help_(ctx: click.Context, command: tuple[str, ...]) -> None:
    """Print this message or the help of the given subcommand(s)"""
    assert ctx.parent is not None
    context = ctx.parent
    for name in command:
        found = (
            context.command.get_command(context, name) if isinstance(context.command, click.Group) else None
        )
        if found is None:
            raise unknown_command(name, context)
        context = click.Context(found, info_name=name, parent=context)
    click.echo(context.get_help())


secret.add_command(help_)


def unknown_command(name: str, ctx: click.Context | None) -> ClapError:
    return ClapError(f"unrecognized subcommand '{name}'", usage_of(ctx))
