"""The Ark protocol: VTXOs and everything that is built, signed and verified about them; no I/O.

Both sides of each construction are here, the client's and the server's. Start with `vtxo`, `policy` and
`genesis`; what a client must never take unverified is in `validation`.
"""
