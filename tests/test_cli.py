"""The executable as a process: flags, environment, exit codes, output, start and stop.

Where the real barkd was recorded doing the same, its output is the expectation.
"""

import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
import pytest

from tests.contract.recorded import command_lines
from tests.support.processes import free_port

ROOT = Path(__file__).parent.parent
DEADLINE_SECS = 90
RECORDED = {case["name"]: case for case in command_lines()}
get = partial(httpx.get, timeout=DEADLINE_SECS)
TOKEN_TEXT = "ACoqKioqKioqKioqKioqKioqKioqKioqKioqKioqKioq"

_TIME = re.compile(r"\[[0-9-]{10} [0-9:.]{12} [+-][0-9]{2}:[0-9]{2} ")


@dataclass(frozen=True, slots=True)
class Result:
    code: int
    out: str
    err: str


def _environment(extra: Mapping[str, str]) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("BARK_", "BARKD_"))}
    return {**kept, "PYTHONPATH": str(ROOT), **extra}


def _command(arguments: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "barkd_py.cli", *arguments]


def run(*arguments: str, **environment: str) -> Result:
    done = subprocess.run(
        _command(arguments),
        env=_environment(environment),
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECS,
        check=False,
    )
    return Result(done.returncode, done.stdout, done.stderr)


def expected_errors(name: str, datadir: Path | str = "") -> str:
    """What barkd wrote to stderr, as we would: we have no -dev builds."""
    text: str = RECORDED[name]["stderr"].replace("<datadir>", str(datadir))
    lines = [line for line in text.splitlines(keepends=True) if "custom build of barkd" not in line]
    return "".join(lines).replace("0.8.0-dev", "0.8.0")


def without_times(text: str) -> str:
    return _TIME.sub("[<time> ", text)


@pytest.fixture
def datadir(tmp_path: Path) -> Path:
    return tmp_path / "datadir"


# --- flags


@pytest.mark.parametrize(
    "name",
    [
        "unknown flag",
        "unknown subcommand",
        "help of an unknown subcommand",
        "secret refresh: 63 hex",
        "secret refresh: not hex",
        "secret refresh: 0x",
        "secret refresh: empty",
        "port 70000",
        "port text",
        "env true spelled wrong",
        "env port empty",
        "flag given twice",
        "--no-auth with a value",
    ],
)
def test_flags_that_are_not_understood(name: str, datadir: Path) -> None:
    case = RECORDED[name]
    result = run(*(text.replace("<datadir>", str(datadir)) for text in case["args"]), **case["env"])
    assert (result.code, result.out, result.err) == (2, "", case["stderr"])
    assert not datadir.exists()


def test_flags_that_are_refused_with_a_shorter_hint(datadir: Path) -> None:
    case = RECORDED["--logfile with --no-logfile"]
    result = run(*(text.replace("<datadir>", str(datadir)) for text in case["args"]))
    assert (result.code, result.out) == (2, "")
    assert result.err.splitlines()[0] == case["stderr"].splitlines()[0]


@pytest.mark.parametrize("arguments", [["--version"], ["-V"]])
def test_version(arguments: list[str]) -> None:
    assert run(*arguments) == Result(0, "barkd 0.8.0 ()\n", "")


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["help"]])
def test_help_names_every_flag_of_barkd(arguments: list[str]) -> None:
    result = run(*arguments)
    assert (result.code, result.err) == (0, "")
    recorded: str = RECORDED["-h"]["stdout"]
    flags = re.findall(r"--[a-z-]+(?: <[A-Z_]+>)?", recorded.partition("Options:")[2])
    variables = re.findall(r"env: (BARKD?_[A-Z_]+)=", recorded)
    flags += ["--no-ui", "--ui-default-ark-server", "--ui-default-chain-source", "--ui-default-network"]
    squeezed = " ".join(result.out.split())
    assert [flag for flag in {*flags, *variables} if flag not in squeezed] == []
    assert "Usage: barkd [OPTIONS] [COMMAND]" in result.out


def test_flags_of_barkds_web_ui_are_looked_at() -> None:
    for result in (run("--no-ui=yes"), run(BARKD_NO_UI="maybe")):
        assert result.code == 2
        assert result.err.startswith(("error: unexpected value 'yes'", "error: invalid value 'maybe'"))


