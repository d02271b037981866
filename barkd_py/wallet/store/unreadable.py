"""Rows that cannot be read, where work on many must go on with the others."""

import logging

from barkd_py.errors import StoreError

log = logging.getLogger(__name__)


class PassedOver:
    """Names each in the log, once: it will be so for a long time. where: what goes on without them."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._named: set[str] = set()

    def note(self, name: object, error: StoreError) -> None:
        if (text := f"{name} is passed over: {error}") not in self._named:
            self._named.add(text)
            log.error("%s: %s", self._where, text)
