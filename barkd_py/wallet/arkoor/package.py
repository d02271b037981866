"""Having the server cosign an out-of-round package of ours: one request, everything verified.

The same inputs and outputs always make the same transactions, so the request may be repeated until it is
answered; nonces are new each time. Source: sheet 03 §2.3-§2.7.
"""

from collections.abc import Awaitable, Callable, Sequence

from barkd_py.ark.arkoor import (
    ArkoorDestination,
    InvalidArkoor,
    WrongSigningKey,
    finish_package,
    generate_part_nonces,
    split_package,
)
from barkd_py.ark.vtxo import Vtxo, VtxoId
from barkd_py.errors import chain_text
from barkd_py.server_rpc.api import ArkoorCosignature, ArkoorCosignPart, ArkServerApi
from barkd_py.wallet.actions.failures import Unworkable, is_final
from barkd_py.wallet.keychain import Keychain, UnknownKey
from barkd_py.wallet.store import Store
from barkd_py.wallet.vtxo_states import StateKind

# A server's words, in a failure that reads as "try again", for: these amounts of these inputs were cosigned
# before, to be paid to others.
_CONFLICTING_SPEND = "is already spent"

RequestCosign = Callable[[Sequence[ArkoorCosignPart]], Awaitable[tuple[ArkoorCosignature, ...]]]
"""One of the server's calls that cosign a package: which one says what the package is for."""


async def cosign_package(
    store: Store,
    keychain: Keychain,
    server: ArkServerApi,
    input_ids: Sequence[VtxoId],
    outputs: Sequence[ArkoorDestination],
    *,
    request: RequestCosign | None = None,
) -> tuple[Vtxo, ...]:
    """The new VTXOs, fully signed; nothing is stored. request: None for an ordinary payment.

    Raises Unworkable for what can never be asked, ServerRejected, ServerError, ProtocolViolation.
    """
    async with store.read() as tx:
        stored = await tx.vtxos.get_many(input_ids)
        inputs = await tx.vtxos.bodies(input_ids)
    if any(vtxo.state.kind is StateKind.EXITED for vtxo in stored):
        raise Unworkable("inputs of the package are on the chain")
    try:
        user_secrets = await keychain.secrets_for([vtxo.user_pubkey for vtxo in inputs])
        parts = split_package(inputs, outputs)
        attestations = [part.attest(key) for part, key in zip(parts, user_secrets, strict=True)]
    except (InvalidArkoor, UnknownKey, WrongSigningKey) as error:
        raise Unworkable("arkoor payment cannot be built") from error
    known = {vtxo.id for vtxo in stored if vtxo.registered}
    await server.register_vtxo_transactions([vtxo for vtxo in inputs if vtxo.id not in known])
    nonces = [generate_part_nonces(part, key) for part, key in zip(parts, user_secrets, strict=True)]
    answers = await (request or server.request_arkoor_cosign)(
        [
            ArkoorCosignPart(part, tuple(pub_nonce for _, pub_nonce in part_nonces), attestation)
            for part, part_nonces, attestation in zip(parts, nonces, attestations, strict=True)
        ]
    )
    return finish_package(
        parts, user_secrets, nonces, [(answer.pub_nonces, answer.partial_sigs) for answer in answers]
    )


def is_refused(error: BaseException) -> bool:
    """Whether the package never was cosigned, and never will be: it is the same at every request."""
    return is_final(error) or _CONFLICTING_SPEND in chain_text(error)
