"""Types that several tags share."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from barkd_py.api.json_body import MayEnd, Unsigned

U32 = Annotated[int, Unsigned(32), Field(ge=0, json_schema_extra={"format": "int32"})]
U64 = Annotated[int, Unsigned(64), Field(ge=0, json_schema_extra={"format": "int64"})]
I64 = Annotated[int, Field(json_schema_extra={"format": "int64"})]
U32OrEnd = Annotated[U32 | None, MayEnd()]
U64OrEnd = Annotated[U64 | None, MayEnd()]
TextOrEnd = Annotated[str | None, MayEnd()]
FlagOrEnd = Annotated[bool | None, MayEnd()]
SwitchOrEnd = Annotated[bool, MayEnd()]
"""What a request may leave out, even one that is an array of its fields."""
U16 = Annotated[int, Unsigned(32), Field(ge=0, json_schema_extra={"format": "int32"})]


class Schema(BaseModel):
    # Most models only describe; building their validators takes as long as opening a wallet.
    model_config = ConfigDict(populate_by_name=True, defer_build=True)

    @classmethod
    def build_all(cls) -> None:
        """Build the validators of all models below this one, which FastAPI needs to describe them."""
        for model in cls.__subclasses__():
            model.model_config["defer_build"] = False
            model.model_rebuild()
            model.build_all()


class BadRequestError(Schema):
    message: str


class InternalServerError(Schema):
    message: str


class UnprocessableEntityError(Schema):
    message: str


class NotFoundError(Schema):
    resources: list[str]
    message: str


class TransactionInfo(Schema):
    """An on-chain transaction."""

    txid: str
    tx: str
    """Consensus encoding with witnesses, in hex."""


class BlockRef(Schema):
    """A block, by height and hash."""

    height: U32
    hash: str
