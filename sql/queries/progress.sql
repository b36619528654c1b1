-- How far groups are, lists of groups, and how fast channels go: folded from events, to which a reader adds the tail (group_tail).

-- name: fold_groups
-- Folds the tail into group_tally and pace, and tells of the groups that are finished by it, by whoever takes the row; both reads of
-- it must agree, as in fold_events. A transaction that does more than this leaves its own events, before and after, to later folds:
-- the snapshot does not name it among those that run, so it is put there.
-- Waits stand in bins of a tenth of a decade: bin b holds 10^((b - 130) / 10) seconds and up. $1 ns
with f as materialized (
  select l.upto from (select upto from group_fold where ns = $1 for update skip locked) l
  where l.upto::text = (select x.upto::text from group_fold x where x.ns = $1)),
e as materialized (
  select e.was, e.state, date_bin('10 s', e.at, 'epoch') as at, e.channels, e.waits
  from f join event e on e.ns = $1 and e.xid >= pg_snapshot_xmin(f.upto) and not pg_visible_in_snapshot(e.xid, f.upto)
  where ((e.was is null and e.state is not null) or e.state in (5, 6) or e.waits is not null)
    and e.xid is distinct from pg_current_xact_id_if_assigned()),
tail as materialized (select * from group_tail where ns = $1 and exists (select from f)),
counted as (
  insert into group_tally as t (ns, group_no, total, unsettled, failing, counts, weight, settled_weight, settled_at)
  select ns, group_no, total, unsettled, failing, counts, weight, settled_weight, settled_at from tail
  where exists (select from task_group g where g.ns = $1 and g.group_no = tail.group_no)
  order by group_no
  on conflict (ns, group_no) do update
  set
    total = t.total + excluded.total,
    unsettled = t.unsettled + excluded.unsettled,
    failing = t.failing + excluded.failing,
    counts = array(select a + b from unnest(t.counts, excluded.counts) with ordinality as u(a, b, nth) order by nth),
    weight = t.weight + excluded.weight,
    settled_weight = t.settled_weight + excluded.settled_weight,
    settled_at = greatest(t.settled_at, excluded.settled_at)
  returning group_no, total, unsettled),
told as (
  insert into event (ns, kind, groups)
  select $1, 20, array_agg(group_no order by group_no)
  from counted join tail x using (group_no)
  where counted.total > 0 and counted.unsettled = 0 and (x.settled_at is not null or x.unsettled < 0)
  having count(*) > 0),
p as materialized (
  select x.channel, e.at, x.n,
    case
      when x.bin is not null then 130 + x.bin
      when e.was is null then 1
      when e.state = 5 then 2
      else 3 end as what
  from e
  -- Each event by itself: nothing large is ever sorted.
  cross join lateral (
    select u.channel, count(*) as n,
      case when u.wait is not null then floor(10 * log(greatest(u.wait, 0.001)::float8))::int end as bin
    from unnest(e.channels, e.waits) as u(channel, wait)
    group by 1, 3) x),
paced as (
  insert into pace as t (ns, channel, at, what, n)
  select $1, channel, at, what, n
  from (
    select channel, at, what, sum(n) as n from p group by 1, 2, 3 union all select 0, at, what, sum(n) from p group by 2, 3) x
  order by channel, at, what
  on conflict (ns, channel, at, what) do update set n = t.n + excluded.n)
update group_fold
set upto = (
  select format('%s:%s:%s', pg_snapshot_xmin(s), pg_snapshot_xmax(s), (
    select string_agg(x.xid::text, ',' order by x.xid)
    from (
      select xid from pg_snapshot_xip(s) as r(xid)
      union select m.xid from pg_current_xact_id_if_assigned() as m(xid) where m.xid < pg_snapshot_xmax(s)) x))::pg_snapshot
  from pg_current_snapshot() as s)
from f
where ns = $1 and (exists (select from counted) or exists (select from e))
returning (select count(*)::int from counted) as groups;

-- name: forget_pace
-- $1 ns $2 seconds after which nobody asks
with gone as (
  delete from pace where ns = $1 and at < now() - $2::float8 * interval '1 s' returning 1)
