"""The on-chain wallet: balance, coins, building and signing, on BDK; it knows nothing of Ark.

`wallet` is what others call, `sync` brings the chain to it; `coin_selection` and `cpfp` are pure.
"""
