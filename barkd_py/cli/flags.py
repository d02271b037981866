"""The flags: declared as barkd has them, read with the environment behind them.

Click only collects what was given; what it means, and the complaints, are decided here, in the words of
barkd's own parser. Source: protocol sheet 07 §9.2.
"""

import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from barkd_py.datadir import Datadir
from barkd_py.errors import BarkdError

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

    def read(self, raw: Any, usage: str) -> str | bool | None:
        """The value from what click collected. Raises ClapError if the flag was given twice."""
        given: list[Any] = list(raw) if isinstance(raw, tuple) else [True] * (raw or 0)
        if len(given) > 1 and not self.is_repeatable:
            raise ClapError(f"the argument '{self.shown}' cannot be used multiple times", usage)
        if not given:
            return None
        value: str | bool = ",".join(given) if self.is_repeatable else given[0]
        return value


USAGE: Final = "barkd [OPTIONS] [COMMAND]"


def usage_of(ctx: click.Context | None) -> str:
    """How the command is called, as in the second line of a complaint."""
    if ctx is None:
        return USAGE
    return " ".join([ctx.command_path, *ctx.command.collect_usage_pieces(ctx)])


Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def all_of(*decorators: Decorator) -> Decorator:
    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


def flag(*names: str, **options: Any) -> Decorator:
    return click.option(*names, cls=Flag, **options)


global_flags: Final = all_of(
    flag("-v", "--verbose", is_flag=True, env="BARK_VERBOSE", help="Enable verbose logging"),
    flag("-q", "--quiet", is_flag=True, env="BARK_QUIET", help="Disable all terminal logging"),
    flag(
        "--logfile",
        env="BARK_LOGFILE",
        metavar="<LOGFILE>",
        help="Write the debug log to this file instead of the default `<datadir>/debug.log`",
    ),
    flag("--no-logfile", is_flag=True, env="BARK_NO_LOGFILE", help="Disable the debug log file entirely"),
    flag(
        "--datadir",
        env="BARKD_DATADIR",
        metavar="<DATADIR>",
        help="The datadir of the bark wallet [default: ~/.bark]",
    ),
)

daemon_flags: Final = all_of(
    flag(
        "--port",
        env="BARKD_BIND_PORT",
        metavar="<PORT>",
        help=f"The port to listen on [default: {DEFAULT_PORT}]",
    ),
    flag(
        "--host",
        env="BARKD_BIND_HOST",
        metavar="<HOST>",
        help="The host to listen on. Defaults to loopback; any other value may expose the API to other "
        "machines on your network or the public internet",
    ),
    flag(
        "--allowed-origins",
        env="BARKD_ALLOWED_ORIGINS",
        metavar="<ALLOWED_ORIGINS>",
        help="Comma-separated list of allowed CORS origins (e.g. "
        '"http://localhost:3001,https://myapp.example.com"). Defaults to denying all cross-origin requests; '
        "any value may expose the API to browser clients on other origins",
    ),
    flag(
        "--expose-mnemonic",
        is_flag=True,
        env="BARKD_EXPOSE_MNEMONIC",
        help="Expose `GET /api/v1/wallet/mnemonic`, which returns the wallet's BIP-39 mnemonic phrase. "
        "Disabled by default; while disabled the endpoint responds with 404",
    ),
    flag("--no-auth", is_flag=True, help="Disables all authentication. Needs a loopback bind host"),
    flag(
        "--dangerously-allow-remote-no-auth",
        is_flag=True,
        help="Disables all authentication and permits a non-loopback bind",
    ),
)

#: Of barkd's release builds, which have a web interface. There is none here: accepted, so that their unit
#: files and containers work, and without effect.
web_ui_flags: Final = all_of(
    flag("--no-ui", is_flag=True, env="BARKD_NO_UI", help="Ignored: there is no web UI, use /swagger-ui"),
    *(
        flag(
            f"--ui-default-{name}",
            env=f"BARKD_UI_DEFAULT_{name.replace('-', '_').upper()}",
            metavar=f"<UI_DEFAULT_{name.replace('-', '_').upper()}>",
            help="Ignored, see --no-ui",
        )
        for name in ("ark-server", "chain-source", "network")
    ),
)


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
                    value = option.read(context.params.get(option.name), usage_of(ctx))
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

    def ignored(self) -> tuple[str, ...]:
        """The flags of the web UI that say something. Raises ClapError, as barkd would."""
        settings = [option for name, option in self._options.items() if name.startswith("ui_default_")]
        said = [option.opts[-1] for option in settings if option.name and self.text(option.name) is not None]
        return ("--no-ui", *said) if self.is_set("no_ui") else tuple(said)

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
    ignored: tuple[str, ...] = ()
    """Flags that were given, or set in the environment, and mean nothing here."""


def read_flags(ctx: click.Context) -> Options:
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
    if log_file == "":
        raise ClapError("a value is required for '--logfile <LOGFILE>' but none was supplied")
    origins = flags.text("allowed_origins")
    chosen = flags.text("datadir")
    if chosen == "":  # a variable that was never set, say; never the default, where another wallet may be
        raise StartupError("failed to harden permissions on ") from BarkdError(
            "No such file or directory (os error 2)"
        )
    datadir = Datadir(Path(_default_datadir() if chosen is None else chosen))
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
        ignored=flags.ignored(),
    )
    if verbose and quiet:
        click.echo("Can't set both --verbose and --quiet")
        sys.exit(1)
    return options


def _default_datadir() -> str:
    home = os.environ.get("HOME")
    return str(Path(home) / ".bark") if home else str(Path.cwd() / ".bark")
