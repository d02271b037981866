"""Paying over Lightning.

    states        pure: what a payment can be, what follows from what is seen, and how it is stored
    machine       the steps: HTLCs, the order to pay, the answer; taking HTLCs back
    on_chain      what became of HTLCs that exit
    writes        what is stored together with a state
    terms         pure: what it costs
    change_queue  payments that wait for the change of others
    adoption      HTLCs of an earlier life of this wallet, which a recovery finds
    invoices      from a destination to an invoice; lnurl: the services that give one
    service       starts payments, finds them, drives those under way

Source: protocol sheet 05 §4.
"""
