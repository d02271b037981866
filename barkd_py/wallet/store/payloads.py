"""States of state machines as versioned JSON.

The machines own their states: frozen dataclasses in `wallet.actions`, `wallet.rounds` and `wallet.exits`.
What is stored is ``{"version": n, "state": {…}}``. A machine whose states change raises the version and says
how an older state becomes a newer one, so an operation that was under way when the program was replaced goes
on.

The annotated types below are how a field of a state is written: everything binary as hex, ids as text.
"""

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Annotated, Any, Generic, TypeVar

from pydantic import PlainSerializer, PlainValidator, TypeAdapter, ValidationError

from barkd_py.ark.lightning_receive import Preimage
from barkd_py.ark.vtxo import Vtxo, VtxoId
from barkd_py.bitcoin.keys import PublicKey
from barkd_py.bitcoin.tx import BlockHash, OutPoint, Tx, Txid
from barkd_py.bitcoin.units import BlockRef
from barkd_py.errors import BarkdError, StoreError
from barkd_py.wallet.store.rows import from_json, to_json

T = TypeVar("T")

Upgrade = Callable[[dict[str, Any]], dict[str, Any]]
"""From the JSON of one version to that of the next."""


class PayloadTooNew(StoreError):
    """A newer program wrote this state."""

    def __init__(self, name: str, version: int) -> None:
        super().__init__(f"a stored {name} has version {version}, which this program does not know")
        self.name = name
        self.version = version


class PayloadMalformed(StoreError):
    """A stored state cannot be read. It may hold secrets, so nothing of it is shown."""

    def __init__(self, name: str, where: str) -> None:
        super().__init__(f"a stored {name} is malformed at {where}")
        self.name = name


class PayloadFormat(Generic[T]):
    """How one machine's states are stored.

    name: for errors. adapter: of the union of states, told apart by a ``type`` field; made when it is first
    needed, as most of them are not while the daemon starts.
    upgrades: by the version they start from; every version below `version` has one.
    """

    def __init__(
        self,
        name: str,
        adapter: Callable[[], TypeAdapter[T]],
        *,
        version: int = 1,
        upgrades: Mapping[int, Upgrade] | None = None,
    ) -> None:
        self._name = name
        self._make_adapter = adapter
        self._version = version
        self._upgrades = dict(upgrades or {})
        assert set(self._upgrades) == set(range(1, version)), "every older version has its upgrade"

    @cached_property
    def _adapter(self) -> TypeAdapter[T]:
        return self._make_adapter()

    def encode(self, state: T) -> str:
        return to_json({"version": self._version, "state": self._adapter.dump_python(state, mode="json")})

    def decode(self, text: str) -> T:
        """Raises PayloadTooNew, PayloadMalformed."""
        match from_json(text):
            case {"version": int(version), "state": dict(state)} if version >= 1:
                pass
            case _:
                raise PayloadMalformed(self._name, "its envelope")
        if version > self._version:
            raise PayloadTooNew(self._name, version)
        for older in range(version, self._version):
            state = self._upgrades[older](state)
        try:
            return self._adapter.validate_python(state)
        except ValidationError as error:
            places = {
                ".".join(map(str, entry["loc"])) or "its top" for entry in error.errors(include_input=False)
            }
            raise PayloadMalformed(self._name, ", ".join(sorted(places))) from None


def _parsed_by(kind: type[T], parse: Callable[[str], T]) -> PlainValidator:
    def validate(value: object) -> T:
        if isinstance(value, kind):
            return value
        if not isinstance(value, str):
            raise ValueError("expected a text")
        try:
            return parse(value)
        except BarkdError as error:
            raise ValueError("unreadable") from error

    return PlainValidator(validate)


def _block_ref(value: object) -> BlockRef:
    match value:
        case BlockRef():
            return value
        case {"height": int(height), "hash": str(block_hash)}:
            return BlockRef(height, BlockHash.from_hex(block_hash))
        case str():
            return BlockRef.parse(value)  # as old versions of barkd wrote it
        case _:
            raise ValueError("expected a block")


def _hex(value: bytes) -> str:
    return value.hex()


HexBytes = Annotated[bytes, _parsed_by(bytes, bytes.fromhex), PlainSerializer(_hex)]
TxidText = Annotated[Txid, _parsed_by(Txid, Txid.from_hex), PlainSerializer(str)]
OutPointText = Annotated[OutPoint, _parsed_by(OutPoint, OutPoint.parse), PlainSerializer(str)]
VtxoIdText = Annotated[VtxoId, _parsed_by(VtxoId, VtxoId.parse), PlainSerializer(str)]
PublicKeyHex = Annotated[PublicKey, _parsed_by(PublicKey, PublicKey.from_hex), PlainSerializer(str)]
PreimageHex = Annotated[
    Preimage,
    _parsed_by(Preimage, lambda text: Preimage(bytes.fromhex(text))),
    PlainSerializer(lambda preimage: preimage.data.hex()),
]
TxHex = Annotated[
    Tx,
    _parsed_by(Tx, lambda text: Tx.parse(bytes.fromhex(text))),
    PlainSerializer(lambda tx: tx.serialize().hex()),
]
VtxoHex = Annotated[
    Vtxo, _parsed_by(Vtxo, Vtxo.decode_hex), PlainSerializer(lambda vtxo: vtxo.encode().hex())
]
BlockRefJson = Annotated[
    BlockRef,
    PlainValidator(_block_ref),
    PlainSerializer(lambda block: {"height": block.height, "hash": str(block.hash)}),
]
