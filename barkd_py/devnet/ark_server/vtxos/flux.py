"""Locks on VTXOs that are in the middle of something. They live in memory only.

Source: sheet 10 §3.4.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from barkd_py.ark.vtxo import VtxoId
from barkd_py.devnet.ark_server.failures import Failure


class AlreadyLocked(Failure):
    """Another process holds a VTXO. The caller decides whose fault that is."""

    def __init__(self, vtxo_id: VtxoId) -> None:
        super().__init__(f"VTXO is already locked by another process: {vtxo_id}")
        self.vtxo_id = vtxo_id


class FluxLocks:
    """A set of VTXOs in use."""

    def __init__(self) -> None:
        self._held: set[VtxoId] = set()

    def lock(self, vtxo_ids: Iterable[VtxoId]) -> None:
        """Lock all or none; never waits. A list that repeats an id conflicts with itself. Raises
        AlreadyLocked.
        """
        taken: set[VtxoId] = set()
        for vtxo_id in vtxo_ids:
            if vtxo_id in self._held or vtxo_id in taken:
                raise AlreadyLocked(vtxo_id)
            taken.add(vtxo_id)
        self._held |= taken

    def release(self, vtxo_ids: Iterable[VtxoId]) -> None:
        self._held.difference_update(vtxo_ids)

    @contextmanager
    def holding(self, vtxo_ids: Iterable[VtxoId]) -> Iterator[None]:
        """Hold the locks for the block. Raises AlreadyLocked."""
        ids = tuple(vtxo_ids)
        self.lock(ids)
        try:
            yield
        finally:
            self.release(ids)

    def is_locked(self, vtxo_id: VtxoId) -> bool:
        return vtxo_id in self._held
