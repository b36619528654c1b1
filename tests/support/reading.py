"""What every statement that reads is asked with, for the test of its plan: small pages of whatever there is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from db.progress import GroupFilter
from db.statements import statement
from db.walk import HIGHEST, Narrowed

NS, PAGE = 1, 51
LATEST = 1 << 52
NOW = datetime.now(UTC)
LANES = ([1001, 1002, 1003, 1004, 1005], [0] * 5)

# Rows that only reading asks for: groups, and how far they are. $1 how many tasks $2 the first number.
FILL = """
insert into task_group (ns, group_no, id, name, made_upto, created_at)
select 1, 100000000 + $2::bigint + i, gen_random_uuid(), 'g' || i, 0, now() - interval '1 day'
from generate_series(0, $1::int / 80 - 1) i;
insert into group_tally (ns, group_no, total, unsettled, failing, counts, weight, settled_weight, settled_at)
select 1, 100000000 + $2::bigint + i, 100, (i % 2) * 50, (i % 7 = 1)::int, '{50,0,0,0,0,50,0,0}', 100, 50, now()
from generate_series(0, $1::int / 80 - 1) i;
insert into failed (ns, no, channel, rank, workgroup, group_no, attempt, remaining)
select 1, -$2::bigint - i, 1005, 0, 0, 1, 1, 0 from generate_series(0, $1::int / 50 - 1) i;
insert into pace (ns, channel, at, what, n)
select 1, 1005, now() - i * interval '10 s', what, 1 from generate_series(0, $1::int / 100 - 1) i, generate_series(1, 3) what;
"""


def asked(nos: list[int], group_no: int) -> dict[str, tuple[str, str, tuple[Any, ...]]]:
    """Name → noun, statement, arguments."""
    span = (NS, -1, HIGHEST, PAGE)
    groups = [group_no, *range(100_010_001, 100_010_051)]
    calls: dict[str, dict[str, tuple[Any, ...]]] = {
        "walk": {
            "walk_created_asc": span,
            "walk_created_desc": span,
            "scan_created_asc": (*span, *Narrowed(name_contains="x").own()),
            "scan_created_desc": (*span, *Narrowed(name_contains="x").own()),
            "walk_group_asc": (*span, 5),
            "walk_group_desc": (*span, 5),
            "walk_key_asc": (*span, "k"),
            "walk_key_desc": (*span, "k"),
            "walk_places_asc": (*span, [0, 1, 2, 3, 4, 5, 6], *LANES),
            "walk_places_desc": (*span, [0, 1, 2, 3, 4, 6, 7], *LANES),
            "walk_rank": (*span, 0, LANES[0]),
            "walk_ranked": (NS, -(1 << 31), HIGHEST, 0, PAGE),
            "walk_ended": (NS, LATEST, 0, PAGE, [5, 6]),
            "ready_lanes": (NS, 65),
            "ready_lanes_of": (NS, 65, LANES[0]),
            "parked_ranks": (NS, 65),
            "running_count": (NS, 20_000),
            "keys_of_tasks": (NS, nos),
            "matching_numbers": (NS, nos, *Narrowed(states=[0, 5], worker=2001, runs=[1]).args()),
            "turn_of_time": (NS, NOW - timedelta(hours=1)),
        },
        "task": {
            "read_tasks": (NS, nos, []),
            "read_tasks_full": (NS, nos, []),
            "errors_of_tasks": (NS, nos),
            "links_among": (NS, nos),
            "count_links": (NS, nos),
            "links_to_parents": (NS, nos, PAGE),
            "links_to_children": (NS, nos, PAGE),
        },
        "group": {
            "read_groups": (NS, groups, []),
            "group_numbers": (NS, 5, PAGE),
            "oldest_ready": (NS, LANES[0], 100),
            "counts_by_state": (NS, LANES[0]),
            "read_channels": (NS, None, None, PAGE),
            "read_workers": (NS, False, 60.0, None, PAGE),
        },
        "progress": {
            "group_progress": (NS, groups),
            "changed_groups": (NS, 5001),
            "walk_groups_asc": span,
            "walk_groups_desc": span,
            "walk_standing_asc": (*span, [1, 2, 3, 4]),
            "walk_standing_desc": (*span, [1, 3, 4]),
            "walk_names": (NS, "", -1, PAGE),
            "walk_finished": (NS, LATEST, 0, PAGE),
            "names_of_groups": (NS, groups),
            "matching_groups": (NS, groups, *GroupFilter(states=[1, 3], name_contains="g").args()),
            "turn_of_group_time": (NS, NOW - timedelta(hours=1)),
            "throughput": (NS, 1005, 10.0, 60),
        },
    }
    return {name: (noun, statement(noun, name), args) for noun, found in calls.items() for name, args in found.items()}


NOUNS = {name: noun for name, (noun, _, _) in asked([], 0).items()}
