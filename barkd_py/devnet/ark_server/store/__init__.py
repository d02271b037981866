"""The server's books: one SQLite database, and the rows of each kind of thing in it."""
