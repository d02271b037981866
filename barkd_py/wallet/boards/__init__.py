"""Boards: on-chain coins become a VTXO.

    states        what a board can be, how the states follow each other, and how they are stored
    machine       the steps, from the broadcast to the registration
    probe         why a funding transaction is not seen
    writes        what is stored together with a state
    terms         pure: what it costs, and what is signed
    service       the part of the wallet: starts boards, lists and drives those under way

Source: protocol sheet 03 §1.
"""
