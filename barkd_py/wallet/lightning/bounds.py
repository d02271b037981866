"""The most that a server's schedule may take of a Lightning payment. Beyond that nothing is agreed to."""

_ALLOWANCE_SAT = 10_000
"""Beside the share, so that small payments are possible where fees have a base."""


def max_send_fee_sat(amount_sat: int) -> int:
    """No schedule that anybody would agree to takes more than the payment itself and the allowance."""
    return amount_sat + _ALLOWANCE_SAT


def max_receive_fee_sat(amount_sat: int) -> int:
    """No schedule that anybody would agree to takes more than half of a payment and the allowance."""
    return amount_sat // 2 + _ALLOWANCE_SAT
