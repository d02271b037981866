"""Rounds: swapping old VTXOs for new ones, before they expire or become too deep.

    states        what a participation can be, and how it is stored
    machine       pure: state and observation to state and effect, the whole rule of it
    participation pure: inputs, the output, the fee
    driver        drives one: stores each state, then has its effects carried out
    effects       what the machine asks for, done: calls of the server, signatures, the swap
    records       rows, locks and movements, stored together
    signing       cosign keys and nonces, in memory only, and what is signed with them
    swap          the end of every round: leaves, forfeits, preimage
    recovery      participations that only the server knows
    bounds        pure: what a server may ask of a refresh that nobody asked for
    service       the part of the wallet: starts participations, feeds events, tells how they are doing
    maintenance   refreshes by itself what would expire

Source: protocol sheet 04.
"""
