"""Prints openapi.json: `python -m barkd_py.api.generate > openapi.json`."""

import json
from pathlib import Path
from typing import Any, Never

from barkd_py.api.app import BarkdApi
from barkd_py.api.deps import ApiState
from barkd_py.daemon.runtime import Runtime
from barkd_py.datadir import Datadir


class _NoWallets:
    """A backend for an app that is only described."""

    async def create(self, *_: object) -> Never:
        raise NotImplementedError

    async def open(self, *_: object) -> Never:
        raise NotImplementedError

    async def holds_wallet(self, *_: object) -> Never:
        raise NotImplementedError

    def database_name(self, *_: object) -> Never:
        raise NotImplementedError

    def empty_file(self, *_: object) -> Never:
        raise NotImplementedError

    async def erase(self, *_: object) -> Never:
        raise NotImplementedError


def document() -> dict[str, Any]:
    runtime = Runtime(Datadir(Path("unused")), _NoWallets())
    return BarkdApi(ApiState(runtime, token=None)).openapi()


def text() -> str:
    return json.dumps(document(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    print(text(), end="")
