"""Every recorded answer of barkd is asked for again by some test, or has its reason here."""

import ast
from pathlib import Path

from tests.api import test_live_notifications
from tests.contract import (
    test_recorded,
    test_recorded_exits,
    test_recorded_life,
    test_recorded_rounds,
    test_recorded_wallets,
)
from tests.contract.recorded import Case, cases, command_lines

CLI_TESTS = ast.parse((Path(__file__).parent.parent / "test_cli.py").read_text())

NOT_REPLAYED = {
    "unknown path: POST /nope": "barkd repeats the request's body; a line of docs/contract.md",
    "query /exits/status?history=garbage": "barkd loses the query; a line of docs/contract.md",
    "query /exits/status?history=true&transactions=true": "as above",
    "GET /swagger-ui": "that barkd was built without it; see tests/api/test_swagger.py",
    "GET /swagger-ui/": "as above",
    "GET /swagger-ui/index.html": "as above",
    "GET /swagger-ui/swagger-ui.css": "as above",
    "GET /swagger-ui/nope": "as above",
    "GET /api-docs/openapi.json": "as above",
    "create: bitcoind wrong password": "needs a bitcoind with passwords; see tests/chain/test_bitcoind.py",
    "create: broken config": "in the words of a TOML parser; see tests/test_config.py",
    "lightning: unknown hash": "a 500, but a 404 in every description; a line of docs/contract.md",
    "receives by invoice": "as above",
    "refresh/counterparty": "of six VTXOs whose amounts and ages were not recorded",
    "send: amount zero": "barkd does not answer; ours is a 500, see docs/api.md",
}
"""Names of cases that are answered otherwise, or cannot be asked; and why."""

COMMAND_LINES = {
    "secret --help": "test_help_of_a_subcommand",
    "secret without subcommand": "test_secret_alone_prints_its_help_as_an_error",
    "secret show": "test_the_life_of_a_secret",
    "secret show, datadir after the subcommand": "test_the_life_of_a_secret",
    "secret refresh --secret": "test_the_life_of_a_secret",
    "secret refresh: upper case": "test_the_life_of_a_secret",
    "secret show with --port": "test_the_life_of_a_secret",
    "secret show quiet": "test_the_life_of_a_secret",
    "secret refresh quiet": "test_the_life_of_a_secret",
    "secret show: spaces in the file": "test_the_life_of_a_secret",
    "secret with --no-auth": "test_the_life_of_a_secret",
    "-v with -q": "test_verbose_and_quiet_contradict_each_other",
    "env BARKD_NO_AUTH": "test_auth_cannot_be_switched_off_by_the_environment",
    "env port": "test_settings_from_the_environment",
    "--logfile in a missing folder": "test_a_log_file_that_cannot_be_opened_is_no_reason_to_stop",
    "quiet": "test_a_quiet_daemon_says_nothing",
    "second instance, bad token ignored": "test_a_second_daemon_is_refused_and_the_first_goes_on",
    "secret show while a daemon runs": "test_start_serve_stop",
    "secret refresh while a daemon runs": "test_start_serve_stop",
    "SIGINT with an idle kept-alive connection": "test_an_idle_connection_does_not_hold_up_the_stop",
    "--no-ui in a build without the web UI": "not run: ours knows the flags of the builds that have it",
}
"""Recorded command lines that a test of tests/test_cli.py runs without naming them; or why none does."""

EVENT_TESTS = [
    ast.parse((Path(__file__).parent.parent / "api" / name).read_text())
    for name in ("test_live_notifications.py", "test_notifications.py")
]

TOLD_OTHERWISE = {
    "create while an old websocket is open": "test_deletion_closes_the_socket_and_a_new_wallet_can_be_made",
    "wallet from a mnemonic": (
        "test_deletion_ends_sockets_and_polls_and_the_next_wallet_is_made_while_they_are_open"
    ),
    "websocket: good ticket, no wallet": ("test_without_a_wallet_a_ticket_is_used_up_and_the_socket_closed"),
    "wait: nothing happens, no since": "test_nothing_happened",
    "wait: no since, buffered events at once": "test_each_event_is_delivered_once_to_a_client_that_goes_on",
    "wait: since before the events": "test_each_event_is_delivered_once_to_a_client_that_goes_on",
}
"""Recorded cases about events that a test of those files tells without naming them."""


def _key(case: Case) -> tuple[str, str, str, str | None, str, str]:
    return (case.state, case.name, case.path, case.query, str(case.body), str(case.auth))


def _replayed() -> set[tuple[str, str, str, str | None, str, str]]:
    life = [case for state in test_recorded_life.TOLD for case in test_recorded_life.told(state)]
    created = [case for case in cases() if case.name in test_recorded_life.CREATIONS]
    selections = (
        test_recorded.SELECTED,
        test_recorded_exits.SELECTED,
        test_recorded_rounds.SELECTED,
        test_recorded_wallets.SELECTED,
        life,
        created,
    )
    return {_key(case) for selected in selections for case in selected}


def _texts(tree: ast.AST) -> set[str]:
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def _told_with_events() -> set[str]:
    """Names of the cases that are replayed with websockets and long polls."""
    named = set().union(*map(_texts, EVENT_TESTS))
    handshakes = {case.name for case in test_live_notifications.REFUSED_HANDSHAKES}
    return named | handshakes | TOLD_OTHERWISE.keys()


def _is_elsewhere(case: Case) -> bool:
    return case.name in _told_with_events()


def test_every_recorded_answer_is_asked_for_again_or_has_its_reason() -> None:
    replayed = _replayed()
    left = [case for case in cases() if _key(case) not in replayed and not _is_elsewhere(case)]
    assert {case.name for case in left} == NOT_REPLAYED.keys()
    assert len(cases()) - len(left) > 1_000


def test_what_is_told_otherwise_is_told() -> None:
    functions = {
        node.name
        for tree in EVENT_TESTS
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert set(TOLD_OTHERWISE.values()) <= functions
    assert TOLD_OTHERWISE.keys() <= {case.name for case in cases()}


def test_every_recorded_command_line_is_run_again_or_has_its_reason() -> None:
    named = _texts(CLI_TESTS)
    functions = {node.name for node in ast.walk(CLI_TESTS) if isinstance(node, ast.FunctionDef)}
    origins = {f"allowed origin {text!r}" for text in named}
    left = [line["name"] for line in command_lines() if line["name"] not in named | origins]
    assert set(left) == COMMAND_LINES.keys()
    assert {test for test in COMMAND_LINES.values() if not test.startswith("not run")} <= functions
