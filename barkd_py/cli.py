"""The `barkd` executable: flags, environment, exit codes, and the life of the daemon process.

A value comes from its flag, else from the environment, else there is a default. Exit codes: 0 after a clean
stop, 1 for an error before serving (`Error: …` and its causes on stderr), 2 for flags that cannot be
understood (in the words of barkd's own parser, which scripts match on).

Start: flags, data directory, logging, subcommand or: network flags, process lock, token, wallet, socket,
serve. Stop, on SIGTERM or SIGINT: end the long polls, let running requests finish for a while, close the
wallet. A second signal changes nothing.

Source: protocol sheet 07 §9.
"""

import asyncio
import contextlib
import gc
import importlib
import ipaddress
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NoReturn

import click

from barkd_py import logs
from barkd_py.datadir import Datadir
from barkd_py.errors import BarkdError, messages
from barkd_py.version import VERSION

log = logging.getLogger(__name__)

DEFAULT_PORT: Final = 3000
DEFAULT_HOST: Final = "127.0.0.1"
_TRUE: Final = frozenset({"y", "yes", "t", "true", "on", "1"})
_FALSE: Final = frozenset({"n", "no", "f", "false", "off", "0"})
_TRY_HELP: Final = "For more information, try '--help'."


class StartupError(BarkdError):
    """The daemon cannot start as asked."""


class ClapError(click.ClickException):
    """Flags that cannot be understood. Printed as barkd's parser prints it; exit code 2."""

    exit_code = 2

    def __init__(self, message: str, usage: str | None = None, hint: str = _TRY_HELP) -> None:
        super().__init__(message)
        self.usage = usage
        self.hint = hint

    def show(self, file: Any = None) -> None:
        usage = f"Usage: {self.usage}\n\n" if self.usage else ""
        click.echo(f"error: {self.message}\n\n{usage}{self.hint}", file=file or sys.stderr)


# --- declaring flags


class Flag(click.Option):
    """An option as barkd has them: once at most, from the environment if not given, errors in its words.

    Click only collects: texts in a tuple, or how often a flag without a value was given. `read` judges.
    """

    def __init__(self, names: Sequence[str], *, env: str | None = None, **options: Any) -> None:
        self.env = env
        if not options.get("is_flag"):
            options["type"] = str
        options["multiple"] = not options.get("is_flag")
        options["count"] = options.pop("is_flag", False)
        help_text = options.get("help", "")
        options["help"] = f"{help_text} [env: {env}=]" if env else help_text
        super().__init__(list(names), **options)

    @property
    def shown(self) -> str:
        """`--port <PORT>`, `--no-auth`."""
        return self.opts[-1] if self.count else f"{self.opts[-1]} <{self.human_readable_name.upper()}>"

    @property
    def is_repeatable(self) -> bool:
        return self.name == "allowed_origins"

    def read(self, raw: Any) -> str | bool | None:
        """The value from what click collected. Raises ClapError if the flag was given twice."""
        given: list[Any] = list(raw) if isinstance(raw, tuple) else [True] * (raw or 0)
        if len(given) > 1 and not self.is_repeatable:
            raise ClapError(f"the argument '{self.shown}' cannot be used multiple times", _USAGE)
        if not given:
            return None
        value: str | bool = ",".join(given) if self.is_repeatable else given[0]
        return value


_USAGE: Final = "barkd [OPTIONS] [COMMAND]"
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def _all(*decorators: Decorator) -> Decorator:
    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


def _flag(*names: str, **options: Any) -> Decorator:
    return click.option(*names, cls=Flag, **options)


_global_flags: Final = _all(
    _flag("-v", "--verbose", is_flag=True, env="BARK_VERBOSE", help="Enable verbose logging"),
    _flag("-q", "--quiet", is_flag=True, env="BARK_QUIET", help="Disable all terminal logging"),
    _flag(
        "--logfile",
        env="BARK_LOGFILE",
        metavar="<LOGFILE>",
        help="Write the debug log to this file instead of the default `<datadir>/debug.log`",
    ),
    _flag("--no-logfile", is_flag=True, env="BARK_NO_LOGFILE", help="Disable the debug log file entirely"),
    _flag(
        "--datadir",
        env="BARKD_DATADIR",
        metavar="<DATADIR>",
        help="The datadir of the bark wallet [default: ~/.bark]",
    ),
)

