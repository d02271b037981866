"""Which inputs a refusal is about.

A server names the VTXOs that it does not take as inputs: in the metadata of the refusal, or only in its text.
With the same inputs the next try would end the same way, so they are left out of it.

Source: sheet 08 §6.1; sheet 10 §3.3.
"""

import re
from collections.abc import Collection

from barkd_py.ark.vtxo import VtxoId
from barkd_py.errors import BarkdError, ServerRejected, causes

_ID = re.compile(r"\b[0-9a-f]{64}:[0-9]{1,10}\b")


def blamed_inputs(error: BarkdError, inputs: Collection[VtxoId]) -> frozenset[VtxoId]:
    """Those of the inputs that the server has named in a refusal."""
    names: set[str] = set()
    for cause in causes(error):
        if isinstance(cause, ServerRejected):
            names.update(cause.identifiers)
            names.update(_ID.findall(str(cause)))
    return frozenset(vtxo_id for vtxo_id in inputs if str(vtxo_id) in names)
