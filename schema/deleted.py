"""What the deletion of a thing of its own answers."""

from __future__ import annotations

import strawberry


@strawberry.type(description="What was deleted.")
class DeletedPayload:
    id: strawberry.ID = strawberry.field(description="Its id, as it was given.")