_daemon_flags: Final = _all(
    _flag(
        "--port",
        env="BARKD_BIND_PORT",
        metavar="<PORT>",
        help=f"The port to listen on [default: {DEFAULT_PORT}]",
    ),
    _flag(
        "--host",
        env="BARKD_BIND_HOST",
        metavar="<HOST>",
        help="The host to listen on. Defaults to loopback; any other value may expose the API to other "
        "machines on your network or the public internet",
    ),
    _flag(
        "--allowed-origins",
        env="BARKD_ALLOWED_ORIGINS",
        metavar="<ALLOWED_ORIGINS>",
        help="Comma-separated list of allowed CORS origins (e.g. "
        '"http://localhost:3001,https://myapp.example.com"). Defaults to denying all cross-origin requests; '
        "any value may expose the API to browser clients on other origins",
    ),
    _flag(
        "--expose-mnemonic",
        is_flag=True,
        env="BARKD_EXPOSE_MNEMONIC",
        help="Expose `GET /api/v1/wallet/mnemonic`, which returns the wallet's BIP-39 mnemonic phrase. "
        "Disabled by default; while disabled the endpoint responds with 404",
    ),
    _flag("--no-auth", is_flag=True, help="Disables all authentication. Needs a loopback bind host"),
    _flag(
        "--dangerously-allow-remote-no-auth",
        is_flag=True,
        help="Disables all authentication and permits a non-loopback bind",
    ),
)


# --- reading flags


