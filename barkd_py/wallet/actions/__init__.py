"""Actions: operations on money that survive the death of the program.

    executor      drives them: takes the lock, runs a step, stores what came of it
    drives        drives that go on when their caller waits no longer
    failures      may a step that failed be undone, or must it be tried again?
    bad_answers   a server whose answers are wrong: how often it is asked again, and what then
    server_books  what the server has booked, asked before something is undone
    blame         which inputs a refusal is about

How to add a flow
-----------------
A flow is a room with the same files as any other (`wallet/boards` is the smallest); `make lint` knows their
order:

    states        what it can be: a diagram, frozen dataclasses, `State` as their union, `FORMAT` to store it
    errors        what it refuses
    terms         pure: what it costs and what is left, if there is something to reckon
    writes        `write_…` functions: what is stored in the transaction that stores the next state
    machine       `kind`, `format`, `reports`, and `step`: one method per state, each repeatable
    service       what others call: chooses, reserves, stores the first state (`executor.begin`), drives

Then it is entered where all flows are known:

    code    `store.actions.ActionKind`; what of it the balance counts (`wallet/balance.py`); `Wallet` builds
            it, drives it in `sync_steps`, closes it; `daemon/wallet_api.py` and a router offer it
    lint    `pyproject.toml`: the room in "The wallet's rooms point one way" and "Every flow's room has the
            same files", its pure files in "What decides is pure"
    tests   `tests/crash/flows`: a row, so that it is killed at each of its calls and commits, and its
            operation in `operations.py`; `test_every_step_may_run_twice` (`tests/wallet/flows/crashes.py`);
            `tests/faults/register.py`: what it must verify, and the tests that show that it does
    docs    `make generate` (`openapi.json`, `docs/endpoints.md`), CHANGELOG.md, ARCHITECTURE.md

Source: sheet 09 §2.
"""
