"""The chain, as bitcoind or an Esplora server shows it.

`source` is what is asked of either, as a Protocol; `bitcoind` and `esplora` answer it. `fee_rates` and
`tip_cache` keep answers for a while, `tip_watcher` tells of new blocks.
"""
