"""The tour of ``make run``, as a person runs it: ended with Ctrl-C, or killed, and run again."""

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from rich.console import Console

from barkd_py.devnet.state_dir import STATE_FILE, locked, read_state
from barkd_py.devnet.tour.programs import TourFailed, lock_of, port_for


def run_tour(
    directory: Path,
    ended_by: signal.Signals = signal.SIGINT,
    while_up: Callable[[str], None] = lambda _shown: None,
) -> str:
    """Run the tour until it stays up, end it, and return what it showed.

    while_up: is called before the end, with what was shown so far.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "barkd_py.devnet.tour", "--dir", str(directory)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    shown: list[str] = []
    for line in process.stdout:
        shown.append(line)
        if "until Ctrl-C" in line:
            while_up("".join(shown))
            process.send_signal(ended_by)
    process.stdout.close()
    assert process.wait(60) == (0 if ended_by == signal.SIGINT else -ended_by), "".join(shown)
    return "".join(shown)


def urls_in(directory: Path) -> list[str]:
    state = read_state(directory)
    assert state is not None
    return [state["urls"]["esplora_url"], state["urls"]["control_url"]]


def is_up(url: str) -> bool:
    try:
        httpx.get(url, trust_env=False, timeout=60)
    except httpx.TransportError:
        return False
    return True


def forget_ports(directory: Path) -> None:
    """Devnet takes other ports at its next start, as if others had used them meanwhile."""
    state = read_state(directory)
    assert state is not None
    (directory / STATE_FILE).write_text(json.dumps(state | {"ports": {}}))


def paste(shown: str, first: str) -> list[dict[str, Any]]:
    """As `said`, where everything that is said is an answer of a program."""
    return [json.loads(line) for line in said(shown, first).splitlines() if line]


def said(shown: str, first: str) -> str:
    """Do in a shell what the tour says from the line with a text up to the next empty one."""
    lines = shown.splitlines()
    tokens = [line for line in lines if "TOKEN=" in line]
    start = next(index for index, line in enumerate(lines) if first in line)
    end = start + lines[start:].index("")
    done = subprocess.run(
        ["bash", "-c", "\n".join([*tokens, *lines[start:end]])],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    return done.stdout


def paste_backup(shown: str) -> None:
    """The backup, the words, the place to try the API, and the token for it."""
    *made, words = said(shown, " --datadir ").splitlines()
    assert made[0].startswith("Backup number 1 of wallet ")
    assert len(words.split()) == 12
    url = next(line for line in shown.splitlines() if line.endswith("/swagger-ui"))
    page = httpx.get(url, trust_env=False, follow_redirects=True, timeout=60)
    assert (page.status_code, "swagger-ui-bundle.js" in page.text) == (200, True), page.text
    assert len(said(shown, "echo $TOKEN").strip()) == 44


def paste_lightning(shown: str) -> None:
    """Alice pays a node outside Ark, and bob is paid by one."""
    initiated, paid = paste(shown, "INVOICE=$(")
    assert initiated["message"] == "Payment initiated successfully"
    assert paid["status"] == "settled"
    deadline = time.monotonic() + 90
    while True:
        (balance, *_) = paste(shown, "/api/v1/wallet/balance")
        if not balance["pending_lightning_send_sat"]:
            return
        assert time.monotonic() < deadline, balance
        time.sleep(0.1)


def paste_exit(shown: str) -> None:
    """Exit without the server: in the end all of alice's coins are on the chain."""
    answers = paste(shown, "/ark-server/stop -X POST")
    assert [answer["done"] for answer in answers if "done" in answer] == [True], answers
    started, claimed = {"message": "Exit started successfully"}, {"message": "Exit claimed successfully"}
    assert started in answers, answers
    assert claimed in answers, answers
    fee = next(answer for answer in answers if "exit_broadcast_fee_sat" in answer)
    # Of 1,000,000 sat bob got 100,000, nodes outside 20,000 and 3,000 and the server 235 and 99 for that; the
    # board cost a little.
    left_sat = 1_000_000 - 100_000 - 20_235 - 3_099
    assert left_sat - 1_000 - fee["total_fee_sat"] < answers[-1]["total_sat"] < left_sat


def paste_all(shown: str) -> None:
    paste_lightning(shown)
    paste_backup(shown)
    paste_exit(shown)


def lines_of_daemons(shown: str) -> list[str]:
    return [
        line for line in shown.splitlines() if line.startswith("curl") and "/api/v1/wallet/balance" in line
    ]


def test_tour_pays_shows_and_leaves_nothing_running(tmp_path: Path) -> None:
    directory = tmp_path / "devnet"
    shown = run_tour(directory, while_up=paste_all)
    # 400,000 sat boarded, less the board's fee of 100 + 0.1 %, less the payment, less that over Lightning and
    # its fee of 75 + 0.8 %.
    assert "279,265 sat" in shown
    # The payments of 100,000 and 20,000 sat, less the fee of 100 + 0.2 % for Lightning.
    assert "119,860 sat" in shown
    assert "TOKEN=" in shown
    urls = urls_in(directory)
    assert not any(map(is_up, urls))
    with locked(directory):
        pass

    forget_ports(directory)
    again = run_tour(directory, signal.SIGKILL)
    assert "as they were left last time" in again
    # Twice, and 3,000 less 106 sat from the line that was pasted.
    assert "242,614 sat" in again
    assert not set(urls_in(directory)) & set(urls)
    # What was pasted after the first run still asks the right daemon.
    assert lines_of_daemons(again) == lines_of_daemons(shown) != []
    with lock_of(directory, Console(quiet=True)), locked(directory):
        assert not any(map(is_up, urls_in(directory)))


def test_two_tours_cannot_share_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("barkd_py.devnet.tour.programs._LAST_RUN_SECONDS", 0.0)
    console = Console(quiet=True)
    with (
        lock_of(tmp_path, console),
        pytest.raises(TourFailed, match="another tour is up"),
        lock_of(tmp_path, console),
    ):
        pass
    with lock_of(tmp_path, console):
        pass


def test_ports_are_remembered_while_they_are_free(tmp_path: Path) -> None:
    memory = tmp_path / "wallets" / "alice.port"
    port = port_for(memory)
    assert port_for(memory) == port
    with socket.create_server(("127.0.0.1", port)):
        other = port_for(memory)
        assert other != port
    assert port_for(memory) == other
    memory.write_text("nonsense")
    assert port_for(memory) > 0
