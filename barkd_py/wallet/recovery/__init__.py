"""Finding a wallet's VTXOs again: from nothing but the mnemonic, or after a backup was put back.

service    runs a recovery, from wherever the last one stopped
progress   how far it is, as it is stored
evidence   what the server and the chain say about VTXOs
judgement  pure: what follows from that
ledger     writes down what was found
report     what the recovery says about it
messages   the VTXOs that mailbox messages name
xpub       asks the server for all VTXOs of the wallet's keys
freshness  whether a backup is the newest state, before it is put back
"""
