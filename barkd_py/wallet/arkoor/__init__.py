"""Payments to Ark addresses, out of round.

    states        what a payment can be, how the states follow each other, and how they are stored
    machine       the steps: cosigning, then delivering
    recipient     pure: what is checked of an address
    package       having the server cosign a package of ours, which other flows need too
    writes        what is stored together with a state
    service       the part of the wallet: starts payments, and drives those under way

Source: protocol sheet 03 §2.
"""
