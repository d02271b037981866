"""The wallet's mailbox: `pages` reads messages whole, `reader` verifies, stores and acknowledges each, and
`receipts` says in the history what came in."""
