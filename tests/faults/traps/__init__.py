"""The traps of the protocol, line by line, and the tests that notice if we fall into one.

The keys are the lines of the lists "Edge cases and traps" of the protocol sheets: sheet, section, and the
line's number within the list. A module for each sheet.
"""

from tests.faults.traps import daemon, exits, keys, lightning, payments, rest, rounds, server, vtxos, wire

TRAPS_PER_LIST = {
    "01 §18": 25,
    "02 §11": 25,
    "03 §10": 32,
    "04 §25": 23,
    "05 §11": 21,
    "06 §10": 20,
    "07 §13": 43,
    "08 §10": 16,
    "09 §10": 21,
    "10 §17": 26,
}
"""How long each list is."""

SHEETS = (vtxos, keys, payments, rounds, lightning, exits, rest, wire, daemon, server)

TRAPS = {key: line for sheet in SHEETS for key, line in sheet.TRAPS.items()}
