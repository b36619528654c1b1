-- Lists of tasks: candidates in the order of a list, so many at a time, and which of them the filter lets through.
-- Each walk looks at no more rows than it is asked for. Numbers lie between two bounds, which are not among them.

-- name: walk_created_asc
-- $1 ns $2 above $3 below $4 how many
select array_agg(no) as nos
from (select no from task where ns = $1 and no > $2 and no < $3 order by no limit $4) x;

-- name: walk_created_desc
-- $1 ns $2 above $3 below $4 how many
select array_agg(no) as nos
from (select no from task where ns = $1 and no > $2 and no < $3 order by no desc limit $4) x;

-- name: scan_created_asc
-- All tasks in the order of their numbers: how many of so many were looked at, the last of them, and those that the filter lets
-- through as far as their own row tells.
-- $1 ns $2 above $3 below $4 how many; null is no narrowing: $5 channels $6 workgroups $7 group number $8 part of the name
-- $9 created after $10 created before $11 key $12 rank
select count(*)::int as looked, max(no) as last, array_agg(no) filter (
  where ($5::int[] is null or channel = any ($5))
    and ($6::int[] is null or workgroup = any ($6))
    and ($7::bigint is null or group_no = $7)
    and ($8::text is null or strpos(lower(name), lower($8)) > 0)
    and ($9::timestamptz is null or created_at > $9)
    and ($10::timestamptz is null or created_at < $10)
    and ($11::text is null or key = $11)
    and ($12::int is null or rank = $12)) as nos
from (
  select no, channel, workgroup, group_no, name, created_at, key, rank from task
  where ns = $1 and no > $2 and no < $3 order by no limit $4) x;

-- name: scan_created_desc
-- As scan_created_asc, newest first.
-- $1 ns $2 above $3 below $4 how many; null is no narrowing: $5 channels $6 workgroups $7 group number $8 part of the name
-- $9 created after $10 created before $11 key $12 rank
select count(*)::int as looked, min(no) as last, array_agg(no) filter (
  where ($5::int[] is null or channel = any ($5))
    and ($6::int[] is null or workgroup = any ($6))
    and ($7::bigint is null or group_no = $7)
    and ($8::text is null or strpos(lower(name), lower($8)) > 0)
    and ($9::timestamptz is null or created_at > $9)
    and ($10::timestamptz is null or created_at < $10)
    and ($11::text is null or key = $11)
    and ($12::int is null or rank = $12)) as nos
from (
  select no, channel, workgroup, group_no, name, created_at, key, rank from task
  where ns = $1 and no > $2 and no < $3 order by no desc limit $4) x;

-- name: walk_group_asc
-- $1 ns $2 above $3 below $4 how many $5 group number
select array_agg(no) as nos
from (select no from task where ns = $1 and group_no = $5 and no > $2 and no < $3 order by no limit $4) x;

-- name: walk_group_desc
-- $1 ns $2 above $3 below $4 how many $5 group number
select array_agg(no) as nos
from (select no from task where ns = $1 and group_no = $5 and no > $2 and no < $3 order by no desc limit $4) x;

-- name: walk_key_asc
-- $1 ns $2 above $3 below $4 how many $5 key
select array_agg(no) as nos
from (select no from task where ns = $1 and key = $5 and no > $2 and no < $3 order by no limit $4) x;

-- name: walk_key_desc
-- $1 ns $2 above $3 below $4 how many $5 key
select array_agg(no) as nos
from (select no from task where ns = $1 and key = $5 and no > $2 and no < $3 order by no desc limit $4) x;

-- name: walk_places_asc
-- Place by place; SUCCEEDED brings all that is done. Ready tasks stand by channel and rank: their lanes are named.
-- $1 ns $2 above $3 below $4 how many $5 states; lanes: $6 channels $7 ranks
select array_agg(no) as nos
from (
  select no from (
    (select no from blocked where ns = $1 and 0 = any ($5::smallint[]) and no > $2 and no < $3 order by no limit $4)
    union all
    (select no from scheduled where ns = $1 and 1 = any ($5) and no > $2 and no < $3 order by no limit $4)
    union all
    (select no from parked where ns = $1 and 2 = any ($5) and no > $2 and no < $3 order by no limit $4)
    union all
    (select r.no
    from unnest($6::int[], $7::int[]) as l(channel, rank)
    cross join lateral (
      select x.no from ready x
      where x.ns = $1 and x.channel = l.channel and x.rank = l.rank and x.no > $2 and x.no < $3
      order by x.no limit $4) r)
    union all
    (select u.no from lease l cross join lateral unnest(l.nos) as u(no)
    where l.ns = $1 and 3 = any ($5) and u.no > $2 and u.no < $3)
    union all
    (select no from merged where ns = $1 and 4 = any ($5) and no > $2 and no < $3 order by no limit $4)
    union all
    (select no from failed where ns = $1 and 6 = any ($5) and no > $2 and no < $3 order by no limit $4)
    union all
    (select no from done where ns = $1 and 5 = any ($5) and no > $2 and no < $3 order by no limit $4)
    union all
    (select no from done
    where ns = $1 and 7 = any ($5) and 5 <> all ($5) and outcome = 7 and no > $2 and no < $3 order by no limit $4)) p
  order by no limit $4) x;

