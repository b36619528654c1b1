"""Due times of schedules: cron in a time zone. Pure rules; the clock is the caller's.

Where clocks go forward, a run at a fixed time that is left out comes right after the gap; where they go back, it comes once, the
first time. Runs that come every minute or every hour (`*` as minute or hour) go on in real time: through an hour that comes twice,
and not at one that is left out. So does Debian's cron.
"""

from __future__ import annotations

import zoneinfo
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import islice, takewhile

from cronsim import CronSim, CronSimError

from resolvers import check
from resolvers.errors import BadInput, Path

SKIP, ONE, ALL = range(3)
"""catch_up, as rows have it."""
ON_TIME = timedelta(seconds=60)
"""A due time that is longer ago was missed."""
_FIELDS = "minute (0-59), hour (0-23), day of the month (1-31), month (1-12), day of the week (0-7)"
_LOOKS_BACK = tuple(timedelta(hours=h) for h in (1, 25, 24 * 32, 24 * 367))


@cache
def zones() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones() - {"localtime"})


def checked_zone(value: str, path: Path) -> str:
    if value not in zones():
        raise BadInput(
            f"timeZone is {check.shown(value)}; it must be a name of the IANA database, such as UTC or Europe/Berlin",
            path,
        )
    return value


def checked_cron(value: str, zone: str, now: datetime, path: Path) -> str:
    """Five fields, of which a due time comes some day."""
    check.text(value, path, "cron")
    fields = value.split()
    allowed = (
        f"it must have five fields: {_FIELDS}; each with *, lists, ranges and steps, such as */15 9-17 * * MON-FRI"
    )
    if len(fields) != 5:
        raise BadInput(f"cron is {check.shown(value)}, with {len(fields)} fields; {allowed}", path)
    try:
        CronSim(value, now)
    except (CronSimError, ValueError) as error:
        raise BadInput(f"cron is {check.shown(value)} ({error}); {allowed}", path) from None
    if first_after(value, zone, now) is None:
        raise BadInput(f"cron is {check.shown(value)}, which never comes; {allowed}", path)
    return value


def times_after(cron: str, zone: str, after: datetime) -> Iterator[datetime]:
    """All due times after an instant, in UTC, in order. Raises BadInput for a zone that another server knew, and we do not."""
    last = after
    for local in CronSim(cron, after.astimezone(_zone(zone))):
        at = local.astimezone(UTC)
        # In the second of two equal hours a fixed time is found again, which was in the first.
        if at > last:
            last = at
            yield at


def _zone(name: str) -> zoneinfo.ZoneInfo:
    try:
        return zoneinfo.ZoneInfo(name)
    except zoneinfo.ZoneInfoNotFoundError:
        raise BadInput(
            f"no time zone {check.shown(name)} is known here: bring tzdata up to date, or name another"
        ) from None


def first_after(cron: str, zone: str, after: datetime) -> datetime | None:
    return next(times_after(cron, zone, after), None)


def latest(cron: str, zone: str, first: datetime, now: datetime) -> datetime:
    """The last due time until now; `first` is one. Looks back a short time first: there may be very many."""
    for back in _LOOKS_BACK:
        if now - back <= first:
            break
        *_, found = (None, *takewhile(lambda at: at <= now, times_after(cron, zone, now - back)))
        if found is not None:
            return found
    *_, found = (first, *takewhile(lambda at: at <= now, times_after(cron, zone, first)))
    return found


def due_runs(
    cron: str, zone: str, catch_up: int, first: datetime, now: datetime, most: int
) -> tuple[list[datetime], datetime | None]:
    """The due times to run for, of those from `first` until now; and when the next one is due, which with ALL may be past too."""
    if catch_up == ALL:
        times = (first, *islice(times_after(cron, zone, first), most))
        due = [at for at in times if at <= now][:most]
        return due, next((at for at in times if at not in due), None)
    last = latest(cron, zone, first, now)
    missed = catch_up == SKIP and now - last > ON_TIME
    return ([] if missed else [last]), first_after(cron, zone, now)