class Flags:
    """The flags of a command and the ones before it, with the environment behind them."""

    def __init__(self, ctx: click.Context, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._options: dict[str, Flag] = {}
        self._values: dict[str, Any] = {}
        chain: list[click.Context] = []
        current: click.Context | None = ctx
        while current is not None:
            chain.append(current)
            current = current.parent
        for context in reversed(chain):  # what stands nearer to the command wins
            for option in context.command.params:
                if isinstance(option, Flag) and option.name is not None:
                    self._options[option.name] = option
                    value = option.read(context.params.get(option.name))
                    if value is not None:
                        self._values[option.name] = value

    def text(self, name: str) -> str | None:
        value: str | None = self._values.get(name)
        env = self._options[name].env
        return value if value is not None or env is None else self._environment.get(env)

    def is_set(self, name: str) -> bool:
        """Raises ClapError for an environment variable that is no boolean."""
        if self._values.get(name):
            return True
        option = self._options[name]
        text = self._environment.get(option.env) if option.env else None
        if text is None:
            return False
        if text.lower() not in _TRUE | _FALSE:
            raise ClapError(f"invalid value '{text}' for '{option.shown}': value was not a boolean")
        return text.lower() in _TRUE

    def was_given(self, *names: str) -> bool:
        return any(self.text(name) is not None for name in names)

    def port(self) -> int:
        text = self.text("port")
        if text is None:
            return DEFAULT_PORT
        digits = text.removeprefix("+")
        if not text:
            problem = "cannot parse integer from empty string"
        elif not digits or re.fullmatch("[0-9]+", digits) is None:
            problem = "invalid digit found in string"
            if re.fullmatch("-[0-9]+", text):
                problem = f"{int(text)} is not in 0..=65535"
        elif int(digits) > 0xFFFF:
            problem = f"{int(digits)} is not in 0..=65535"
        else:
            return int(digits)
        raise ClapError(f"invalid value '{text}' for '--port <PORT>': {problem}")


@dataclass(frozen=True, slots=True)
class Options:
    """What the flags say, as far as it can be told without looking at anything."""

    datadir: Datadir
    log_file: Path | None
    verbose: bool
    quiet: bool
    port: int
    host: str
    allowed_origins: tuple[str, ...]
    expose_mnemonic: bool
    no_auth: bool
    remote_no_auth: bool


def _read_flags(ctx: click.Context) -> Options:
    """Raises ClapError. Ends the process for flags that contradict each other."""
    flags = Flags(ctx, os.environ)
    log_file = flags.text("logfile")
    verbose, quiet = flags.is_set("verbose"), flags.is_set("quiet")
    no_log_file = flags.is_set("no_logfile")
    if log_file is not None and no_log_file:
        raise ClapError(
            "the argument '--logfile <LOGFILE>' cannot be used with '--no-logfile'",
            "barkd --logfile <LOGFILE>",
        )
    origins = flags.text("allowed_origins")
    datadir = Datadir(Path(flags.text("datadir") or _default_datadir()))
    options = Options(
        datadir=datadir,
        log_file=None if no_log_file else Path(log_file) if log_file else datadir.debug_log,
        verbose=verbose,
        quiet=quiet,
        port=flags.port(),
        host=DEFAULT_HOST if (host := flags.text("host")) is None else host,
        allowed_origins=() if origins is None else tuple(origins.split(",")),
        expose_mnemonic=flags.is_set("expose_mnemonic"),
        no_auth=flags.is_set("no_auth"),
        remote_no_auth=flags.is_set("dangerously_allow_remote_no_auth"),
    )
    if verbose and quiet:
        click.echo("Can't set both --verbose and --quiet")
        sys.exit(1)
    return options


def _default_datadir() -> str:
    home = os.environ.get("HOME")
    return str(Path(home) / ".bark") if home else str(Path.cwd() / ".bark")


def _prepare(options: Options) -> None:
    """Make the data directory and start logging to it. Raises DatadirError."""
    existed = options.datadir.prepare()
    logs.set_up(verbose=options.verbose, quiet=options.quiet, log_file=options.log_file)
    if existed:
        for warning in options.datadir.loose_modes(options.datadir.path, mode=0o700):
            log.warning("%s", warning)


# --- the commands


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
        raise StartupError("barkd devnet needs an extra: pip install 'barkd-py[devnet]'") from BarkdError(
            str(error)
        )

    return click.Command(
        "devnet", callback=complain, help="A whole regtest in one process (needs barkd-py[devnet])"
    )


def _print_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        click.echo(f"barkd {VERSION} ()")
        ctx.exit()


@click.group(
    "barkd",
    cls=_Group,
    invoke_without_command=True,
    subcommand_metavar="[COMMAND]",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="Bark daemon",
)
@_global_flags
@_daemon_flags
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
        options = _read_flags(ctx)
        _prepare(options)
        _run_daemon(options)


@barkd.group(cls=_Group, invoke_without_command=True, subcommand_metavar="<COMMAND>")
@_global_flags
@click.pass_context
def secret(ctx: click.Context, /, **_flags: Any) -> None:
    """Manage auth secrets"""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
        ctx.exit(2)


def _prepare_subcommand(ctx: click.Context) -> Datadir:
    options = _read_flags(ctx)
    _prepare(options)
    if Flags(ctx, os.environ).was_given("port", "host"):
        log.warning("--port and --host are only used when running the daemon, ignoring")
    return options.datadir


@secret.command()
@_global_flags
@click.pass_context
def show(ctx: click.Context, /, **_flags: Any) -> None:
    """Print the current bearer token"""
    from barkd_py.api.auth import load_token

    token = load_token(_prepare_subcommand(ctx))
    if token is None:
        raise StartupError("no auth token found — run `barkd secret refresh` to generate one")
    click.echo(token.encode())


@secret.command()
@_global_flags
@_flag("--secret", metavar="<SECRET>", help="The secret to use, as 64 hex characters")
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


@barkd.command()
@_global_flags
@_flag("--with-mnemonic", is_flag=True, help="Take the mnemonic along: whoever has the file has the money")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.pass_context
def backup(ctx: click.Context, /, file: Path, **_flags: Any) -> None:
    """Write the whole wallet to FILE; the daemon may be running"""
    from barkd_py.daemon.backup import make

    with_mnemonic = Flags(ctx, os.environ).is_set("with_mnemonic")
    made = asyncio.run(
        make(
            _prepare_subcommand(ctx),
            os.environ.get("BARKD_DATABASE_URL"),
            file,
            now=datetime.now(UTC),
            with_mnemonic=with_mnemonic,
        )
    )
    click.echo(f"Backup number {made.number} of wallet {made.fingerprint} is in {file}")
    if not with_mnemonic:
        click.echo("The mnemonic is not in it: you need both.")


@barkd.command()
@_global_flags
@_flag("--mnemonic-file", metavar="<FILE>", help="Where the words are; - is the standard input")
@_flag(
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
            _prepare_subcommand(ctx),
            os.environ.get("BARKD_DATABASE_URL"),
            ask_mnemonic=lambda: _read_words(words),
            accept_stale=flags.is_set("accept_stale"),
        )
    )
    for warning in done.warnings:
        click.echo(f"WARNING: {warning}", err=True)
    click.echo(f"Wallet {done.backup.fingerprint} is back, as it was at {done.backup.made_at}.")
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
            raise _unknown_command(name)
        context = click.Context(found, info_name=name, parent=context)
    click.echo(context.get_help())


