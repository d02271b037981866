"""Offboards: leaving Ark in one transaction of the server's.

    states        what an offboard can be, how the states follow each other, and how they are stored
    machine       the steps: a split, the proposal, the forfeits
    confirmation  after the transaction is out: until it is deep, or certain never to be
    writes        what is stored together with a state, and what movements say
    terms         pure: what it costs, and what is left
    service       the part of the wallet: starts offboards, estimates them, drives those under way

Source: protocol sheet 03 §3.
"""