def test_help_of_a_subcommand() -> None:
    assert run("help", "secret").out == run("secret", "--help").out
    assert "refresh" in run("secret", "--help").out


def test_devnet_says_how_its_own_commands_are_used() -> None:
    result = run("devnet", "fund")
    assert (result.code, result.out) == (2, "")
    assert "Usage: barkd devnet fund [OPTIONS] ADDRESS AMOUNT_SAT" in result.err
    assert "try 'barkd devnet fund --help'" in result.err


def test_secret_alone_prints_its_help_as_an_error() -> None:
    result = run("secret")
    assert (result.code, result.out) == (2, "")
    assert "Usage: barkd secret [OPTIONS] <COMMAND>" in result.err


@pytest.mark.parametrize(
    ("arguments", "complaint", "usage"),
    [
        (["secret", "nope"], "unrecognized subcommand 'nope'", "barkd secret [OPTIONS] <COMMAND>"),
        (["secret", "show", "extra"], "unexpected argument 'extra' found", "barkd secret show [OPTIONS]"),
        (["secret", "-V"], "unexpected argument '-V' found", "barkd secret [OPTIONS] <COMMAND>"),
        (
            ["secret", "show", "--port", "1"],
            "unexpected argument '--port' found",
            "barkd secret show [OPTIONS]",
        ),
        (
            ["secret", "refresh", "--secret", "x", "--secret", "x"],
            "the argument '--secret <SECRET>' cannot be used multiple times",
            "barkd secret refresh [OPTIONS]",
        ),
        (["nope"], "unrecognized subcommand 'nope'", "barkd [OPTIONS] [COMMAND]"),
    ],
)
def test_a_complaint_shows_how_the_command_is_called(
    datadir: Path, arguments: list[str], complaint: str, usage: str
) -> None:
    result = run("--datadir", str(datadir), *arguments)
    assert result == Result(
        2, "", f"error: {complaint}\n\nUsage: {usage}\n\nFor more information, try '--help'.\n"
    )


def test_help_of_the_secrets_commands() -> None:
    assert "Usage: barkd secret [OPTIONS] <COMMAND>" in run("secret", "help").out
    result = run("secret", "help", "show")
    assert (result.code, result.err) == (0, "")
    assert "Usage: barkd secret show [OPTIONS]" in result.out


@pytest.mark.parametrize(
    ("arguments", "environment"), [(["--datadir", ""], {}), (["secret", "show"], {"BARKD_DATADIR": ""})]
)
def test_an_empty_datadir_is_never_the_default(
    tmp_path: Path, arguments: list[str], environment: dict[str, str]
) -> None:
    result = run(*arguments, HOME=str(tmp_path), **environment)
    assert result == Result(
        1,
        "",
        "Error: failed to harden permissions on \n\nCaused by:\n    No such file or directory (os error 2)\n",
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "environment"), [([], {"BARK_LOGFILE": ""}), (["--logfile", "", "secret", "show"], {})]
)
def test_a_log_file_has_a_name(datadir: Path, arguments: list[str], environment: dict[str, str]) -> None:
    assert run("--datadir", str(datadir), *arguments, **environment) == Result(
        2,
        "",
        "error: a value is required for '--logfile <LOGFILE>' but none was supplied\n\n"
        "For more information, try '--help'.\n",
    )


def test_verbose_and_quiet_contradict_each_other(datadir: Path) -> None:
    result = run("-v", "-q", "--datadir", str(datadir))
    assert result == Result(1, "Can't set both --verbose and --quiet\n", "")


# --- secret


