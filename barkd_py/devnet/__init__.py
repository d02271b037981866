"""A regtest in one process: a node with real consensus rules, Esplora, an Ark server, Lightning, a faucet.

`runner` puts it together, `command` is `barkd devnet`, `control` the levers over HTTP. `node` is what all ask
of a bitcoin node: `chain` is the built-in one (libbitcoinkernel, a mempool, an index), `bitcoind` a real one.
"""
