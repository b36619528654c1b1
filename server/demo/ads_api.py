"""A stand-in ads API that behaves as badly as the real ones: slow, failing at random, rate-limited by token.

What happens to a call hangs on the seed, the resource, the token and how often the resource was tried,
and on nothing else: the same seed gives the same failures whatever runs beside it.
"""

import asyncio
import hashlib
import math
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

FAILURE_RATE = 0.15
FASTEST_SECONDS, SLOWEST_SECONDS = 0.03, 0.12
# What the body of a call must name, by collection.
REQUIRED: Mapping[str, tuple[str, ...]] = {
    "campaigns": (),
    "adsets": ("campaignId",),
    "videos": ("adsetId",),
    "creatives": ("videoId",),
    "ads": ("adsetId", "creativeId"),
    "verifications": ("campaignId", "adIds"),
    "activations": ("campaignId",),
    "messages": ("text",),
}


@dataclass(frozen=True)
class Limit:
    """At most `calls` in any window of `per_seconds`; call number `always` is refused whatever the pace."""

    calls: int = 5
    per_seconds: float = 1.0
    retry_after_seconds: int = 2
    always: int = 4


# Every other token goes unlimited.
LIMITS: Mapping[str, Limit] = {"token-b": Limit()}


@dataclass
class Throttle:
    """The sliding window of one token, and how long it is shut out after a refusal."""

    limit: Limit
    calls: int = 0
    recent: deque[float] = field(default_factory=deque)
    shut_until: float = -math.inf

    def retry_after(self, now: float) -> int | None:
        """Whole seconds to stay away; None lets the call in."""
        self.calls += 1
        while self.recent and self.recent[0] <= now - self.limit.per_seconds:
            self.recent.popleft()
        if now < self.shut_until:
            return math.ceil(self.shut_until - now)
        if self.calls == self.limit.always or len(self.recent) >= self.limit.calls:
            self.shut_until = now + self.limit.retry_after_seconds
            return self.limit.retry_after_seconds
        self.recent.append(now)
        return None


def chance(*parts: object) -> float:
    """A number in [0, 1) that hangs on the parts alone (`hash()` differs from process to process)."""
    digest = hashlib.blake2b("\0".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64


def create_ads_api(
    seed: int,
    *,
    limits: Mapping[str, Limit] = LIMITS,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Starlette:
    """`PUT /{collection}/{name}` with a bearer token makes one thing; a repeat answers the same id."""
    throttles = {token: Throttle(limit) for token, limit in limits.items()}
    tries: Counter[tuple[str, str]] = Counter()

    async def put(request: Request) -> JSONResponse:
        path, collection = request.url.path, request.path_params["collection"]
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not token:
            return JSONResponse({"message": "Send a token: `Authorization: Bearer …`."}, 401)
        if (throttle := throttles.get(token)) and (wait := throttle.retry_after(clock())) is not None:
            message = f"Rate limit of {token} reached; come back in {wait} s."
            return JSONResponse({"message": message}, 429, {"Retry-After": str(wait)})
        # Only calls that were let in are numbered: when a refusal comes does not change what fails.
        tries[path, token] += 1
        attempt = tries[path, token]
        pace = chance("pace", seed, path, token, attempt)
        await sleep(FASTEST_SECONDS + pace * (SLOWEST_SECONDS - FASTEST_SECONDS))
        if chance("luck", seed, path, token, attempt) < FAILURE_RATE:
            return JSONResponse({"message": "Something went wrong on our side. Please try again."}, 500)
        if collection not in REQUIRED:
            return JSONResponse({"message": f"No collection {collection!r}; there are {', '.join(REQUIRED)}."}, 404)
        body = await request.json()
        if missing := [name for name in REQUIRED[collection] if not body.get(name)]:
            return JSONResponse({"message": f"Missing: {', '.join(missing)}."}, 422)
        return JSONResponse({"id": f"{collection}-{int(chance('id', seed, path) * 16**6):06x}"})

    return Starlette(routes=[Route("/{collection}/{name}", put, methods=["PUT"])])