def _unknown_command(name: str) -> ClapError:
    return ClapError(f"unrecognized subcommand '{name}'", _USAGE)


# --- the daemon


def _run_daemon(options: Options) -> None:
    """Serve until a signal comes. Raises BarkdError for everything that keeps the daemon from starting."""
    host = _check_host(options)
    _check_origins(options.allowed_origins)
    log.info("Starting barkd version %s () with datadir %s", VERSION, options.datadir.path)
    lock = options.datadir.lock_process().acquire()
    gc.disable()  # nothing of what is imported and set up from here on is garbage; see _serve
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_serve(options, host))
    finally:
        lock.release()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # it does not exist for every platform
        return None
    return uvloop.new_event_loop


async def _serve(options: Options, host: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    from barkd_py.api.app import BarkdApi
    from barkd_py.api.deps import ApiState
    from barkd_py.api.server import ApiServer, bind, describe_address
    from barkd_py.daemon.backend import default_backend
    from barkd_py.daemon.runtime import Runtime

    stop = _stop_signal()
    token = _settle_auth(options, host)
    runtime = Runtime(options.datadir, default_backend(os.environ.get("BARKD_DATABASE_URL")))
    try:
        if not await _open_wallet(runtime, stop):
            return
        listener = bind(host, options.port)
        state = ApiState(
            runtime,
            token,
            allowed_origins=frozenset(origin.encode() for origin in options.allowed_origins),
            expose_mnemonic=options.expose_mnemonic,
            loopback_only=host.is_loopback and not options.remote_no_auth,
            rest_contract=_rest_contract(),
        )
        server = ApiServer(BarkdApi(state), listener)
        if token is None:
            log.warning("No auth token configured — all authentication is disabled")
        gc.freeze()
        gc.enable()
        log.info("Server starting on http://%s", describe_address(listener))
        log.info("Swagger UI is hosted on http://%s/swagger-ui", describe_address(listener))
        serving = asyncio.create_task(server.run_until_stopped())
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        runtime.begin_stop()
        server.stop()
        await serving
    finally:
        await runtime.close()
    log.info("Server stopped running")


async def _open_wallet(runtime: Any, stop: asyncio.Event) -> bool:
    """Load the wallet if there is one; False if the daemon was told to stop meanwhile."""
    opening = asyncio.create_task(runtime.open_existing())
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait((opening, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not opening.done():
        opening.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await opening
        return False
    if opening.result():
        log.info("Wallet loaded and daemon started")
    elif not runtime.is_standing_by:
        log.warning("No wallet found. Starting rest server without daemon")
    return True


def _stop_signal() -> asyncio.Event:
    """Set by the first SIGTERM or SIGINT."""
    stop = asyncio.Event()

    def receive(name: str) -> None:
        if not stop.is_set():
            log.info("%s received! Sending shutdown signal...", name)
            stop.set()

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, receive, "SIGTERM")
    loop.add_signal_handler(signal.SIGINT, receive, "Ctrl+C")
    return stop


def _settle_auth(options: Options, host: ipaddress.IPv4Address | ipaddress.IPv6Address) -> Any:
    """The token that requests must carry; None if authentication is off."""
    from barkd_py.api.auth import load_or_create_token

    if not options.no_auth and not options.remote_no_auth:
        return load_or_create_token(options.datadir)
    if not options.remote_no_auth and not host.is_loopback:
        raise StartupError(
            f"refusing to start: --no-auth with bind host {host} would give full wallet access to every "
            "client that can reach the port. Bind a loopback address, or use "
            "--dangerously-allow-remote-no-auth instead if reachability is restricted by other means "
            "(and terminate TLS in front of barkd)"
        )
    if not options.allowed_origins:
        log.warning(
            "Auth is disabled and no CORS origins are configured — any client that can reach this port has "
            "full API access."
        )
    return None


def _check_host(options: Options) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    if options.port == 0:
        raise StartupError(
            f"--port 0 is not supported; barkd listens on a fixed port (default {DEFAULT_PORT})"
        )
    try:
        return ipaddress.ip_address(options.host)
    except ValueError:
        raise StartupError(f"invalid bind host: {options.host}") from StartupError(
            "invalid IP address syntax"
        )


def _check_origins(origins: Sequence[str]) -> None:
    for origin in origins:
        if not origin.isascii() or not origin.isprintable():
            raise StartupError(f"invalid CORS origin: {origin}")
        if not origin.startswith(("http://", "https://")) or origin.endswith("/") or origin.count("://") != 1:
            raise StartupError(
                f"invalid CORS origin: {origin} (expected format: http://host[:port] or https://host[:port])"
            )


def _rest_contract() -> str | None:
    setting = os.environ.get("BARKD_REST_CONTRACT")
    if setting not in (None, "auto", "0.1.4", "0.8.0"):
        raise StartupError(f"BARKD_REST_CONTRACT must be auto, 0.1.4 or 0.8.0, got {setting}")
    return setting


# --- the process


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """The entry point."""
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # its own notes on stderr say nothing that we do not log
    try:
        result = barkd.main(
            args=list(sys.argv[1:] if arguments is None else arguments),
            prog_name="barkd",
            standalone_mode=False,
        )
    except click.exceptions.Abort:
        sys.exit(130)
    except ClapError as error:
        error.show()
        sys.exit(2)
    except click.UsageError as error:
        _in_barkds_words(error).show()
        sys.exit(2)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except BarkdError as error:
        print(error_report(error), file=sys.stderr)
        sys.exit(1)
    sys.exit(result if isinstance(result, int) else 0)


def error_report(error: BarkdError) -> str:
    """The error and what caused it, for people."""
    outermost, *reasons = messages(error)
    report = f"Error: {outermost}"
    if reasons:
        numbered = len(reasons) > 1
        lines = [
            f"    {index}: {reason}" if numbered else f"    {reason}" for index, reason in enumerate(reasons)
        ]
        report += "\n\nCaused by:\n" + "\n".join(lines)
    return report


def _in_barkds_words(error: click.UsageError) -> ClapError:
    """Click's complaint as barkd's parser puts it."""
    message = error.format_message()
    if error.ctx is not None and error.ctx.command_path.startswith("barkd devnet"):  # barkd has no such thing
        usage = " ".join(error.ctx.get_usage().removeprefix("Usage:").split())
        return ClapError(message, usage, f"For more information, try '{error.ctx.command_path} --help'.")
    match error:
        case click.NoSuchOption(option_name=name):
            return ClapError(f"unexpected argument '{name}' found", _USAGE)
        case click.BadOptionUsage(option_name=name) if "does not take a value" in message:
            value = next((arg.partition("=")[2] for arg in sys.argv if arg.startswith(f"{name}=")), "")
            return ClapError(
                f"unexpected value '{value}' for '{name}' found; no more were expected", f"barkd {name}"
            )
        case click.BadOptionUsage(option_name=name):
            label = name.lstrip("-").replace("-", "_").upper()
            return ClapError(f"a value is required for '{name} <{label}>' but none was supplied")
        case _ if match := re.match(r"No such command '(.*)'", message):
            return _unknown_command(match[1])
        case _ if match := re.match(r"Got unexpected extra arguments? \(([^ )]*)", message):
            return ClapError(f"unexpected argument '{match[1]}' found", _USAGE)
        case _:
            return ClapError(message, _USAGE)


if __name__ == "__main__":
    main()
