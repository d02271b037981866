"""Claims: one transaction that takes the outputs of matured exits, until it is deep in the chain."""
