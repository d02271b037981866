"""A plugin of pytest: watches what a run of the tests logs, and fails the run if a secret is in it.

What is looked at: each record of our own loggers in this process, whatever its level and whether or not
anybody listens; each error that a REST server of ours answered; and each log file of the daemons that the
tests ran (what they wrote to stderr, and their debug.log), where they left it. Among the foreign programs of
`make interop` these are the files of `processes.Daemon`; and the crash suite and the soak, which are no tests
of pytest, look at theirs by `assert_no_secrets`.

What counts as a secret: what was made in this process (mnemonics, private keys, preimages, tokens, tickets;
nobody but libsecp256k1 has the bytes of nonces); the words and tokens in the data directories of daemons;
and, whoever made it, what looks like one: twelve words of BIP-39 in a row, an extended private key, a bearer
header, a websocket's ticket or a password in a URL, and 32 bytes whose hash is there as well: a preimage.

Works with xdist: each worker tells the controller what it saw, and what is found does not depend on which
tests ran in which worker.
"""

import functools
import hashlib
import logging
import re
import traceback
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import bdkpython
import httpx
import pytest

from barkd_py.api.auth import AuthToken
from barkd_py.api.tickets import Tickets
from barkd_py.ark.lightning_receive import Preimage
from barkd_py.bitcoin.bip32 import Seed
from barkd_py.bitcoin.keys import SecretKey
from tests.support.processes import Daemon

OURS = "barkd_py"
NOT_OURS = ("barkd_py.devnet", "devnet", "bitcoind", "captaind", "bark.")
"""Loggers and files of devnet and of foreign programs: what they say is theirs."""

WORDS_IN_A_ROW = 12
WORDS_OF_A_KNOWN_MNEMONIC = 4
_MIN_DISTINCT_BYTES = 10
_MAX_SHOWN = 20

_PATTERNS = (
    ("an extended private key", re.compile(r"\b[xtyzuv]prv[1-9A-HJ-NP-Za-km-z]{50,}")),
    ("a bearer header", re.compile(r"[Bb]earer [A-Za-z0-9_=-]{20,}")),
    ("a ticket in a URL", re.compile(r"[?&]ticket=[^&\s*<]+")),
    ("a password in a URL", re.compile(r"[a-z][a-z0-9+]*://[^/\s:@'\"]+:(?!\*{3}@)[^/\s@'\"]+@")),
)
_HEX = re.compile(r"(?<![0-9a-fA-F])[0-9a-fA-F]{64,4000}(?![0-9a-fA-F])")
_TOKEN = re.compile(r"(?<![A-Za-z0-9_-])[A-Za-z0-9_-]{43,44}(?![A-Za-z0-9_-])")
_WORD = re.compile(r"[a-z]+")


@functools.cache
def bip39_words() -> frozenset[str]:
    """All 2048, which BDK does not list: mnemonics of entropies that count up to them."""
    found: set[str] = set()
    for start in range(0, 2048, 11):
        bits = "".join(f"{min(start + place, 2047):011b}" for place in range(11)).ljust(128, "0")
        found.update(str(bdkpython.Mnemonic.from_entropy(int(bits, 2).to_bytes(16, "big"))).split())
    return frozenset(found)


