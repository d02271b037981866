"""Bitcoin's primitives: keys, MuSig2, scripts, taproot, transactions, invoices; no Ark, no I/O."""