select count(*)::int as gone from gone;

-- name: throughput
-- What is counted, by buckets that end with the span of now; one row at least of each. $1 ns $2 channel number, 0 for all
-- $3 seconds of a bucket $4 buckets
with s as materialized (
  select date_bin('10 s', now(), 'epoch') + interval '10 s' - $3::float8 * $4::int * interval '1 s' as start),
counted as materialized (
  select floor(extract(epoch from p.at - s.start) / $3)::int as bucket, p.what, sum(p.n)::bigint as n
  from s join pace p on p.ns = $1 and p.channel = $2 and p.at >= s.start
  group by 1, 2)
select s.start + b * $3 * interval '1 s' as at, c.what::int, c.n
from s cross join generate_series(0, $4 - 1) b
left join counted c on c.bucket = b
order by b, c.what;

-- name: group_progress
-- The fold plus the events after it: exact. $1 ns $2 group numbers
with tail as materialized (select * from group_tail where ns = $1 and group_no = any ($2::bigint[]))
select
  g.group_no,
  array(
    select coalesce(t.counts[s], 0) + coalesce(d.counts[s], 0) from generate_series(1, 8) s order by s)::int[] as counts,
  coalesce(t.weight, 0) + coalesce(d.weight, 0) as weight,
  coalesce(t.settled_weight, 0) + coalesce(d.settled_weight, 0) as settled_weight,
  case
    when coalesce(t.total, 0) + coalesce(d.total, 0) > 0 and coalesce(t.unsettled, 0) + coalesce(d.unsettled, 0) = 0
    then greatest(t.settled_at, d.settled_at) end as finished_at
from unnest($2) as g(group_no)
left join group_tally t on t.ns = $1 and t.group_no = g.group_no
left join tail d on d.group_no = g.group_no;

-- name: changed_groups
-- Those that changed since the fold, with the end of those that are finished: what an index on the fold says of them is past.
-- Keys are microseconds; -1 is not finished. $1 ns $2 at most so many
with tail as materialized (select * from group_tail where ns = $1 limit $2)
select
  d.group_no,
  case
    when coalesce(t.total, 0) + d.total > 0 and coalesce(t.unsettled, 0) + d.unsettled = 0
    then (extract(epoch from greatest(t.settled_at, d.settled_at)) * 1000000)::bigint
    else -1 end as ended
from tail d
left join lateral (
  select x.total, x.unsettled, x.settled_at from group_tally x where x.ns = $1 and x.group_no = d.group_no limit 1) t on true
order by d.group_no;

-- name: walk_groups_asc
-- $1 ns $2 above $3 below $4 how many
select array_agg(group_no) as nos
from (
  select group_no from task_group where ns = $1 and group_no > $2 and group_no < $3 order by group_no limit $4) x;

-- name: walk_groups_desc
-- $1 ns $2 above $3 below $4 how many
select array_agg(group_no) as nos
from (
  select group_no from task_group where ns = $1 and group_no > $2 and group_no < $3 order by group_no desc limit $4) x;

-- name: walk_standing_asc
-- Groups in these states as of the fold. $1 ns $2 above $3 below $4 how many $5 states: 1 OPEN 2 FINISHED 3 FAILING 4 PAUSED
select array_agg(group_no) as nos
from (
  select group_no from (
    (select group_no from group_tally
    where ns = $1 and 1 = any ($5::int[]) and finished_at is null and group_no > $2 and group_no < $3
    order by group_no limit $4)
    union
    (select group_no from group_tally
    where ns = $1 and 2 = any ($5) and finished_at is not null and group_no > $2 and group_no < $3
    order by group_no limit $4)
    union
    (select group_no from group_tally
    where ns = $1 and 3 = any ($5) and failing > 0 and group_no > $2 and group_no < $3 order by group_no limit $4)
    union
    (select ref from pause
    where ns = $1 and 4 = any ($5) and kind = 2 and ref > $2 and ref < $3 order by ref limit $4)) s
  order by group_no limit $4) x;

