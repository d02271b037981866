"""``make fuzz``: the decoders of `test_fuzz.py`, for as long as one likes, led by what they have reached.

`test_fuzz.py` is of every test run and takes what chance brings; here atheris (libFuzzer) watches which lines
and comparisons of ours an input reaches, and goes on from those that reach new ones. One decoder after the
other, each in a process of its own. What breaks one is written to a file whose name is printed: make it an
example there.

    python -m tests.faults.coverage_fuzz --seconds 600            # for all of them together
    python -m tests.faults.coverage_fuzz --seconds 60 bolt11 VTXO
"""

import argparse
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

MEMORY_MB = 2048
PATIENCE_SECS = 10
"""An input that takes longer has hung its decoder."""


def main() -> int:
    from tests.faults.test_fuzz import BINARY, TEXT

    parser = argparse.ArgumentParser(prog="python -m tests.faults.coverage_fuzz")
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--findings", type=Path, default=Path("fuzz-findings"))
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("decoder", nargs="*")
    options = parser.parse_args()
    if options.alone:
        _fuzz(options.decoder[0], options.seconds, options.findings)
    names = [each.name for each in (*BINARY, *TEXT)]
    if unknown := set(options.decoder) - set(names):
        parser.error(f"no such decoder: {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    wanted = options.decoder or names
    options.findings.mkdir(exist_ok=True)
    seconds = max(1, options.seconds // len(wanted))
    broken = [name for name in wanted if not _run(name, seconds, options.findings)]
    print(f"{len(wanted)} decoders, {seconds} s each; broken: {', '.join(broken) or 'none'}")
    return 1 if broken else 0


def _run(name: str, seconds: int, findings: Path) -> bool:
    """Fuzz one decoder in a process; whether it stood it."""
    command = [sys.executable, "-m", "tests.faults.coverage_fuzz", "--alone", name]
    done = subprocess.run(
        [*command, "--seconds", str(seconds), "--findings", str(findings)],
        check=False,
        capture_output=True,
        text=True,
    )
    last = [line for line in done.stderr.splitlines() if line.startswith("Done ")]
    print(f"{name}: {last[-1] if last else 'broken'}", flush=True)
    if done.returncode:
        print(done.stdout[-4000:], done.stderr[-4000:], sep="\n")
    return done.returncode == 0


def _fuzz(name: str, seconds: int, findings: Path) -> None:
    """Ends the process."""
    import atheris

    from tests.faults import test_fuzz

    decoder = next(each for each in (*test_fuzz.BINARY, *test_fuzz.TEXT) if each.name == name)
    is_text = decoder in test_fuzz.TEXT

    def decode(data: bytes) -> None:
        with suppress(*test_fuzz.DOCUMENTED):
            decoder.decode(data.decode("utf-8", errors="replace") if is_text else data)

    with tempfile.TemporaryDirectory(prefix="barkd-fuzz-") as corpus:
        for index, example in enumerate(decoder.examples):
            (Path(corpus) / str(index)).write_bytes(example.encode() if is_text else example)
        limits = [f"-max_total_time={seconds}", f"-timeout={PATIENCE_SECS}", f"-rss_limit_mb={MEMORY_MB}"]
        places = [f"-artifact_prefix={findings}/{name.replace(' ', '-').replace(':', '')}-", corpus]
        atheris.Setup([sys.argv[0], *limits, *places], decode)
        atheris.Fuzz()


if __name__ == "__main__":
    if "--alone" in sys.argv:
        import atheris

        with atheris.instrument_imports(include=["barkd_py"]):
            import tests.faults.test_fuzz  # noqa: F401
    sys.exit(main())
