"""`wallet.lightning`: what users and the daemon may ask of Lightning payments.

It decides nothing: `sends` has the payments that go out, `receives` those that come in. `poll` is for the
fast loop of the daemon, `resume` for a sync; both only drive what is stored.
"""

from barkd_py.wallet.lightning.sends import LightningDestination, LightningSend, PayEstimate, SendState


class Lightning:
    """Lightning payments of one wallet."""

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
        raise NotImplementedError

    async def send(self, payment_hash: bytes) -> LightningSend:
        """See `daemon.wallet_api.LightningApi`."""
        return LightningSend(payment_hash, SendState.UNKNOWN)

    async def estimate_pay(self, amount_sat: int) -> PayEstimate:
        """See `daemon.wallet_api.LightningApi`."""
        raise NotImplementedError

    async def is_pending(self) -> bool:
        """Whether any payment is under way, in either direction."""
        return False

    async def resume(self) -> None:
        """Drive everything that is under way, once."""

    async def poll(self) -> None:
        """Drive what a person may be waiting for. Cheap if there is nothing."""

    async def close(self) -> None:
        """Stop driving; every payment is where its row says."""
