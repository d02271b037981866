"""The daemon without its HTTP: at most one wallet, made, opened and deleted; its background loops.

`runtime` holds the wallet, `loops` is the table of what runs beside it, `supervisor` restarts what fails;
`wallet_api` is all that the API may ask of a wallet.
"""
