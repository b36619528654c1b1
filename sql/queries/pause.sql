-- Pauses by people: a row for a task (1), a group (2) or a channel (3). A claim passes over what is paused by itself; ready
-- tasks are moved aside so that it need not walk over them. Whoever moves tasks aside locks the pause that it goes by, and
-- whoever lifts the pause moves them back after that in a statement of its own: nothing stays aside.

-- name: pause_tasks
-- Those that have not ended and are not paused. $1 ns $2 numbers
with t as materialized (
  select no, group_no, channel, workgroup, state, coalesce(attempt, 0) as attempt from task_place
  where ns = $1 and no = any ($2::bigint[]) and state not in (5, 6, 7)),
made as (
  insert into pause (ns, kind, ref) select $1, 1, no from t order by no
  on conflict do nothing
  returning ref),
told as (
  insert into event (ns, kind, was, state, nos, groups, channels, workgroups, attempts)
  select $1, 16, state, state, array_agg(no), array_agg(group_no), array_agg(channel), array_agg(workgroup),
    array_agg(attempt)
  from t join made on made.ref = t.no group by state)
select ref as no from made order by ref;

-- name: resume_tasks
-- $1 ns $2 numbers
with gone as (
  delete from pause where ctid = any (array(
    select ctid from pause where ns = $1 and kind = 1 and ref = any ($2::bigint[]) order by ref for update))
  returning ref),
told as (
  insert into event (ns, kind, was, state, nos, groups, channels, workgroups, attempts)
  select $1, 17, p.state, p.state, array_agg(p.no), array_agg(p.group_no), array_agg(p.channel), array_agg(p.workgroup),
    array_agg(coalesce(p.attempt, 0))
  from gone g join task_place p on p.ns = $1 and p.no = g.ref group by p.state)
select ref as no from gone order by ref;

-- name: paused_tasks
-- Of these, those that are paused themselves. $1 ns $2 numbers
select ref as no from pause where ns = $1 and kind = 1 and ref = any ($2::bigint[]) order by ref;

-- name: pause_groups
-- $1 ns $2 group numbers
with made as (
  insert into pause (ns, kind, ref) select $1, 2, g from unnest($2::bigint[]) as g order by g
  on conflict do nothing
  returning ref),
told as (insert into event (ns, kind, groups) select $1, 16, array_agg(ref) from made having count(*) > 0)
select ref as group_no from made;

-- name: resume_group
-- $1 ns $2 group number
with gone as (delete from pause where ns = $1 and kind = 2 and ref = $2::bigint returning ref),
told as (insert into event (ns, kind, groups) select $1, 17, array[ref] from gone)
select ref as group_no from gone;

-- name: pause_channel
-- $1 ns $2 channel
with made as (
  insert into pause (ns, kind, ref) values ($1, 3, $2::int)
  on conflict do nothing
  returning ref),
told as (insert into event (ns, kind, channels) select $1, 16, array[ref::int] from made)
select ref::int as channel from made;

-- name: resume_channel
-- $1 ns $2 channel
with gone as (delete from pause where ns = $1 and kind = 3 and ref = $2::int returning ref),
told as (insert into event (ns, kind, channels) select $1, 17, array[ref::int] from gone)
select ref::int as channel from gone;

-- name: park_paused
-- Moves ready tasks aside that are paused, or whose group is, in the transaction that pauses them. $1 ns $2 tasks $3 groups
with t as materialized (
  select no, channel, rank from task where ns = $1 and no = any ($2::bigint[])
  union all
  select no, channel, rank from task where ns = $1 and group_no = any ($3::bigint[])),
gone as (
  delete from ready
  where ctid = any (array(
    select x.ctid from ready x join t on x.ns = $1 and x.channel = t.channel and x.rank = t.rank and x.no = t.no
    for update of x skip locked))
  returning channel, rank, workgroup, no, group_no, attempt, remaining, failures, key, ready_at),
aside as (
  insert into parked (ns, workgroup, rank, no, channel, group_no, attempt, remaining, failures, key, ready_at, paused)
  select $1, workgroup, rank, no, channel, group_no, attempt, remaining, failures, key, ready_at, true from gone)
select count(*)::int as moved, array_agg(no) filter (where key is not null) as merging from gone;

-- name: park_front
-- What became ready since: the front of each channel is looked through, where claims look. $1 ns $2 at most so many of each
with front as materialized (
  select r.*
  from channel c
  cross join lateral (
    select x.ctid, x.no, x.group_no from ready x
    where x.ns = $1 and x.channel = c.channel order by x.rank, x.no limit $2) r
  where c.ns = $1 and exists (select from pause p where p.ns = $1 and p.kind < 3)),
met as materialized (
  select p.kind, p.ref from pause p
  where p.ns = $1 and (p.kind, p.ref) in (select 1, no from front union all select 2, group_no from front)
  order by p.kind, p.ref for share skip locked),
gone as (
  delete from ready
  where ctid = any (array(
    select x.ctid from ready x join front f on x.ctid = f.ctid
    where x.ns = $1 and (f.no in (select ref from met where kind = 1) or f.group_no in (select ref from met where kind = 2))
    for update of x skip locked))
  returning channel, rank, workgroup, no, group_no, attempt, remaining, failures, key, ready_at),
aside as (
  insert into parked (ns, workgroup, rank, no, channel, group_no, attempt, remaining, failures, key, ready_at, paused)
  select $1, workgroup, rank, no, channel, group_no, attempt, remaining, failures, key, ready_at, true from gone)
select count(*)::int as moved, array_agg(no) filter (where key is not null) as merging from gone;

-- name: unpark_paused
-- After the pause was lifted: what nothing else pauses goes back among the ready. $1 ns $2 tasks $3 groups
with t as materialized (
  select no, group_no from parked where ns = $1 and paused and no = any ($2::bigint[])
  union
  select no, group_no from parked where ns = $1 and paused and group_no = any ($3::bigint[])),
-- Locked: another who lifts a pause of the same task just now would go by ours, as we by theirs, and neither would move it.
still as materialized (
  select kind, ref from pause
  where ns = $1 and (kind, ref) in (select 1, no from t union all select 2, group_no from t)
  order by kind, ref for share),
gone as (
  delete from parked p using t
  where p.ns = $1 and p.no = t.no and p.paused
    and p.no not in (select ref from still where kind = 1) and p.group_no not in (select ref from still where kind = 2)
  returning p.channel, p.rank, p.workgroup, p.no, p.group_no, p.attempt, p.remaining, p.failures, p.key, p.ready_at),
back as (
  insert into ready (ns, channel, rank, workgroup, no, group_no, attempt, remaining, failures, key, ready_at)
  select $1, channel, rank, workgroup, no, group_no, attempt, remaining, failures, key, ready_at from gone)
select channel, min(rank) as rank, min(no) as no, count(*)::int as moved,
  array_agg(no) filter (where key is not null) as merging
from gone group by channel;

-- name: count_held
-- Ready tasks of a group. $1 ns $2 group number
select count(*)::int as n from task_place where ns = $1 and group_no = $2::bigint and state = 2;

-- name: forget_ended_pauses
-- Of tasks that are settled, and of tasks and groups that were deleted while they were paused. $1 ns
with gone as (
  delete from pause p
  where p.ns = $1 and case p.kind
    when 1 then exists (select from done d where d.ns = $1 and d.no = p.ref)
      or not exists (select from task t where t.ns = $1 and t.no = p.ref)
    when 2 then not exists (select from task_group g where g.ns = $1 and g.group_no = p.ref)
    else false end
  returning p.ref)
select count(*)::int as n from gone;
