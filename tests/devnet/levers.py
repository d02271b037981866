"""The levers of a running devnet, as whoever plays with it pulls them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from barkd_py.devnet.runner import Devnet


@asynccontextmanager
async def levers_of(devnet: Devnet) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=devnet.urls.control_url, trust_env=False, timeout=60.0) as client:
        yield client


async def pull(levers: httpx.AsyncClient, path: str, /, **body: Any) -> Any:
    answer = await levers.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()
