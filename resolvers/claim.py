"""What a worker may ask for in one claim."""

from __future__ import annotations

from typing import Any

from resolvers import check
from resolvers.core import Limits
from resolvers.dispatch import Claim
from resolvers.errors import BadInput

MOST_CHANNELS = 1000


def checked(given: Any, limits: Limits) -> Claim:
    """The claim, its wait cut to the server's limit. Raises BadInput with the path of the bad field."""
    path = ("input",)
    channels = given.channels
    if not 1 <= len(channels) <= MOST_CHANNELS:
        raise BadInput(f"channels names {len(channels)}; 1 to {MOST_CHANNELS} are allowed", (*path, "channels"))
    words = {check.text(c, (*path, "channels", n), "channel") for n, c in enumerate(channels)}
    wait = check.number(given.wait_seconds, (*path, "waitSeconds"), "waitSeconds", 0, 1e9)
    return Claim(
        worker=check.text(given.worker_id, (*path, "workerId"), "workerId"),
        channels=tuple(sorted(words)),
        limit=check.whole(given.limit, (*path, "limit"), "limit", 1, limits.max_batch),
        seconds=check.number(given.lease_seconds, (*path, "leaseSeconds"), "leaseSeconds", 1, limits.max_lease_seconds),
        wait=min(wait, limits.max_wait_seconds),
        claim_id=None if given.claim_id is None else check.uuid(given.claim_id, (*path, "claimId"), "claimId"),
    )
