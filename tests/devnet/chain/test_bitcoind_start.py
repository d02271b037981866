"""What is said of a bitcoind that does not start; the node itself is tested by `make interop`."""

from pathlib import Path

import pytest

from barkd_py.devnet.chain.bitcoind import BitcoindNode
from barkd_py.errors import ChainUnavailable


def program(path: Path, script: str) -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (
            "echo 'libfoo.so.3: cannot open shared object' >&2; exit 127",
            "--version failed: libfoo.so.3: cannot",
        ),
        ("exit 3", "--version failed: it ended with code 3"),
        (
            "test \"$1\" = --version && echo v30 && exit\necho 'Error: no space\nleft' >&2; exit 1",
            "did not start: Error: no space left",
        ),
        ('test "$1" = --version && echo v30 && exit\nexit 1', "did not start: it wrote no log"),
    ],
)
async def test_the_end_of_what_it_wrote_is_shown(tmp_path: Path, script: str, said: str) -> None:
    executable = program(tmp_path / "bitcoind", script)
    with pytest.raises(ChainUnavailable) as failure:
        await BitcoindNode.start(executable, tmp_path / "node")
    assert f"{executable} {said}" in str(failure.value)
