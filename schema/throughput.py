"""Throughput: how fast work goes, over time."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import strawberry

from resolvers import pace as deciding
from schema.context import Info

of = strawberry.field


@strawberry.type(description="What happened in one stretch of time.")
class ThroughputBucket:
    at: datetime = of(description="When it begins.")
    created: int = of(description="How many tasks were created.")
    succeeded: int = of(description="How many succeeded.")
    failed: int = of(description="How many failed for good.")
    wait_p50: float | None = of(
        name="waitP50",
        description="Seconds from ready to started: the median of those that started, within an eighth; null when none did.",
    )
    wait_p99: float | None = of(
        name="waitP99",
        description="Seconds from ready to started: the 99th percentile, within an eighth; null when none started.",
    )

    @classmethod
    def of(cls, bucket: deciding.Bucket) -> ThroughputBucket:
        return cls(
            at=bucket.at,
            created=bucket.created,
            succeeded=bucket.succeeded,
            failed=bucket.failed,
            wait_p50=deciding.quantile(bucket.waits, 0.5),
            wait_p99=deciding.quantile(bucket.waits, 0.99),
        )


@strawberry.type
class ThroughputQuery:
    @strawberry.field(
        description="How fast a channel goes, or all of them, up to about a second ago; oldest first. Kept for a day."
    )
    async def throughput(
        self,
        info: Info,
        channel: Annotated[str | None, strawberry.argument(description="Of this channel; null for all.")] = None,
        seconds: Annotated[int | None, strawberry.argument(description="Back from now, 10 to 86,400.")] = 3600,
        buckets: Annotated[
            int | None, strawberry.argument(description="In so many stretches of at least 10 s; 1 to 1,000.")
        ] = 60,
    ) -> list[ThroughputBucket] | None:
        found = await deciding.pace(
            info.context.core, channel, 3600 if seconds is None else seconds, 60 if buckets is None else buckets
        )
        return [ThroughputBucket.of(bucket) for bucket in found]
