"""Lightning for users: being paid, paying, and the node that the server does both with."""