def test_the_life_of_a_secret(datadir: Path) -> None:
    at = ("--datadir", str(datadir))
    assert run(*at, "secret", "show") == Result(1, "", RECORDED["secret show: none"]["stderr"])
    assert stat.S_IMODE(datadir.stat().st_mode) == 0o700

    random = run(*at, "secret", "refresh")
    assert (random.code, without_times(random.err)) == (0, RECORDED["secret refresh"]["stderr"])
    assert run("secret", "show", *at) == Result(0, random.out, "")

    given = run(*at, "secret", "refresh", "--secret", "2A" * 32)
    assert given.out == f"{TOKEN_TEXT}\n"
    assert (datadir / "auth_token").read_text() == TOKEN_TEXT
    assert stat.S_IMODE((datadir / "auth_token").stat().st_mode) == 0o600

    with_port = run(*at, "--port", "0", "secret", "show")
    assert (with_port.code, with_port.out) == (0, f"{TOKEN_TEXT}\n")
    assert without_times(with_port.err) == RECORDED["secret show with --port 0"]["stderr"]
    assert run("-q", *at, "secret", "refresh", "--secret", "2a" * 32) == Result(0, f"{TOKEN_TEXT}\n", "")

    (datadir / "auth_token").write_text(f"  {TOKEN_TEXT}\n")
    assert run("--no-auth", *at, "secret", "show") == Result(0, f"{TOKEN_TEXT}\n", "")

    (datadir / "auth_token").write_text("AAAAAAA!")
    assert run(*at, "secret", "show") == Result(1, "", RECORDED["secret show: corrupt"]["stderr"])


def test_the_datadir_from_the_environment(datadir: Path) -> None:
    assert run("secret", "refresh", BARKD_DATADIR=str(datadir)).code == 0
    assert (datadir / "auth_token").exists()
    assert (datadir / "debug.log").exists()


def test_the_default_datadir_is_in_the_home_or_here(tmp_path: Path) -> None:
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    assert run("secret", "refresh", HOME=str(home)).code == 0
    assert (home / ".bark" / "auth_token").exists()
    environment = {key: value for key, value in _environment({}).items() if key != "HOME"}
    done = subprocess.run(
        _command(["secret", "refresh"]),
        env=environment,
        cwd=here,
        capture_output=True,
        timeout=DEADLINE_SECS,
        check=False,
    )
    assert done.returncode == 0
    assert (here / ".bark" / "auth_token").exists()


# --- refusing to start


@pytest.mark.parametrize(
    "name",
    [
        "port 0",
        "host localhost",
        "host empty",
        *(f"allowed origin {origin!r}" for origin in (
            "https://a.b/", "ftp://x", "*", "null", "", "http://", "http://a://b", " http://a.b",
            "http://a.b, http://c.d", "http://a.b,",
        )),
        "--no-auth on 0.0.0.0",
        "--no-auth on ::",
        "--no-auth on 10.0.0.1",
    ],
)  # fmt: skip
def test_a_start_that_is_refused(name: str, datadir: Path) -> None:
    case = RECORDED[name]
    result = run(*(text.replace("<datadir>", str(datadir)) for text in case["args"]))
    assert (result.code, result.out) == (1, "")
    assert without_times(result.err) == expected_errors(name, datadir)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("start: corrupt token", "AAAAAAA!"),
        ("start: token of a wrong length", TOKEN_TEXT[:40]),
        ("start: empty token file", ""),
    ],
)
def test_a_start_with_a_corrupt_token(name: str, content: str, datadir: Path) -> None:
    datadir.mkdir(mode=0o700)
    (datadir / "auth_token").write_text(content)
    result = run("--datadir", str(datadir), "--port", str(free_port()))
    assert (result.code, without_times(result.err)) == (1, expected_errors(name, datadir))


def test_a_datadir_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = run("--datadir", str(tmp_path / "file"))
    assert (result.code, result.err) == (1, expected_errors("datadir is a file", tmp_path))


def test_an_address_that_is_not_ours(datadir: Path) -> None:
    result = run("--datadir", str(datadir), "--host", "192.0.2.1", "--port", str(free_port()))
    assert (result.code, without_times(result.err)) == (1, expected_errors("host not local", datadir))


