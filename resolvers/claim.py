"""What a worker may ask for in one claim."""

from __future__ import annotations

from typing import Any

from resolvers import check
from resolvers.core import Limits
from resolvers.dispatch import OFFER_SECONDS, Claim
from resolvers.errors import BadInput

MOST_CHANNELS = 1000


def checked(given: Any, limits: Limits) -> Claim:
    """The claim, its wait cut to the server's limit. Raises BadInput with the path of the bad field."""
    path = ("input",)
    claim = _asked(given, limits)
    wait = check.number(given.wait_seconds, (*path, "waitSeconds"), "waitSeconds", 0, 1e9)
    claim.wait = min(wait, limits.max_wait_seconds)
    claim.claim_id = None if given.claim_id is None else check.uuid(given.claim_id, (*path, "claimId"), "claimId")
    return claim


def checked_stream(given: Any, limits: Limits) -> Claim:
    """What a stream claims again and again: offers, which last for leaseSeconds when they are confirmed. Raises BadInput."""
    check.whole(len(given.holding or ()), ("input", "holding"), "the length of holding", 0, limits.max_batch)
    claim = _asked(given, limits)
    claim.seconds, claim.offer = OFFER_SECONDS, claim.seconds
    return claim


def _asked(given: Any, limits: Limits) -> Claim:
    path = ("input",)
    channels = given.channels
    if not 1 <= len(channels) <= MOST_CHANNELS:
        raise BadInput(f"channels names {len(channels)}; 1 to {MOST_CHANNELS} are allowed", (*path, "channels"))
    words = {check.text(c, (*path, "channels", n), "channel") for n, c in enumerate(channels)}
    return Claim(
        worker=check.text(given.worker_id, (*path, "workerId"), "workerId"),
        channels=tuple(sorted(words)),
        limit=check.whole(given.limit, (*path, "limit"), "limit", 1, limits.max_batch),
        seconds=check.number(given.lease_seconds, (*path, "leaseSeconds"), "leaseSeconds", 1, limits.max_lease_seconds),
        wait=0.0,
        claim_id=None,
    )
