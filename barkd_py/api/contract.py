"""Which version of the REST contract a client reads.

Two versions are in use: 0.1.4, the first that was published, and 0.8.0. Almost every answer satisfies both.
Where one cannot, clients that were generated for a version say so in their User-Agent
(`OpenAPI-Generator/0.1.4/python`), and the setting `rest_contract` decides for all others.

Source: protocol sheet 07 §8.
"""

import enum
import re
from typing import Final

_GENERATED: Final = re.compile(r"OpenAPI-Generator/(\d+)\.(\d+)\.\d+[^/\s]*/")


class Contract(enum.Enum):
    V0_1_4 = "0.1.4"
    V0_8_0 = "0.8.0"
    UNSTATED = "auto"
    """Nobody said. New words are used on the paths that only 0.8.0 has, old ones where they would clash."""

    def on_old_path(self) -> "Contract":
        """Whose words to use on a path that 0.1.4 has, where the two cannot both be satisfied."""
        return Contract.V0_1_4 if self is Contract.UNSTATED else self

    def on_new_path(self) -> "Contract":
        """Whose words to use on a path that came after 0.1.4."""
        return Contract.V0_8_0 if self is Contract.UNSTATED else self


def contract_of(user_agent: str) -> Contract:
    """What the client says about itself; from 0.6 on clients know the words of 0.8.0."""
    match = _GENERATED.search(user_agent)
    if match is None:
        return Contract.UNSTATED
    return Contract.V0_8_0 if (int(match[1]), int(match[2])) >= (0, 6) else Contract.V0_1_4


def override(setting: str) -> Contract | None:
    """The contract that a setting forces on every client, if it does."""
    contract = Contract(setting)
    return None if contract is Contract.UNSTATED else contract