-- name: walk_standing_desc
-- As walk_standing_asc, newest first.
-- $1 ns $2 above $3 below $4 how many $5 states: 1 OPEN 2 FINISHED 3 FAILING 4 PAUSED
select array_agg(group_no) as nos
from (
  select group_no from (
    (select group_no from group_tally
    where ns = $1 and 1 = any ($5::int[]) and finished_at is null and group_no > $2 and group_no < $3
    order by group_no desc limit $4)
    union
    (select group_no from group_tally
    where ns = $1 and 2 = any ($5) and finished_at is not null and group_no > $2 and group_no < $3
    order by group_no desc limit $4)
    union
    (select group_no from group_tally
    where ns = $1 and 3 = any ($5) and failing > 0 and group_no > $2 and group_no < $3 order by group_no desc limit $4)
    union
    (select ref from pause
    where ns = $1 and 4 = any ($5) and kind = 2 and ref > $2 and ref < $3 order by ref desc limit $4)) s
  order by group_no desc limit $4) x;

-- name: walk_names
-- Groups by name. $1 ns $2 after this name $3 and number $4 how many
select array_agg(group_no) as nos, array_agg(name) as keys
from (
  select group_no, name from task_group
  where ns = $1 and (name collate "C", group_no) > ($2::text collate "C", $3::bigint)
  order by name collate "C", group_no limit $4) x;

-- name: walk_finished
-- Groups finished as of the fold, latest end first, then newest. $1 ns $2 before this many microseconds $3 and this number
-- $4 how many
with place as (select 'epoch'::timestamptz + $2::bigint * interval '1 microsecond' as at)
select array_agg(group_no) as nos, array_agg((extract(epoch from finished_at) * 1000000)::bigint) as keys
from (
  select group_no, finished_at from group_tally
  where ns = $1 and finished_at is not null and (finished_at, group_no) < ((select at from place), $3::bigint)
  order by finished_at desc, group_no desc limit $4) x;

-- name: names_of_groups
-- $1 ns $2 numbers
select group_no, name from task_group where ns = $1 and group_no = any ($2::bigint[]);

-- name: matching_groups
-- Those that the filter lets through, as they stand now. $1 ns $2 numbers; null is no narrowing: $3 part of the name
-- $4 created after $5 created before $6 states: 1 OPEN 2 FINISHED 3 FAILING 4 PAUSED
with tail as materialized (
  select * from group_tail where ns = $1 and $6::int[] is not null and group_no = any ($2::bigint[]))
select array_agg(g.group_no) as nos
from task_group g
left join group_tally t on t.ns = $1 and t.group_no = g.group_no and $6 is not null
left join tail d on d.group_no = g.group_no
where g.ns = $1 and g.group_no = any ($2)
  and ($3::text is null or strpos(lower(g.name), lower($3)) > 0)
  and ($4::timestamptz is null or g.created_at > $4)
  and ($5::timestamptz is null or g.created_at < $5)
  and ($6 is null
    or case
      when coalesce(t.total, 0) + coalesce(d.total, 0) > 0 and coalesce(t.unsettled, 0) + coalesce(d.unsettled, 0) = 0
      then 2 else 1 end = any ($6)
    or (3 = any ($6) and coalesce(t.failing, 0) + coalesce(d.failing, 0) > 0)
    or (4 = any ($6) and exists (select from pause p where p.ns = $1 and p.kind = 2 and p.ref = g.group_no)));

-- name: turn_of_group_time
-- As turn_of_time, of groups. $1 ns $2 instant
with recursive span(low, high) as (
  select
    (select group_no - 1 from task_group where ns = $1 order by group_no limit 1),
    (select group_no + 1 from task_group where ns = $1 order by group_no desc limit 1)
  union all
  select case when t.created_at < $2::timestamptz then t.group_no else s.low end,
    case when t.created_at < $2 then s.high else s.low + (s.high - s.low) / 2 end
  from span s
  cross join lateral (
    select x.group_no, x.created_at from task_group x
    where x.ns = $1 and x.group_no >= s.low + (s.high - s.low) / 2 order by x.group_no limit 1) t
  where s.high - s.low > 1)
select low, high from span where low is not null order by high - low limit 1;
