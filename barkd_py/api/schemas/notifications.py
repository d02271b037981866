"""Tag `notifications`."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from barkd_py.api.schemas.common import Schema
from barkd_py.api.schemas.history import Movement


class WaitQuery(Schema):
    since: datetime | None = None


class TicketQuery(Schema):
    ticket: str


class MovementCreated(Schema):
    type: Literal["movement-created"]
    movement: Movement


class MovementUpdated(Schema):
    type: Literal["movement-updated"]
    movement: Movement


class ChannelLagging(Schema):
    type: Literal["channel-lagging"]


WalletNotification = Annotated[
    MovementCreated | MovementUpdated | ChannelLagging, Field(discriminator="type")
]


class WaitNotificationResponse(Schema):
    notifications: list[WalletNotification]
    last_pushed_at: datetime | None
