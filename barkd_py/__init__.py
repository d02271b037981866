"""barkd in Python: a wallet for Ark, the REST daemon around it, and a regtest to try both on."""
