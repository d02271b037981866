"""Names of Lightning actions: one action per payment hash and direction, ever at the same time.

The name of an action is also that of its lock, so whoever starts a payment of a hash meets everybody else who
does. Source: protocol sheet 05 §3.
"""

_SEND = "ln_pay."
_RECEIVE = "ln_recv."


def send_action_id(payment_hash: bytes) -> str:
    """payment_hash: 32 bytes."""
    return _SEND + payment_hash.hex()


def receive_action_id(payment_hash: bytes) -> str:
    """payment_hash: 32 bytes."""
    return _RECEIVE + payment_hash.hex()
