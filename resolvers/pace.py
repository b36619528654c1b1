"""How fast channels go: what was created, succeeded and failed, and how long the ready waited."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from db.progress import throughput
from resolvers import check
from resolvers.core import Core
from resolvers.errors import BadInput

SPAN = 10
"""Seconds: what is counted is counted by spans of so many."""
DAY = 86_400
KEPT = 2 * DAY
_CREATED, _SUCCEEDED, _FAILED, _WAITED = 1, 2, 3, 100


@dataclass(slots=True)
class Bucket:
    at: datetime
    created: int = 0
    succeeded: int = 0
    failed: int = 0
    waits: dict[int, int] = field(default_factory=dict)
    """Bin → how many."""


async def pace(core: Core, channel: str | None, seconds: int, buckets: int) -> list[Bucket]:
    """As of the last fold, about a second ago. An unknown channel has done nothing."""
    check.whole(seconds, ("seconds",), "seconds", SPAN, DAY)
    check.whole(buckets, ("buckets",), "buckets", 1, 1000)
    if seconds < buckets * SPAN:
        raise BadInput(
            f"{buckets} buckets in {seconds} s are shorter than {SPAN} s each: ask for {seconds // SPAN} at most",
            ("buckets",),
        )
    number = 0
    if channel is not None:
        number = (await core.channels.known([check.text(channel, ("channel",), "channel")])).get(channel, -1)
    found: dict[datetime, Bucket] = {}
    for row in await throughput(core.pool, core.ns, number, seconds / buckets, buckets):
        bucket = found.setdefault(row.at, Bucket(row.at))
        if row.what is None or row.n is None:
            continue
        if row.what >= _WAITED:
            bucket.waits[row.what] = row.n
        elif row.what == _CREATED:
            bucket.created = row.n
        elif row.what == _SUCCEEDED:
            bucket.succeeded = row.n
        elif row.what == _FAILED:
            bucket.failed = row.n
    return list(found.values())


def quantile(waits: Mapping[int, int], share: float) -> float | None:
    """Seconds that so large a share waited at most, to about an eighth of it; None when nothing started."""
    left = share * sum(waits.values())
    for bin in sorted(waits):
        left -= waits[bin]
        if left <= 0:
            return float(f"{10 ** ((bin - 129.5) / 10):.3g}")
    return None
