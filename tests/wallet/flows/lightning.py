"""Nodes outside Ark, by the levers of devnet."""

from dataclasses import dataclass
from typing import Any

import httpx

from tests.wallet.flows.conftest import Net


@dataclass
class Outside:
    """Pays, and asks for money."""

    net: Net

    async def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        async with httpx.AsyncClient(base_url=self.net.devnet.urls.control_url, timeout=120) as http:
            answer = await http.post(path, json=body)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def pay(self, invoice: str, *, wait: bool = False, **options: Any) -> dict[str, Any]:
        """The payment: held, or how it ended if that is waited for."""
        return await self._post("/lightning/pay", {"invoice": invoice, "wait": wait, **options})

    async def invoice(self, amount_sat: int, **behaviour: Any) -> str:
        text: str = (await self._post("/lightning/invoice", {"amount_sat": amount_sat, **behaviour}))[
            "invoice"
        ]
        return text

    async def offer(self, amount_sat: int, **behaviour: Any) -> str:
        text: str = (await self._post("/lightning/offer", {"amount_sat": amount_sat, **behaviour}))["offer"]
        return text

    async def address(self, name: str, **terms: Any) -> tuple[str, str]:
        """A Lightning address, and the same as an LNURL."""
        found = await self._post("/lightning/address", {"name": name, **terms})
        return found["address"], found["lnurl"]

    async def settle(self, payment_hash: bytes) -> None:
        await self._post("/lightning/settle", {"payment_hash": payment_hash.hex()})

    async def fail(self, payment_hash: bytes) -> None:
        await self._post("/lightning/fail", {"payment_hash": payment_hash.hex()})

    async def sweep(self) -> None:
        """The Ark server looks at the chain, and takes what it may."""
        await self._post("/sweep", {})

    async def advance(self, seconds: int) -> None:
        await self._post("/time", {"advance_seconds": seconds})

    async def books(self) -> dict[str, Any]:
        async with httpx.AsyncClient(base_url=self.net.devnet.urls.control_url, timeout=120) as http:
            found: dict[str, Any] = (await http.get("/lightning")).json()
        return found

    async def incoming(self) -> list[str]:
        """How the payments of the outside world stand."""
        return [each["status"] for each in (await self.books())["incoming"]]