-- name: walk_places_desc
-- As walk_places_asc, newest first.
-- $1 ns $2 above $3 below $4 how many $5 states; lanes: $6 channels $7 ranks
select array_agg(no) as nos
from (
  select no from (
    (select no from blocked where ns = $1 and 0 = any ($5::smallint[]) and no > $2 and no < $3 order by no desc limit $4)
    union all
    (select no from scheduled where ns = $1 and 1 = any ($5) and no > $2 and no < $3 order by no desc limit $4)
    union all
    (select no from parked where ns = $1 and 2 = any ($5) and no > $2 and no < $3 order by no desc limit $4)
    union all
    (select r.no
    from unnest($6::int[], $7::int[]) as l(channel, rank)
    cross join lateral (
      select x.no from ready x
      where x.ns = $1 and x.channel = l.channel and x.rank = l.rank and x.no > $2 and x.no < $3
      order by x.no desc limit $4) r)
    union all
    (select u.no from lease l cross join lateral unnest(l.nos) as u(no)
    where l.ns = $1 and 3 = any ($5) and u.no > $2 and u.no < $3)
    union all
    (select no from merged where ns = $1 and 4 = any ($5) and no > $2 and no < $3 order by no desc limit $4)
    union all
    (select no from failed where ns = $1 and 6 = any ($5) and no > $2 and no < $3 order by no desc limit $4)
    union all
    (select no from done where ns = $1 and 5 = any ($5) and no > $2 and no < $3 order by no desc limit $4)
    union all
    (select no from done
    where ns = $1 and 7 = any ($5) and 5 <> all ($5) and outcome = 7 and no > $2 and no < $3 order by no desc limit $4)) p
  order by no desc limit $4) x;

-- name: ready_lanes
-- Where ready tasks stand: each channel and rank that has one. $1 ns $2 at most so many
with recursive lane(channel, rank) as (
  (select channel, rank from ready where ns = $1 order by channel, rank limit 1)
  union all
  select n.channel, n.rank
  from lane l cross join lateral (
    select r.channel, r.rank from ready r where r.ns = $1 and (r.channel, r.rank) > (l.channel, l.rank)
    order by r.channel, r.rank limit 1) n)
select channel, rank from lane limit $2;

-- name: ready_lanes_of
-- As ready_lanes, of some channels. $1 ns $2 at most so many $3 channels
with recursive lane(channel, rank) as (
  select c.channel, f.rank
  from unnest($3::int[]) as c(channel) cross join lateral (
    select r.rank from ready r where r.ns = $1 and r.channel = c.channel order by r.rank limit 1) f
  union all
  select l.channel, n.rank
  from lane l cross join lateral (
    select r.rank from ready r where r.ns = $1 and r.channel = l.channel and r.rank > l.rank order by r.rank limit 1) n)
select channel, rank from lane limit $2;

-- name: walk_rank
-- Ready tasks of one priority, oldest first: its lanes, and what is moved aside. $1 ns $2 above $3 below $4 how many $5 rank
-- $6 channels
select array_agg(no) as nos
from (
  select no from (
    (select r.no
    from unnest($6::int[]) as l(channel)
    cross join lateral (
      select x.no from ready x
      where x.ns = $1 and x.channel = l.channel and x.rank = $5 and x.no > $2 and x.no < $3 order by x.no limit $4) r)
    union all
    (select no from parked where ns = $1 and rank = $5 and no > $2 and no < $3 order by no limit $4)) p
  order by no limit $4) x;

-- name: parked_ranks
-- Priorities of what is moved aside. $1 ns $2 at most so many
with recursive lane(rank) as (
  (select rank from parked where ns = $1 order by rank limit 1)
  union all
  select n.rank
  from lane l cross join lateral (
    select p.rank from parked p where p.ns = $1 and p.rank > l.rank order by p.rank limit 1) n)
select rank from lane limit $2;

-- name: running_count
-- How many tasks are leased, counted no further than so many leases. $1 ns $2 at most so many leases
select count(*)::int as leases, coalesce(sum(cardinality(nos)), 0)::int as tasks
from (select nos from lease where ns = $1 limit $2) l;

