"""Due times: cron in a time zone, across changes of the clock, and what is run for of what was missed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise

import pytest

from resolvers.cron import ALL, ONE, SKIP, checked_cron, checked_zone, due_runs, first_after, latest, times_after
from resolvers.errors import BadInput

PATH = ("input", "cron")
BERLIN, NEW_YORK, LORD_HOWE = "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def some(cron: str, zone: str, after: str, n: int) -> list[str]:
    return [f"{t:%d %H:%M}" for t in islice(times_after(cron, zone, at(after)), n)]


def test_times_are_those_of_the_zone() -> None:
    assert some("30 9 * * *", BERLIN, "2026-01-01", 2) == ["01 08:30", "02 08:30"]
    assert some("30 9 * * *", BERLIN, "2026-07-01", 2) == ["01 07:30", "02 07:30"]
    assert some("30 9 * * *", "UTC", "2026-07-01T09:30", 1) == ["02 09:30"]
    assert some("0 9 * * MON-FRI", "Asia/Kathmandu", "2026-01-02T12:00", 2) == ["05 03:15", "06 03:15"]
    assert some("0 0 L * *", "UTC", "2026-02-01", 2) == ["28 00:00", "31 00:00"]


# Berlin: on 29 March 2026 02:00 is 03:00 (01:00 UTC); on 25 October 03:00 is 02:00 again (01:00 UTC).
FORWARD = [
    ("30 2 * * *", ["28 01:30", "29 01:00", "30 00:30"]),
    ("0,30 2 * * *", ["28 01:00", "28 01:30", "29 01:00", "30 00:00"]),
    ("30 2,3 * * *", ["28 01:30", "28 02:30", "29 01:00", "29 01:30", "30 00:30"]),
    ("0 3 * * *", ["28 02:00", "29 01:00", "30 01:00"]),
]


@pytest.mark.parametrize(("cron", "expected"), FORWARD)
def test_a_fixed_time_that_is_left_out_comes_right_after_the_gap(cron: str, expected: list[str]) -> None:
    assert some(cron, BERLIN, "2026-03-28", len(expected)) == expected


BACK = [
    ("30 2 * * *", ["24 00:30", "25 00:30", "26 01:30"]),
    ("0 3 * * *", ["24 01:00", "25 02:00", "26 02:00"]),
    ("15,45 2 * * *", ["24 00:15", "24 00:45", "25 00:15", "25 00:45", "26 01:15"]),
]


@pytest.mark.parametrize(("cron", "expected"), BACK)
def test_a_fixed_time_that_comes_twice_runs_once(cron: str, expected: list[str]) -> None:
    assert some(cron, BERLIN, "2026-10-24", len(expected)) == expected


def test_a_fixed_time_is_not_found_again_in_the_second_of_two_equal_hours() -> None:
    # 01:10 UTC is 02:10, for the second time: 02:30 was at 00:30 UTC.
    assert some("30 2 * * *", BERLIN, "2026-10-25T01:10", 1) == ["26 01:30"]
    assert some("30 1 * * *", NEW_YORK, "2026-11-01T06:10", 1) == ["02 06:30"]


def test_every_hour_goes_on_in_real_time() -> None:
    assert some("0 * * * *", BERLIN, "2026-03-28T23:30", 3) == ["29 00:00", "29 01:00", "29 02:00"]
    assert some("0 * * * *", BERLIN, "2026-10-24T23:30", 4) == ["25 00:00", "25 01:00", "25 02:00", "25 03:00"]
    assert some("*/30 * * * *", LORD_HOWE, "2026-04-04T14:15", 4) == ["04 14:30", "04 15:00", "04 15:30", "04 16:00"]


def test_a_change_of_half_an_hour() -> None:
    # Lord Howe: on 4 October 2026 02:00 is 02:30 (15:30 UTC the day before).
    assert some("15 2 * * *", LORD_HOWE, "2026-10-03", 2) == ["03 15:30", "04 15:15"]


@pytest.mark.parametrize("zone", ["UTC", BERLIN, NEW_YORK, LORD_HOWE])
@pytest.mark.parametrize(
    "cron", ["* * * * *", "*/7 * * * *", "0 * * * *", "30 2 * * *", "0,30 1-3 * * *", "59 23 * * SUN"]
)
@pytest.mark.parametrize("start", ["2026-03-28", "2026-10-24", "2026-10-31", "2026-04-04"])
def test_times_only_go_forward_and_do_not_depend_on_where_one_starts(cron: str, zone: str, start: str) -> None:
    times = list(islice(times_after(cron, zone, at(start)), 200))
    assert all(a < b for a, b in pairwise(times))
    for time, following in zip(times[::7], times[1::7], strict=False):
        assert first_after(cron, zone, time) == following
        assert first_after(cron, zone, following - timedelta(seconds=1)) == following


@pytest.mark.parametrize(
    "cron",
    ["* * * *", "* * * * * *", "60 * * * *", "x * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "*/0 * * * *", "5-1 * * * *",
     "@daily", "- - - - -", ", * * * *", "* * * * MON#6", "9" * 240 + " * * * *", "٣ * * * *", "* * 31 FEB *"],
)  # fmt: skip
def test_a_bad_cron_is_refused_with_what_is_allowed(cron: str) -> None:
    with pytest.raises(BadInput, match=r"five fields: minute \(0-59\)") as refused:
        checked_cron(cron, "UTC", at("2026-01-01"), PATH)
    assert refused.value.path == PATH
    assert repr(cron)[:60] in refused.value.message


@pytest.mark.parametrize("cron", ["", "* " * 200, "* * * * \0"])
def test_a_cron_that_is_no_text_of_some_length_is_refused(cron: str) -> None:
    with pytest.raises(BadInput) as refused:
        checked_cron(cron, "UTC", at("2026-01-01"), PATH)
    assert refused.value.path == PATH


def test_a_time_that_never_comes_is_refused() -> None:
    with pytest.raises(BadInput, match="never comes"):
        checked_cron("0 0 */30 2 MON#5", "UTC", at("2026-01-01"), PATH)


@pytest.mark.parametrize(
    "zone", ["", "Berlin", "europe/berlin", "../etc/passwd", "/etc/localtime", "UTC\0", "+02:00", "x" * 999]
)
def test_a_bad_zone_is_refused_with_what_is_allowed(zone: str) -> None:
    with pytest.raises(BadInput, match="IANA") as refused:
        checked_zone(zone, ("input", "timeZone"))
    assert refused.value.path == ("input", "timeZone")


def runs(catch_up: int, first: str, now: str, cron: str = "0 * * * *", most: int = 100) -> tuple[list[str], str]:
    times, following = due_runs(cron, "UTC", catch_up, at(first), at(now), most)
    assert following is not None
    return [f"{t:%d %H:%M}" for t in times], f"{following:%d %H:%M}"


@pytest.mark.parametrize("catch_up", [SKIP, ONE, ALL])
def test_what_is_due_now_runs_under_every_policy(catch_up: int) -> None:
    assert runs(catch_up, "2026-01-01T10:00", "2026-01-01T10:00:02") == (["01 10:00"], "01 11:00")


def test_what_was_missed() -> None:
    missed = "2026-01-01T10:00", "2026-01-01T13:30"
    assert runs(SKIP, *missed) == ([], "01 14:00")
    assert runs(ONE, *missed) == (["01 13:00"], "01 14:00")
    assert runs(ALL, *missed) == (["01 10:00", "01 11:00", "01 12:00", "01 13:00"], "01 14:00")


def test_one_due_now_after_some_that_were_missed() -> None:
    assert runs(SKIP, "2026-01-01T10:00", "2026-01-01T12:00:01") == (["01 12:00"], "01 13:00")
    assert runs(ONE, "2026-01-01T10:00", "2026-01-01T12:00:01") == (["01 12:00"], "01 13:00")


def test_all_that_were_missed_come_in_parts() -> None:
    missed = "2026-01-01T10:00", "2026-01-01T13:30"
    assert runs(ALL, *missed, most=3) == (["01 10:00", "01 11:00", "01 12:00"], "01 13:00")
    assert runs(ALL, *missed, most=4) == (["01 10:00", "01 11:00", "01 12:00", "01 13:00"], "01 14:00")


@pytest.mark.parametrize("cron", ["* * * * *", "0 5 * * *", "0 0 1 * *", "0 0 1 1 *", "0 0 29 2 *"])
def test_the_latest_due_time_is_found_without_counting_all(cron: str) -> None:
    now = at("2026-06-15T12:34:56")
    first = first_after(cron, BERLIN, at("2016-01-01"))
    assert first is not None
    found = latest(cron, BERLIN, first, now)
    following = first_after(cron, BERLIN, found)
    assert found <= now
    assert following is not None
    assert following > now
