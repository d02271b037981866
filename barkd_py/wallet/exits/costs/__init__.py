"""What exits cost, and which of them are worth it."""