def test_a_port_in_use(datadir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = run("--datadir", str(datadir), "--port", str(taken.getsockname()[1]))
    assert (result.code, without_times(result.err)) == (1, expected_errors("port in use", datadir))


def test_a_broken_mnemonic(datadir: Path) -> None:
    datadir.mkdir(mode=0o700)
    (datadir / "mnemonic").write_text("two words")
    (datadir / "mnemonic").chmod(0o644)
    result = run("--datadir", str(datadir), "--port", str(free_port()))
    assert (result.code, without_times(result.err)) == (1, expected_errors("broken mnemonic", datadir))


@pytest.mark.parametrize("name", ["mnemonic, no db", "broken config"])
def test_a_directory_without_a_database(name: str, datadir: Path) -> None:
    """The database is looked at before the settings, so that is what is missed first."""
    datadir.mkdir(mode=0o700)
    (datadir / "mnemonic").write_text("test " * 11 + "junk")
    if name == "broken config":
        (datadir / "config.toml").write_text("= =")
    for file in datadir.iterdir():
        file.chmod(0o644)
    (datadir / "auth_token").write_text(TOKEN_TEXT)
    result = run("--datadir", str(datadir), "--port", str(free_port()))
    # Where barkd left a database from the attempt before, we have none to warn of.
    lines = [line for line in expected_errors(name, datadir).splitlines() if "db.sqlite" not in line]
    assert (result.code, without_times(result.err).splitlines()[: len(lines)]) == (1, lines)
    assert f"    there is a mnemonic in {datadir}, but {datadir}/db.sqlite holds no wallet" in result.err
    assert not (datadir / "db.sqlite").exists()


def test_a_mnemonic_without_a_wallet(datadir: Path) -> None:
    datadir.mkdir(mode=0o700)
    (datadir / "mnemonic").write_text("test " * 11 + "junk")
    (datadir / "mnemonic").chmod(0o600)
    result = run("--datadir", str(datadir), "--port", str(free_port()))
    assert result.code == 1
    assert "\nError: failed to read properties\n\nCaused by:\n    there is a mnemonic in " in result.err


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("", "BARKD_DATABASE_URL must be a URL: postgresql://USER:PASSWORD@HOST/DATABASE"),
        (
            "u:geheim@host/wallet",
            "BARKD_DATABASE_URL must be a URL: postgresql://USER:PASSWORD@HOST/DATABASE",
        ),
        ("mysql://u:geheim@host/wallet", "unsupported database: mysql (use sqlite or postgresql)"),
        ("postgresql://u:geheim@127.0.0.1:1/wallet", "cannot reach the database: "),
    ],
)
def test_a_database_that_cannot_be_used_is_noticed_before_there_is_a_wallet(
    datadir: Path, url: str, problem: str
) -> None:
    result = run("--datadir", str(datadir), "--port", str(free_port()), "--verbose", BARKD_DATABASE_URL=url)
    assert result.code == 1
    assert f"\nError: {problem}" in result.err
    assert "geheim" not in result.err + (datadir / "debug.log").read_text()


# --- the daemon


@dataclass(slots=True)
class Daemon:
    process: subprocess.Popen[str]
    port: int
    err: str = ""

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        _, err = self.process.communicate(timeout=DEADLINE_SECS)
        self.err = without_times(err)
        return self.process.returncode

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"


