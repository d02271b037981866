"""``make fuzz``: the decoders of `test_fuzz.py`, for as long as one likes, led by what they have reached.

`test_fuzz.py` is of every test run and takes what chance brings; here atheris (libFuzzer) watches which lines
and comparisons of ours an input reaches, and goes on from those that reach new ones. One decoder after the
other, each in a process of its own. What breaks one is written to a file whose name is printed: make it an
example there.

    python -m tests.faults.coverage_fuzz --seconds 600            # for all of them together
    python -m tests.faults.coverage_fuzz --seconds 60 bolt11 VTXO
"""

import argparse
import os
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["barkd_py"]):
    from tests.faults.test_fuzz import BINARY, DOCUMENTED, TEXT, Decoder

MEMORY_MB = 2048
PATIENCE_SECS = 10
"""An input that takes longer has hung its decoder."""


def main() -> int:
    decoders = {each.name: each for each in (*BINARY, *TEXT)}
    parser = argparse.ArgumentParser(prog="python -m tests.faults.coverage_fuzz")
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--findings", type=Path, default=Path("fuzz-findings"))
    parser.add_argument("decoder", nargs="*")
    options = parser.parse_args()
    if unknown := set(options.decoder) - decoders.keys():
        parser.error(f"no such decoder: {', '.join(sorted(unknown))}; there are {', '.join(decoders)}")
    wanted = options.decoder or list(decoders)
    options.findings.mkdir(exist_ok=True)
    seconds = max(1, options.seconds // len(wanted))
    broken = [name for name in wanted if not _stands(decoders[name], seconds, options.findings)]
    print(f"{len(wanted)} decoders, {seconds} s each; broken: {', '.join(broken) or 'none'}")
    return 1 if broken else 0


def _stands(decoder: Decoder, seconds: int, findings: Path) -> bool:
    """Fuzz one decoder in a child, as libFuzzer ends its process."""
    with tempfile.TemporaryDirectory(prefix="barkd-fuzz-") as directory:
        said = Path(directory) / "said"
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            with said.open("wb") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            status = 1
            try:
                _fuzz(decoder, seconds, findings, Path(directory) / "corpus")
                status = 0
            finally:  # what is after this belongs to the parent
                os._exit(status)
        _, status = os.waitpid(child, 0)
        text = said.read_text(errors="replace")
    done = [line for line in text.splitlines() if line.startswith("Done ")]
    stands = status == 0 and bool(done)
    print(f"{decoder.name}: {done[-1] if stands else text[-4000:]}", flush=True)
    return stands


def _fuzz(decoder: Decoder, seconds: int, findings: Path, corpus: Path) -> None:
    """Ends the process."""
    is_text = decoder in TEXT

    def decode(data: bytes) -> None:
        with suppress(*DOCUMENTED):
            decoder.decode(data.decode("utf-8", errors="replace") if is_text else data)

    corpus.mkdir()
    for index, example in enumerate(decoder.examples):
        (corpus / str(index)).write_bytes(example.encode() if is_text else example)
    limits = [f"-max_total_time={seconds}", f"-timeout={PATIENCE_SECS}", f"-rss_limit_mb={MEMORY_MB}"]
    prefix = f"-artifact_prefix={findings}/{decoder.name.replace(' ', '-').replace(':', '')}-"
    atheris.Setup([sys.argv[0], *limits, prefix, str(corpus)], decode)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
