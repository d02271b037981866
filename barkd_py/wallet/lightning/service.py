"""`wallet.lightning`: what users and the daemon may ask of Lightning payments.

It decides nothing: `sends` has the payments that go out, `receives` those that come in. `poll` is for the
fast loop of the daemon, `resume` for a sync; both only drive what is stored.
"""

import asyncio
from collections.abc import Collection, Sequence

from barkd_py.ark.address import ArkAddress
from barkd_py.ark.vtxo import VtxoId
from barkd_py.wallet.lightning.receive.service import (
    LightningReceive,
    LightningReceives,
    ReceiveEstimate,
)
from barkd_py.wallet.lightning.send.invoices import LightningDestination
from barkd_py.wallet.lightning.send.service import LightningSend, LightningSends
from barkd_py.wallet.lightning.send.terms import PayEstimate
from barkd_py.wallet.vtxo_states import WalletVtxo


class Lightning:
    """Lightning payments of one wallet.

    wakeup: set when there is something to poll for that was not there before.
    """

    def __init__(self, *, sends: LightningSends, receives: LightningReceives, wakeup: asyncio.Event) -> None:
        self._sends = sends
        self._receives = receives
        self.wakeup = wakeup

    # --- out

    async def pay(
        self,
        destination: LightningDestination,
        amount_sat: int | None,
        *,
        comment: str | None = None,
        retry_for_secs: int | None = None,
        wait: bool = False,
    ) -> bytes:
        """See `daemon.wallet_api.LightningApi`."""
        return await self._sends.pay(
            destination, amount_sat, comment=comment, retry_for_secs=retry_for_secs, wait=wait
        )

    async def send(self, payment_hash: bytes) -> LightningSend:
        """See `daemon.wallet_api.LightningApi`."""
        return await self._sends.find(payment_hash)

    async def estimate_pay(self, amount_sat: int) -> PayEstimate:
        """See `daemon.wallet_api.LightningApi`."""
        return await self._sends.estimate(amount_sat)

    async def lets_go(self, vtxo: WalletVtxo) -> bool:
        """See `exits.starts.LetsGo`."""
        return await self._sends.lets_go(vtxo)

    async def on_send_finished(self, payment_hash: bytes, preimage: bytes | None) -> None:
        """The mailbox says how a payment ended."""
        await self._sends.on_finished(payment_hash, preimage)

    async def adopt(self, vtxo_ids: Collection[VtxoId]) -> None:
        """HTLCs of payments of an earlier life: they are asked back. Raises ChainUnavailable."""
        await self._sends.adopt(vtxo_ids)

    # --- in

    async def create_invoice(
        self, amount_sat: int, *, description: str | None = None, token: str | None = None
    ) -> str:
        """See `daemon.wallet_api.LightningApi`."""
        return await self._receives.create(amount_sat, description=description, token=token)

    async def check_invoice_address(self, address: ArkAddress) -> None:
        """See `daemon.wallet_api.LightningApi`."""
        await self._receives.check_address(address)

    async def create_invoice_for(
        self, address: ArkAddress, amount_sat: int, *, description: str | None = None
    ) -> str:
        """See `daemon.wallet_api.LightningApi`."""
        return await self._receives.create_for(address, amount_sat, description=description)

    async def receives(self) -> Sequence[LightningReceive]:
        """See `daemon.wallet_api.LightningApi`."""
        return await self._receives.pending()

    async def receive(self, payment_hash: bytes) -> LightningReceive:
        """See `daemon.wallet_api.LightningApi`."""
        return await self._receives.find(payment_hash)

    async def cancel_receive(self, payment_hash: bytes) -> None:
        """See `daemon.wallet_api.LightningApi`."""
        await self._receives.cancel(payment_hash)

    async def estimate_receive(self, amount_sat: int) -> ReceiveEstimate:
        """See `daemon.wallet_api.LightningApi`."""
        return await self._receives.estimate(amount_sat)

    async def on_incoming(self, payment_hash: bytes) -> None:
        """The mailbox says that a payment has come."""
        await self._receives.on_incoming(payment_hash)

    # --- both

    async def is_pending(self) -> bool:
        """Whether any payment is under way, in either direction."""
        return await self._sends.poller.is_pending() or await self._receives.poller.is_pending()

    async def resume(self) -> None:
        """Drive everything that is under way, once."""
        await asyncio.gather(self._sends.poller.drive_all(), self._receives.poller.drive_all())

    async def poll(self) -> None:
        """Drive what a person may be waiting for. Cheap if there is nothing."""
        await self._sends.poller.poll()
        await self._receives.poller.poll()

    async def close(self) -> None:
        """Stop driving; every payment is where its row says."""
        await self._sends.close()
        await self._receives.poller.close()
