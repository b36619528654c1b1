-- Schedules: read, changed, and moved on when they are due.

-- name: read_schedules
-- By name, then id. $1 ns $2 these ids, or null for all $3 at most so many
select
  id,
  name,
  cron,
  time_zone,
  is_paused,
  catch_up,
  overlap,
  template,
  size,
  last_run_at,
  next_run_at,
  last_group,
  last_error,
  now() as now
from schedule
where ns = $1 and ($2::uuid[] is null or id = any ($2))
order by name collate "C", id limit $3;

-- name: lock_schedule
-- Locked until the transaction ends; it may queue behind a run of the same schedule. $1 ns $2 id
select
  id,
  name,
  cron,
  time_zone,
  is_paused,
  catch_up,
  overlap,
  template,
  size,
  last_run_at,
  next_run_at,
  last_group,
  last_error,
  now() as now
from schedule
where ns = $1 and id = $2
for update;

-- name: due_schedules
-- Those that are due, locked until the transaction ends, the longest due first, with at most $3 tasks in all (or one schedule).
-- skip locked: another server runs it, or somebody changes it, and we come again. $1 ns $2 at most so many $3 tasks
with due as materialized (
  select id, name, cron, time_zone, is_paused, catch_up, overlap, template, size, last_run_at, next_run_at, last_group, last_error
  from schedule
  where ns = $1 and next_run_at <= now()
  order by next_run_at, id limit $2 for update skip locked)
select
  id,
  name,
  cron,
  time_zone,
  is_paused,
  catch_up,
  overlap,
  template,
  size,
  last_run_at,
  next_run_at,
  last_group,
  last_error,
  now() as now
from (select due.*, sum(size) over (order by next_run_at, id) - size as before from due) d
where before < $3::int
order by next_run_at, id;

-- name: next_due_schedule
-- Seconds until the next one is due; null when there is none. $1 ns
select extract(epoch from min(next_run_at) - now())::float8 as due_in from schedule where ns = $1;

-- name: count_schedules
-- $1 ns
select count(*)::int as n from schedule where ns = $1;

-- name: create_schedule
-- One that is there was made by this call, whose commit was not acknowledged. $1 ns $2 id $3 name $4 cron $5 time zone $6 paused $7 catch-up $8 overlap $9 template $10 tasks in it $11 next run
insert into schedule (ns, id, name, cron, time_zone, is_paused, catch_up, overlap, template, size, next_run_at)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
on conflict (ns, id) do nothing
returning id;

-- name: update_schedule
-- The row is locked already. $1 ns $2 id $3 name $4 cron $5 time zone $6 paused $7 catch-up $8 overlap $9 template
-- $10 tasks in it $11 next run
update schedule
set name = $3, cron = $4, time_zone = $5, is_paused = $6, catch_up = $7, overlap = $8, template = $9, size = $10, next_run_at = $11
where ns = $1 and id = $2
returning id;

-- name: move_schedules
-- What came of the runs of locked schedules. A null last run leaves it as it is, and its group. A refusal is told.
-- $1 ns $2 ids $3 next runs $4 last runs $5 numbers of their groups $6 why nothing was made
with moved as (
  update schedule s
  set next_run_at = u.next_run_at, last_run_at = coalesce(u.last_run_at, s.last_run_at),
    last_group = case when u.last_run_at is null then s.last_group else u.last_group end,
    last_error = u.last_error
  from unnest($2::uuid[], $3::timestamptz[], $4::timestamptz[], $5::bigint[], $6::text[])
    as u(id, next_run_at, last_run_at, last_group, last_error)
  where s.ns = $1 and s.id = u.id
  returning s.id, s.last_error),
told as (
  insert into event (ns, kind) select $1, 22 from moved where last_error is not null)
select count(*)::int as moved from moved;

-- name: delete_schedule
-- Waits for a run of it to end. $1 ns $2 id
delete from schedule where ns = $1 and id = $2 returning id;
