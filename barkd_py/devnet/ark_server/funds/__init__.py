"""The server's own money, and what leaves it: the treasury, the pool for Lightning, offboards, fee rates."""
