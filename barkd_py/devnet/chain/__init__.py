"""The chain of devnet: `node` is what all ask of a bitcoin node, `faucet` is where its money comes from.

`local` is the built-in node: `kernel` (Bitcoin Core's consensus rules), `block_log` and `index`, `mempool` by
the rules of `policy`. `bitcoind` is a real one behind the same interface.
"""
