"""The wallet: VTXOs and their states, keys, history, the flows that move money, the database.

`wallet.Wallet` opens the parts; ARCHITECTURE.md draws the rooms, and which may import which.
"""
