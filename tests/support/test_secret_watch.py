"""A secret that somebody logs is found, and fails the run: in this process, in a worker's, and in a file."""

import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.secret_watch import SecretWatch, assert_no_secrets, bip39_words

HEX = hashlib.sha256(b"a key").hexdigest()
WORDS = "legal winner thank year wave sausage worth useful legal winner thank yellow"
TOKEN = "AGVHfHQ6eXzEYPGrDqZ1pZJHjQ6dVJp2jzv1x3l8XbQk"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (f"unknown field `{WORDS}`", "words of a mnemonic"),
        ("zoo " * 12, "words of a mnemonic"),
        (" ".join(WORDS.split()[3:8]), "words of a mnemonic"),
        (f"key {HEX}", "a private key"),
        (f"transaction 0200{HEX.upper()}ff", "a private key"),
        (f"token {TOKEN}, given", "a token"),
        (f"hash {hashlib.sha256(bytes.fromhex(HEX[::-1])).hexdigest()} is of {HEX[::-1]}", "a preimage, by"),
        ("GET /api/v1/notifications/ws?ticket=abc HTTP/1.1", "a ticket in a URL"),
        ("cannot reach postgresql+asyncpg://me:hunter2@db/wallet", "a password in a URL"),
        ("Authorization: Bearer " + "x" * 44, "a bearer header"),
        (
            "xprv9s21ZrQH143K3GJpoapnV8SFfukcVBSfeCficPSGfubmSFDxo1kuHnLisriDvSnRRuL2Qrg5ggqHKNVpxR86QEC",
            "an ext",
        ),
    ],
)
def test_a_secret_is_found(text: str, what: str) -> None:
    watch = SecretWatch()
    watch.add_mnemonic(WORDS)
    watch.look(text, "somewhere")
    watch.add_bytes("a private key", bytes.fromhex(HEX))  # whenever it becomes known
    watch.add_text("a token", TOKEN)
    assert [leak for leak in watch.leaks() if leak.startswith(what) and "somewhere" in leak]
    assert HEX not in str(watch.leaks())
    assert TOKEN not in str(watch.leaks())
    assert "hunter2" not in str(watch.leaks())


@pytest.mark.parametrize(
    "text",
    [
        "board of 5000 sat confirmed in block 00000000000000000001c4a1f",
        f"VTXO {HEX}:0 is spent, transaction {HEX[::-1]}",
        f"VTXO {'11' * 32}:0 has the unlock hash {hashlib.sha256(bytes([0x11] * 32)).hexdigest()}",
        "postgresql+asyncpg://me:***@db/wallet and http://127.0.0.1:3000/ping",
        "/api/v1/notifications/ws?ticket=*** HTTP/1.1",
        "this time the wallet will wait until somebody has told the other side about it",
    ],
)
def test_what_is_no_secret_is_passed_over(text: str) -> None:
    watch = SecretWatch()
    watch.add_mnemonic(WORDS)
    watch.look(text, "somewhere")
    assert watch.leaks() == []


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """Where the watch of this very run does not look."""
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory)


def test_files_of_daemons_are_looked_into(elsewhere: Path) -> None:
    tmp_path = elsewhere
    datadir = tmp_path / "a" / "datadir"
    datadir.mkdir(parents=True)
    (datadir / "auth_token").write_text(TOKEN)
    (datadir / "mnemonic").write_text(WORDS)
    (datadir / "debug.log").write_text(f"INFO started\nDEBUG {TOKEN}\n")
    (tmp_path / "a" / "daemon.log").write_text("thank year wave sausage\n")
    (tmp_path / "devnet.log").write_text(WORDS)
    watch = SecretWatch()
    watch.look_into(tmp_path)
    assert watch.leaks() == [
        f"words of a mnemonic in {tmp_path / 'a' / 'daemon.log'}",
        f"the token of a daemon in {datadir / 'debug.log'}, after 'DEBUG '",
    ]


def test_all_the_words_are_known() -> None:
    assert len(bip39_words()) == 2048
    assert {"abandon", "zoo", "legal", "yellow"} < bip39_words()


PLANTED = """
import logging
from barkd_py.bitcoin.bip32 import generate_mnemonic

def test_harmless(tmp_path):
    logging.getLogger("barkd_py.wallet").debug("nothing")

def test_leak(tmp_path):
    if {leak}:
        logging.getLogger("barkd_py.wallet").debug("made %s", generate_mnemonic().words)
"""


@pytest.mark.parametrize("workers", ["0", "2"])
@pytest.mark.parametrize("leak", [True, False])
def test_a_leak_fails_a_run_whose_tests_all_pass(tmp_path: Path, workers: str, leak: bool) -> None:
    (tmp_path / "test_planted.py").write_text(PLANTED.format(leak=leak))
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    command = [
        *(sys.executable, "-m", "pytest", "-p", "tests.support.secret_watch", "-p", "no:cacheprovider"),
        *("-n", workers, "--rootdir", str(tmp_path), "-c", str(tmp_path / "pytest.ini")),
        *("--basetemp", str(tmp_path / "temp"), str(tmp_path / "test_planted.py")),
    ]
    root = Path(__file__).parents[2]
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
        "PYTHONPATH": str(root),
    }
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=280, cwd=root, env=environment
    )
    assert "2 passed" in done.stdout, done.stdout + done.stderr
    assert done.returncode == (1 if leak else 0), done.stdout
    assert ("SECRETS IN LOGS OR ERRORS" in done.stdout) is leak
    assert ("words of a mnemonic in the log" in done.stdout) is leak


def test_the_logs_of_a_directory_are_looked_into() -> None:
    """As the crash suite and the soak do it; what devnet says is not ours."""
    with tempfile.TemporaryDirectory() as name:  # elsewhere than where this run is looked into
        directory = Path(name)
        (directory / "alice").mkdir()
        (directory / "alice" / "mnemonic").write_text(WORDS)
        (directory / "devnet.log").write_text(WORDS)
        (directory / "alice.log").write_text("all is well\n")
        assert_no_secrets(directory)
        (directory / "alice" / "debug.log").write_text("made from " + " ".join(WORDS.split()[2:7]))
        with pytest.raises(AssertionError, match=r"words of a mnemonic in .*debug\.log"):
            assert_no_secrets(directory)
