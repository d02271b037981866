"""Bitcoin's consensus rules: libbitcoinkernel, behind the few calls that devnet needs.

The kernel is Bitcoin Core's own validation engine as a library. It decides which block is valid and which
branch is the best one; everything else (making blocks, the index, the mempool) is ours. What to know of it:

* ``process_block`` says True for a block that breaks consensus too (it was new and was stored). A block is
  accepted when it became the tip, or when it lies on a branch that has not more work than the active one.
* The reason of a refusal is only in the log, so this module listens there.
* Its databases are flushed only when it is closed: after ``kill -9`` a young chain is empty again. So its
  directory is disposable (`Kernel` empties it), and our block log is fed to it at every start.

Source: sheet 11 §1.
"""

import re
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pbk
from pbk.script import PrecomputedTransactionData

from barkd_py.errors import ChainError

_BLOCK_CHECKED = re.compile(r"BlockChecked: block hash=([0-9a-f]{64}) state=(.*)")


class BlockRejected(ChainError):
    """The kernel refused a block. The chain is as it was before.

    reason: the node's text, e.g. ``bad-cb-amount, coinbase pays too much (actual=2 vs limit=1)``.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"the block is not valid: {reason}")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class BlockConnected:
    """A block became part of the active chain. raw: the serialised block."""

    height: int
    raw: bytes


@dataclass(frozen=True, slots=True)
class BlockDisconnected:
    """The tip left the active chain (a reorganisation, tip downwards)."""

    height: int


ChainChange = BlockConnected | BlockDisconnected


class _LogListener:
    """The process-wide kernel log, kept only while a thread asks for it.

    The kernel has one log for all its instances, and calls back in the thread that submits the block.
    """

    def __init__(self) -> None:
        self._local = threading.local()
        self._connection = pbk.LoggingConnection(self._receive)
        pbk.logging_set_options(pbk.LoggingOptions(log_timestamps=False))
        pbk.enable_log_category(pbk.LogCategory.VALIDATION)

    def _receive(self, line: str) -> None:
        lines: list[str] | None = getattr(self._local, "lines", None)
        if lines is not None:
            lines.append(line)

    @contextmanager
    def lines(self) -> Iterator[list[str]]:
        """The lines that this thread's kernel calls log inside the block."""
        lines: list[str] = []
        self._local.lines = lines
        try:
            yield lines
        finally:
            self._local.lines = None


_listener: _LogListener | None = None
_listener_lock = threading.Lock()


def _log_listener() -> _LogListener:
    """One listener per process; made late, since it replaces the kernel's output on the terminal."""
    global _listener
    with _listener_lock:
        if _listener is None:
            _listener = _LogListener()
        return _listener


class Kernel:
    """A regtest chainstate in memory. Not thread-safe: the owner makes one call at a time.

    directory: emptied at the start; the kernel wants 17 MB there. Two kernels never share one.
    """

    def __init__(self, directory: Path) -> None:
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        self._log = _log_listener()
        self._changes: list[ChainChange] = []
        # The kernel keeps raw pointers to these objects, so they live as long as the manager.
        self._callbacks = pbk.ValidationInterfaceCallbacks(
            block_connected=self._connected, block_disconnected=self._disconnected
        )
        self._context = pbk.make_context(pbk.ChainType.REGTEST, self._callbacks)
        options = pbk.ChainstateManagerOptions(
            self._context, str(directory.absolute()), str((directory / "blocks").absolute())
        )
        options.update_block_tree_db_in_memory(True)
        options.update_chainstate_db_in_memory(True)
        options.set_worker_threads_num(0)
        self._manager: Any = pbk.ChainstateManager(options)
        self._chain = self._manager.get_active_chain()
        self.genesis = bytes(self._manager.blocks[self._chain.block_tree_entries[0]])
        self._changes.clear()

    def close(self) -> None:
        """Free the chainstate (about 32 MB). The object is of no further use."""
        self._chain = None
        self._manager = None
        self._context = None

    def _connected(self, _user: object, block: Any, entry: Any) -> None:
        self._changes.append(BlockConnected(entry.height, bytes(block)))

    def _disconnected(self, _user: object, _block: object, entry: Any) -> None:
        self._changes.append(BlockDisconnected(entry.height))

    @property
    def height(self) -> int:
        """The height of the active tip."""
        return int(self._chain.height)

    @property
    def tip_hash(self) -> bytes:
        """The hash of the active tip, 32 bytes in internal order."""
        return bytes(self._chain.block_tree_entries[self._chain.height].block_hash)

    def submit(self, raw: bytes) -> tuple[ChainChange, ...]:
        """Judge a block; what changed in the active chain, in order (empty for a side branch).

        raw: a serialised block whose parent is known. Raises BlockRejected; nothing is left to repair then.
        """
        self._changes.clear()
        with self._log.lines() as lines:
            try:
                self._manager.process_block(pbk.Block(raw))
            except (pbk.ProcessBlockException, RuntimeError) as error:
                raise BlockRejected(_refusal(lines) or str(error)) from error
        if (reason := _refusal(lines)) is not None:
            raise BlockRejected(reason)
        return tuple(self._changes)

    def verify_input(self, raw_tx: bytes, index: int, spent_outputs: Sequence[tuple[int, bytes]]) -> bool:
        """Whether one input satisfies the script it spends, by the consensus rules.

        spent_outputs: (value_sat, script_pubkey) of every input, in their order. Relative timelocks are
        compared with the sequence field only, not with the chain.
        """
        tx = pbk.Transaction(raw_tx)
        outputs = [pbk.TransactionOutput(pbk.ScriptPubkey(script), value) for value, script in spent_outputs]
        data = PrecomputedTransactionData(tx, outputs)
        value, script = spent_outputs[index]
        verified = pbk.ScriptPubkey(script).verify(value, tx, data, index, pbk.ScriptVerificationFlags.ALL)
        return bool(verified)


def _refusal(lines: Sequence[str]) -> str | None:
    """The reason why a block was refused, or None if the log tells of none."""
    for line in lines:
        match = _BLOCK_CHECKED.search(line)
        if match is not None and match[2] != "Valid":
            return match[2].strip()
    return None
