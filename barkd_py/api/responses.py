"""Error answers as operations declare them for openapi.json."""

from typing import Any, Final

from barkd_py.api.schemas.common import (
    BadRequestError,
    InternalServerError,
    NotFoundError,
    UnprocessableEntityError,
)

Responses = dict[int | str, dict[str, Any]]

FAILED: Final[Responses] = {500: {"model": InternalServerError, "description": "Internal server error"}}
REFUSED: Final[Responses] = {400: {"model": BadRequestError, "description": "Bad request"}, **FAILED}
NOT_FOUND: Final[Responses] = {404: {"model": NotFoundError, "description": "Not found"}, **FAILED}
REFUSED_OR_NOT_FOUND: Final[Responses] = {**REFUSED, **NOT_FOUND}
REFUSED_OR_BUSY: Final[Responses] = {
    **REFUSED,
    422: {"model": UnprocessableEntityError, "description": "Not in the present state"},
}
EMPTY: Final[Responses] = {200: {"description": "Done", "content": None}}
