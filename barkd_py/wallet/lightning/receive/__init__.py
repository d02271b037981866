"""Being paid over Lightning: `receives` makes invoices and finds receives, `machine` drives one."""
