"""Liveness; the only operation outside `/api/v1`."""

from barkd_py.api.reply import Reply, text_reply
from barkd_py.api.routing import Router

router = Router()


@router.get(
    "/ping", response_model=None, summary="Whether the daemon answers", openapi_extra={"security": [{}]}
)
async def ping() -> Reply:
    return text_reply(200, "pong")
