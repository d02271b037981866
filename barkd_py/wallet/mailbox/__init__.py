"""The wallet's mailbox: `pages` reads messages whole, `reader` verifies, stores and acknowledges each."""