class SecretWatch:
    """known: secrets by their text, and what they are. Everything else is found by how it looks."""

    def __init__(self) -> None:
        self.is_on = False
        self.known: dict[str, str] = {}
        self._phrases: set[tuple[str, ...]] = set()
        self._seen: dict[str, tuple[str, str]] = {}
        self._found: dict[tuple[str, str], str] = {}

    # --- secrets

    def add_bytes(self, what: str, secret: bytes) -> None:
        if _looks_random(secret):
            self.known[secret.hex()] = what

    def add_text(self, what: str, secret: str) -> None:
        self.known[secret] = what

    def add_mnemonic(self, words: str) -> None:
        self._phrases.update(_windows(words.lower().split(), WORDS_OF_A_KNOWN_MNEMONIC))

    # --- texts

    def look(self, text: str, source: str) -> None:
        """Remember what may be a secret: some are known as secrets only later."""
        for what, pattern in _PATTERNS:
            if (found := pattern.search(text)) is not None:
                self._note(what, source, _before(text, found))
        for pattern in (_HEX, _TOKEN):
            for token in pattern.finditer(text):
                self._seen.setdefault(token.group(), (source, _before(text, token)))
        words = _WORD.findall(text.lower())
        if len(words) >= WORDS_OF_A_KNOWN_MNEMONIC and self._has_phrase(words):
            self._note("words of a mnemonic", source, "")

    def _has_phrase(self, words: list[str]) -> bool:
        if any(each in self._phrases for each in _windows(words, WORDS_OF_A_KNOWN_MNEMONIC)):
            return True
        in_a_row = 0
        for word in words:
            in_a_row = in_a_row + 1 if word in bip39_words() else 0
            if in_a_row >= WORDS_IN_A_ROW:
                return True
        return False

    def _note(self, what: str, source: str, before: str) -> None:
        """Where it is, and not what it is."""
        self._found.setdefault((what, source), before)

    def seen(self) -> tuple[Any, ...]:
        """For `take_over`, in types that xdist carries."""
        found = [(*key, before) for key, before in self._found.items()]
        return self.known, self._seen, found

    def take_over(self, known: Any, seen: Any, found: Any) -> None:
        """What another watch, in another process, has `seen`."""
        self.known.update(known)
        for token, where in seen.items():
            self._seen.setdefault(token, where)
        for what, source, before in found:
            self._note(what, source, before)

    def leaks(self) -> list[str]:
        """What was found."""
        hashes = {token.lower() for token in self._seen}
        for token, (source, before) in self._seen.items():
            for part in _parts(token):
                what = self.known.get(part)
                if what is None and len(part) == 64 and _is_preimage(part, hashes):
                    what = "a preimage, by its hash"
                if what is not None:
                    self._note(what, source, before)
        return [
            f"{what} in {source}" + (f", after {before!r}" if before else "")
            for (what, source), before in self._found.items()
        ]

    def look_into(self, directory: Path) -> None:
        """Everything that daemons have left there."""
        for path in directory.rglob("auth_token"):
            self.add_text("the token of a daemon", path.read_text(errors="replace").strip())
        for path in directory.rglob("mnemonic"):
            if path.is_file():
                self.add_mnemonic(path.read_text(errors="replace"))
        for path in sorted(directory.rglob("*.log")):
            if not path.name.startswith(NOT_OURS):
                self.look_at(path)

    def look_at(self, log: Path) -> None:
        """A file that a daemon has written."""
        if log.is_file():
            with log.open(errors="replace") as lines:
                for line in lines:
                    self.look(line, str(log))


def _before(text: str, found: re.Match[str]) -> str:
    """What stands before it, without the secrets that stand there."""
    return _HEX.sub("…", text[max(0, found.start() - 200) : found.start()])[-80:]


def _windows(words: list[str], length: int) -> Iterator[tuple[str, ...]]:
    return zip(*(words[start:] for start in range(length)), strict=False)


def _parts(token: str) -> Iterator[str]:
    yield token
    if len(token) > 44:
        token = token.lower()
        for start in range(0, len(token) - 63, 2):
            yield token[start : start + 64]


def _is_preimage(part: str, hashes: Collection[str]) -> bool:
    secret = bytes.fromhex(part)
    return _looks_random(secret) and hashlib.sha256(secret).hexdigest() in hashes


def _looks_random(secret: bytes) -> bool:
    """A key of 1, or thirty-two nines, are in texts for other reasons too: as ids, as hashes."""
    return len(set(secret)) >= _MIN_DISTINCT_BYTES


def assert_no_secrets(directory: Path) -> None:
    """Nothing that daemons have left there has a secret in its log."""
    watch = SecretWatch()
    watch.look_into(directory)
    leaks = watch.leaks()
    assert not leaks, "secrets in logs: " + "; ".join(leaks[:_MAX_SHOWN])


# --- the plugin

