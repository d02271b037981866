"""``make run``: a tour of barkd-py on a regtest of its own, which then stays up to play with.

It starts ``barkd devnet`` and two daemons, gives the first wallet money, moves it onto Ark, pays the second
wallet, pays and is paid over Lightning, shows what both have, and prints lines to paste. Everything goes
through the REST API and the levers of devnet, as any other program would do it. State is in ``.devnet``;
another run goes on from there.

However the tour ends, the programs that it started end too (see `barkd_py.devnet.child`), and a run that
follows at once waits for them: all of them hold the lock of the tour.

`steps` is what it does, `show` what it prints, `programs` what it starts.
"""