_HEED_HANGUPS = """
import os, signal, sys
signal.signal(signal.SIGHUP, signal.SIG_DFL)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
"""A run under nohup ignores them, and what it starts would too. Not a `preexec_fn`: that forks this process,
in which gRPC may run, and gRPC does not bear it."""


@contextmanager
def daemon(datadir: Path, *arguments: str, host: str = "127.0.0.1", **environment: str) -> Iterator[Daemon]:
    """A daemon that answers."""
    port = free_port()
    python, *command = _command(["--datadir", str(datadir), "--port", str(port), *arguments])
    process = subprocess.Popen(
        [python, "-c", _HEED_HANGUPS, *command],
        env=_environment(environment),
        stderr=subprocess.PIPE,
        text=True,
    )
    running = Daemon(process, port)
    try:
        deadline = time.monotonic() + DEADLINE_SECS
        while True:
            try:
                with socket.create_connection((host, port), timeout=1):
                    break
            except OSError:
                assert process.poll() is None, process.stderr and process.stderr.read()
                assert time.monotonic() < deadline, "the daemon does not answer"
                time.sleep(0.02)
        yield running
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def _secret(datadir: Path) -> str:
    return (datadir / "auth_token").read_text()


def _expected_run(name: str, datadir: Path, port: int) -> str:
    """The recorded barkd was built without Swagger UI; ours has the line of one that was built with it."""
    expected = re.sub(r"(http://\S+):[0-9]{5}", rf"\1:{port}", expected_errors(name, datadir))
    return re.sub(
        r"(?m)^(.* )Server starting on (http://\S+)\n",
        r"\g<0>\1Swagger UI is hosted on \2/swagger-ui\n",
        expected,
    )


def test_start_serve_stop(datadir: Path) -> None:
    with daemon(datadir) as running:
        assert get(running.url("/ping")).text == "pong"
        assert get(running.url("/api/v1/wallet")).status_code == 401
        headers = {"Authorization": f"Bearer {_secret(datadir)}"}
        assert get(running.url("/api/v1/wallet"), headers=headers).json() == {"fingerprint": None}
        assert (datadir / "barkd.lock").read_text() == str(running.process.pid)
        assert stat.S_IMODE((datadir / "debug.log").stat().st_mode) == 0o600
        assert running.stop() == 0
    assert running.err == _expected_run("SIGTERM", datadir, running.port)
    assert (datadir / "barkd.lock").exists()
    assert (datadir / "debug.log").read_text().startswith("\n\n[")


def test_an_idle_connection_does_not_hold_up_the_stop(datadir: Path) -> None:
    with daemon(datadir) as running, httpx.Client(timeout=DEADLINE_SECS) as client:
        assert client.get(running.url("/ping")).text == "pong"
        assert running.stop(signal.SIGINT) == 0
    assert "Ctrl+C received! Sending shutdown signal..." in running.err
    assert running.err.splitlines()[-1].endswith("Server stopped running")


def test_a_second_daemon_is_refused_and_the_first_goes_on(datadir: Path) -> None:
    with daemon(datadir) as running:
        second = run("--datadir", str(datadir), "--port", str(free_port()), "--no-auth", "--host", "0.0.0.0")
        expected = expected_errors("second instance", datadir).replace("<pid>", str(running.process.pid))
        assert (second.code, without_times(second.err)) == (1, expected)
        # The host is looked at before the lock, the lock before authentication.
        misnamed = run("--datadir", str(datadir), "--host", "nowhere")
        assert (misnamed.code, misnamed.err.splitlines()[0]) == (1, "Error: invalid bind host: nowhere")
        assert run("--datadir", str(datadir), "secret", "show").out.strip() == _secret(datadir)
        assert get(running.url("/ping")).text == "pong"
        assert running.stop() == 0


def test_a_hangup_is_not_waited_for(datadir: Path) -> None:
    with daemon(datadir) as running:
        assert running.stop(signal.SIGHUP) == -signal.SIGHUP


def test_a_killed_daemon_leaves_no_lock(datadir: Path) -> None:
    with daemon(datadir) as running:
        assert running.stop(signal.SIGKILL) == -signal.SIGKILL
    with daemon(datadir) as running:
        assert running.stop() == 0


def test_a_host_has_no_zone(datadir: Path) -> None:
    result = run("--datadir", str(datadir), "--host", "fe80::1%lo")
    assert (result.code, result.err.splitlines()[0]) == (1, "Error: invalid bind host: fe80::1%lo")


def test_an_origin_may_be_anything_that_a_header_may_be(datadir: Path) -> None:
    refused = run("--datadir", str(datadir), "--allowed-origins", "http://a\x01b")
    assert (refused.code, refused.err.splitlines()[0]) == (1, "Error: invalid CORS origin: http://a\x01b")
    with daemon(datadir, "--allowed-origins", "http://é") as running:
        answer = get(running.url("/ping"), headers={b"Origin": "http://é".encode()})
        allowed = dict(answer.headers.raw)[b"access-control-allow-origin"]
        assert allowed.decode() == "http://é"
        assert running.stop() == 0


def test_no_auth_on_a_loopback_address(datadir: Path) -> None:
    with daemon(datadir, "--no-auth", "--host", "127.0.0.2", host="127.0.0.2") as running:
        assert get(f"http://127.0.0.2:{running.port}/api/v1/wallet").status_code == 200
        assert running.stop() == 0
    assert running.err == _expected_run("--no-auth on 127.0.0.2", datadir, running.port)
    assert not (datadir / "auth_token").exists()


def test_no_auth_anywhere_if_the_operator_insists(datadir: Path) -> None:
    with daemon(datadir, "--dangerously-allow-remote-no-auth", "--host", "0.0.0.0") as running:
        headers = {"Host": "wallet.example"}
        assert get(running.url("/api/v1/wallet"), headers=headers).status_code == 200
        assert running.stop() == 0
    assert running.err == _expected_run("dangerous on 0.0.0.0", datadir, running.port)


@pytest.mark.parametrize(
    "name",
    [
        "--no-auth on ::1",
        "both no-auth flags",
        "allowed origin 'http://a b'",
        "allowed origin 'http://a.b/path'",
        "env yes",
        "flag over env",
    ],
)
def test_a_start_that_is_accepted(name: str, datadir: Path) -> None:
    case = RECORDED[name]
    at = case["args"].index("--port")  # the helper has its own
    arguments = [text for text in (*case["args"][:at], *case["args"][at + 2 :]) if "datadir" not in text]
    host = "::1" if "::1" in arguments else "127.0.0.1"
    if "generated a new one" not in case["stderr"]:
        datadir.mkdir(mode=0o700)
        (datadir / "auth_token").write_text(TOKEN_TEXT)
    with daemon(datadir, *arguments, host=host, **case["env"]) as running:
        assert running.stop() == 0
    assert running.err == _expected_run(name, datadir, running.port)


def test_auth_cannot_be_switched_off_by_the_environment(datadir: Path) -> None:
    with daemon(datadir, BARKD_NO_AUTH="1") as running:
        assert get(running.url("/api/v1/wallet")).status_code == 401


def test_settings_from_the_environment(datadir: Path) -> None:
    environment = {"BARKD_EXPOSE_MNEMONIC": "Yes", "BARKD_ALLOWED_ORIGINS": "http://a.b,http://c.d"}
    with daemon(datadir, **environment) as running:
        headers = {"Authorization": f"Bearer {_secret(datadir)}", "Origin": "http://c.d"}
        answer = get(running.url("/api/v1/wallet/mnemonic"), headers=headers)
        assert answer.status_code == 500
        assert answer.headers["access-control-allow-origin"] == "http://c.d"


@pytest.mark.parametrize(
    ("arguments", "environment", "named"),
    [
        (["--no-ui"], {}, "--no-ui"),
        (
            ["--ui-default-network", "signet", "--ui-default-ark-server=https://ark.example/"],
            {"BARKD_NO_UI": "true", "BARKD_UI_DEFAULT_CHAIN_SOURCE": "https://esplora.example/api"},
            "--no-ui, --ui-default-ark-server, --ui-default-chain-source, --ui-default-network",
        ),
    ],
)
def test_flags_of_barkds_web_ui_are_accepted_and_change_nothing(
    arguments: list[str], environment: dict[str, str], named: str, datadir: Path
) -> None:
    with daemon(datadir, *arguments, **environment) as running:
        assert get(running.url("/")).status_code == 404
        assert running.stop() == 0
    *_, line = [line for line in running.err.splitlines() if "web UI" in line]
    assert line.endswith(f"There is no web UI in this program, ignoring {named}")


def test_a_refused_restore_leaves_no_datadir(datadir: Path, tmp_path: Path) -> None:
    no_backup = tmp_path / "file"
    no_backup.write_text("nothing")
    result = run("--datadir", str(datadir), "restore", str(no_backup))
    assert (result.code, result.err.splitlines()[0][:6]) == (1, "Error:")
    assert not datadir.exists()
    assert run("--datadir", str(datadir), "backup", str(tmp_path / "backup")).code == 1
    assert not datadir.exists()


def test_a_quiet_daemon_says_nothing(datadir: Path) -> None:
    with daemon(datadir, "-q") as running:
        assert running.stop() == 0
    assert running.err == ""
    assert "Server stopped running" in (datadir / "debug.log").read_text()


def test_a_daemon_without_log_file(datadir: Path) -> None:
    with daemon(datadir, "--no-logfile") as running:
        assert running.stop() == 0
    assert not (datadir / "debug.log").exists()


def test_a_log_file_that_cannot_be_opened_is_no_reason_to_stop(datadir: Path) -> None:
    with daemon(datadir, "--logfile", str(datadir / "missing" / "x.log")) as running:
        assert running.stop() == 0
    assert running.err.startswith(
        f"Failed to open debug log file {datadir}/missing/x.log: No such file or directory (os error 2)\n"
    )


def test_a_datadir_open_to_others_is_warned_of(datadir: Path) -> None:
    datadir.mkdir(mode=0o755)
    datadir.chmod(0o755)
    (datadir / "auth_token").write_text(TOKEN_TEXT)
    with daemon(datadir) as running:
        assert running.stop() == 0
    assert running.err == _expected_run("loose datadir mode", datadir, running.port)
    assert stat.S_IMODE(datadir.stat().st_mode) == 0o755