WATCH = SecretWatch()


def _after(owner: type, name: str, note: Callable[..., None]) -> None:
    """Call `note` with the object, the result and the arguments after each call of a method."""
    original = getattr(owner, name)

    @functools.wraps(original)
    def wrapped(self: Any, *arguments: Any, **options: Any) -> Any:
        result = original(self, *arguments, **options)
        note(self, result)
        return result

    setattr(owner, name, wrapped)


def _watch_secrets(watch: SecretWatch) -> None:
    _after(Seed, "__init__", lambda seed, _: watch.add_mnemonic(seed.words))
    _after(SecretKey, "__post_init__", lambda key, _: watch.add_bytes("a private key", key.secret_bytes))
    _after(Preimage, "__post_init__", lambda preimage, _: watch.add_bytes("a preimage", preimage.data))
    _after(AuthToken, "__init__", lambda token, _: watch.add_text("a token", token.encode()))
    _after(Tickets, "issue", lambda _, ticket: watch.add_text("a ticket", ticket))


def _watch_records(watch: SecretWatch) -> None:
    """Records that nobody listens to are made all the same, and end here."""
    is_enabled, handle = logging.Logger.isEnabledFor, logging.Logger.handle

    def is_enabled_for(self: logging.Logger, level: int) -> bool:
        return _is_ours(self.name) or is_enabled(self, level)

    def look_and_handle(self: logging.Logger, record: logging.LogRecord) -> None:
        if _is_ours(record.name):
            watch.look(_text_of(record), f"the log ({record.pathname}:{record.lineno})")
        if is_enabled(self, record.levelno):
            handle(self, record)

    logging.Logger.isEnabledFor = is_enabled_for  # type: ignore[method-assign]
    logging.Logger.handle = look_and_handle  # type: ignore[method-assign]


def _is_ours(name: str) -> bool:
    return name.partition(".")[0] == OURS and not name.startswith(NOT_OURS)


def _text_of(record: logging.LogRecord) -> str:
    text = record.getMessage()
    if record.exc_info is not None and record.exc_info[1] is not None:
        text += "".join(traceback.format_exception(record.exc_info[1]))
    return text


def _watch_answers(watch: SecretWatch) -> None:
    send = httpx.AsyncClient.send

    @functools.wraps(send)
    async def send_and_look(
        self: httpx.AsyncClient, request: httpx.Request, **options: Any
    ) -> httpx.Response:
        response = await send(self, request, **options)
        if response.is_error and request.url.path.startswith("/api/v1/") and response.is_stream_consumed:
            watch.look(response.text, f"an answer to {request.method} {request.url.path}")
        return response

    httpx.AsyncClient.send = send_and_look  # type: ignore[method-assign]


def pytest_configure(config: pytest.Config) -> None:
    if not WATCH.is_on:
        WATCH.is_on = True
        _watch_secrets(WATCH)
        _watch_records(WATCH)
        _watch_answers(WATCH)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    output = getattr(node, "workeroutput", {})
    if "seen" in output:
        WATCH.take_over(*output["seen"])


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    is_interop = session.config.option.markexpr.strip() == "interop"  # files of foreign programs among ours
    if is_interop:
        for datadir, log in Daemon.started:
            WATCH.look_into(datadir)
            WATCH.look_at(log)
    elif not session.config.pluginmanager.hasplugin("dsession"):  # workers look themselves
        factory: pytest.TempPathFactory = session.config._tmp_path_factory  # type: ignore[attr-defined]
        WATCH.look_into(factory.getbasetemp())
    workeroutput = getattr(session.config, "workeroutput", None)
    if workeroutput is not None:
        workeroutput["seen"] = WATCH.seen()
        return
    if session.exitstatus == pytest.ExitCode.OK and WATCH.leaks():
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any) -> None:
    leaks = WATCH.leaks()
    if not leaks:
        return
    terminalreporter.section("SECRETS IN LOGS OR ERRORS", red=True, bold=True)
    for leak in sorted(leaks)[:_MAX_SHOWN]:
        terminalreporter.line(leak)
