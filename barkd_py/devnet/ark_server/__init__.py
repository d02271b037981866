"""An Ark server for devnet and tests, on the protocol core that the wallet uses too."""
