"""The tour of ``make run``, as a person runs it: twice, and ended with Ctrl-C."""

import signal
import subprocess
import sys
from pathlib import Path

import httpx

from barkd_py.devnet.state_dir import locked, read_state


def run_tour(directory: Path) -> str:
    """Run the tour until it stays up, interrupt it, and return what it showed."""
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
            process.send_signal(signal.SIGINT)
    process.stdout.close()
    assert process.wait(60) == 0, "".join(shown)
    return "".join(shown)


def urls_in(directory: Path) -> list[str]:
    state = read_state(directory)
    assert state is not None
    return [state["urls"]["esplora_url"], state["urls"]["control_url"]]


def is_up(url: str) -> bool:
    try:
        httpx.get(url, trust_env=False)
    except httpx.TransportError:
        return False
    return True


def test_tour_pays_shows_and_leaves_nothing_running(tmp_path: Path) -> None:
    directory = tmp_path / "devnet"
    shown = run_tour(directory)
    # 400,000 sat boarded, less the board's fee of 100 + 0.1 %, less the payment.
    assert "299,500 sat" in shown
    assert "100,000 sat" in shown
    assert "TOKEN=" in shown
    assert not any(map(is_up, urls_in(directory)))
    with locked(directory):
        pass

    again = run_tour(directory)
    assert "as they were left last time" in again
    assert "200,000 sat" in again
