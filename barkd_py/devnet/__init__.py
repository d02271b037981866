"""A regtest in one process: a node with real consensus rules, Esplora, an Ark server, Lightning, a faucet.

`runner` puts it together, `command` is `barkd devnet`, `control` the levers over HTTP. `chain` is the bitcoin
node, `ark_server` the Ark server, `lightning` the nodes that pay and are paid.
"""
