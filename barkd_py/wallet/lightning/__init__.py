"""Lightning payments, one room for each direction (`send`, `receive`), and what both need.

`service` is what others call, `poller` drives what is under way, `on_chain` takes to the chain what the
server does not pay, `ids` names the actions.
"""
