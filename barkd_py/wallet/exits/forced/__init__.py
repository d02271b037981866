"""Exits that others force upon us: what they have put on the chain, and who may take what there."""