-- name: known_worker
-- $1 ns $2 name
select worker from worker where ns = $1 and name = $2;

-- name: leased_to
-- What a worker runs. $1 ns $2 worker
select array_agg(u.no) as nos from lease l cross join lateral unnest(l.nos) as u(no) where l.ns = $1 and l.worker = $2;

-- name: walk_ranked
-- Tasks whose priority is not 0, highest first, then oldest. $1 ns $2 after this rank $3 and number $4 below this rank
-- $5 how many
select array_agg(no) as nos, array_agg(-rank::bigint) as keys
from (
  select no, rank from task
  where ns = $1 and rank <> 0 and (rank, no) > ($2, $3) and rank < $4
  order by rank, no limit $5) x;

-- name: walk_ended
-- Latest end first. Keys are microseconds. $1 ns $2 before this many microseconds $3 and this number $4 how many $5 states:
-- SUCCEEDED brings all that is done
with place as (select 'epoch'::timestamptz + $2::bigint * interval '1 microsecond' as at)
select array_agg(no) as nos, array_agg((extract(epoch from at) * 1000000)::bigint) as keys
from (
  select no, at from (
    (select no, at from done
    where ns = $1 and 5 = any ($5::smallint[]) and (at, no) < ((select at from place), $3::bigint)
    order by at desc, no desc limit $4)
    union all
    (select no, at from done
    where ns = $1 and 7 = any ($5) and 5 <> all ($5) and outcome = 7 and (at, no) < ((select at from place), $3)
    order by at desc, no desc limit $4)
    union all
    (select no, at from failed where ns = $1 and 6 = any ($5) and (at, no) < ((select at from place), $3)
    order by at desc, no desc limit $4)) p
  order by at desc, no desc limit $4) x;

-- name: keys_of_tasks
-- What a small list is sorted by. $1 ns $2 numbers
select t.no, -t.rank as priority,
  coalesce(extract(epoch from coalesce(
    (select d.at from done d where d.ns = $1 and d.no = t.no),
    (select f.at from failed f where f.ns = $1 and f.no = t.no))) * 1000000, -1)::bigint as ended
from task t where t.ns = $1 and t.no = any ($2::bigint[]);

-- name: matching_numbers
-- Those that the filter lets through. The state is looked for where it is likeliest, and no further: coalesce stops.
-- $1 ns $2 numbers; null is no narrowing: $3 channels $4 workgroups $5 group number $6 part of the name $7 created after
-- $8 created before $9 key $10 rank $11 states $12 worker; $13 what that one runs now
select array_agg(t.no) as nos
from task t
where t.ns = $1 and t.no = any ($2::bigint[])
  and ($3::int[] is null or t.channel = any ($3))
  and ($4::int[] is null or t.workgroup = any ($4))
  and ($5::bigint is null or t.group_no = $5)
  and ($6::text is null or strpos(lower(t.name), lower($6)) > 0)
  and ($7::timestamptz is null or t.created_at > $7)
  and ($8::timestamptz is null or t.created_at < $8)
  and ($9::text is null or t.key = $9)
  and ($10::int is null or t.rank = $10)
  and ($11::smallint[] is null or coalesce(
    (select d.outcome from done d where d.ns = $1 and d.no = t.no),
    (select 0 from blocked b where b.ns = $1 and b.no = t.no),
    (select 2 from ready r where r.ns = $1 and r.channel = t.channel and r.rank = t.rank and r.no = t.no),
    (select 1 from scheduled s where s.ns = $1 and s.no = t.no),
    (select 6 from failed f where f.ns = $1 and f.no = t.no),
    (select 2 from parked p where p.ns = $1 and p.no = t.no),
    (select 4 from merged m where m.ns = $1 and m.no = t.no),
    3) = any ($11))
  and ($12::int is null or t.no = any ($13::bigint[]) or coalesce(
    (select d.worker from done d where d.ns = $1 and d.no = t.no),
    (select f.worker from failed f where f.ns = $1 and f.no = t.no)) = $12);

-- name: turn_of_time
-- Numbers go nearly by time: some task of this number was created before the instant, and some task of the next one that
-- there is was not. $1 ns $2 instant
with recursive span(low, high) as (
  select
    (select no - 1 from task where ns = $1 order by no limit 1),
    (select no + 1 from task where ns = $1 order by no desc limit 1)
  union all
  select case when t.created_at < $2::timestamptz then t.no else s.low end,
    case when t.created_at < $2 then s.high else s.low + (s.high - s.low) / 2 end
  from span s
  cross join lateral (
    select x.no, x.created_at from task x where x.ns = $1 and x.no >= s.low + (s.high - s.low) / 2 order by x.no limit 1) t
  where s.high - s.low > 1)
select low, high from span where low is not null order by high - low limit 1;
