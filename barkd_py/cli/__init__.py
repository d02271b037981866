"""The `barkd` executable: flags, environment, exit codes, and the life of the daemon process.

A value comes from its flag, else from the environment, else there is a default. Exit codes: 0 after a clean
stop, 1 for an error before serving (`Error: …` and its causes on stderr), 2 for flags that cannot be
understood (in the words of barkd's own parser, which scripts match on).

    flags.py     what may be said          commands.py  what is done then
    process.py   the daemon's process      here         the entry point, and how errors are shown

Source: protocol sheet 07 §9.
"""

import os
import re
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from barkd_py.cli.commands import barkd, unknown_command
from barkd_py.cli.flags import ClapError, usage_of
from barkd_py.errors import KnownError, messages


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
    except KnownError as error:
        print(error_report(error), file=sys.stderr)
        sys.exit(1)
    sys.exit(result if isinstance(result, int) else 0)


def error_report(error: KnownError) -> str:
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
    usage = usage_of(error.ctx)
    match error:
        case click.NoSuchOption(option_name=name):
            return ClapError(f"unexpected argument '{name}' found", usage)
        case click.BadOptionUsage(option_name=name) if "does not take a value" in message:
            value = next((arg.partition("=")[2] for arg in sys.argv if arg.startswith(f"{name}=")), "")
            return ClapError(
                f"unexpected value '{value}' for '{name}' found; no more were expected", f"barkd {name}"
            )
        case click.BadOptionUsage(option_name=name):
            label = name.lstrip("-").replace("-", "_").upper()
            return ClapError(f"a value is required for '{name} <{label}>' but none was supplied")
        case _ if match := re.match(r"No such command '(.*)'", message):
            return unknown_command(match[1], error.ctx)
        case _ if match := re.match(r"Got unexpected extra arguments? \(([^ )]*)", message):
            return ClapError(f"unexpected argument '{match[1]}' found", usage)
        case _:
            return ClapError(message, usage)
