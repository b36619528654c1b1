-- The event log, in one order for all: ticks, what is in them, and how long they are kept.

-- name: make_tick
-- One more tick, if something was committed since the last one; `wanted` and not made: somebody else made it meanwhile, perhaps
-- without what this statement saw, so run it again. Answers the last tick there is. $1 ns
with last as materialized (select tick, mark, snapshot from tick where ns = $1 order by tick desc limit 1),
-- The newest event is asked for, not whether there is one past the snapshot: for that the planner may read the whole log.
wanted as materialized (
  select
    coalesce((select xid from event where ns = $1 order by xid desc limit 1) >= pg_snapshot_xmax(l.snapshot), false)
    or exists (
      select from pg_snapshot_xip(l.snapshot) as x(xid)
      cross join lateral (select from event e where e.ns = $1 and e.xid = x.xid limit 1) as e) as yes
  from last l),
made as (
  insert into tick (ns, tick, snapshot)
  select $1, l.tick + 1, pg_current_snapshot() from last l where (select yes from wanted)
  on conflict (ns, tick) do nothing
  returning tick, mark)
select
  coalesce(m.tick, l.tick) as tick,
  coalesce(m.mark, l.mark) as mark,
  m.tick is not null as made,
  w.yes as wanted
from last l cross join wanted w left join made m on true;

-- name: tick_stands
-- Whether the log goes on from here. $1 ns $2 tick $3 its mark
select exists (select from tick where ns = $1 and tick = $2 and mark = $3) as stands;

-- name: read_ticks
-- What happened after a place, in order; a row of many tasks in pieces. A tick without rows left has one with seq null. When as
-- many came as were asked for, the last tick may have more.
-- $1 ns $2 the last tick that is done $3 in the next: the row to go on with $4 and the item in it
-- $5 at most so many ticks $6 pieces $7 items in a piece
with span as materialized (
  select t.tick, t.mark, t.snapshot, p.mark as mark_before, p.snapshot as before
  from tick t join tick p on p.ns = $1 and p.tick = t.tick - 1
  where t.ns = $1 and t.tick > $2 order by t.tick limit $5),
-- Not visible in a snapshot is what came after its xmax, and what was running then: few, however long one of them runs.
row as materialized (
  select s.tick, e.seq, e.at, e.kind, e.state, e.worker, e.until, e.nos, e.groups, e.channels, e.workgroups, e.attempts,
    e.progress, case when s.tick = $2 + 1 and e.seq = $3 then $4::int else 0 end as first
  from span s
  cross join lateral (
    select * from event x
    where x.ns = $1 and x.xid >= pg_snapshot_xmax(s.before) and x.xid < pg_snapshot_xmax(s.snapshot)
    union all
    select x.* from pg_snapshot_xip(s.before) as r(xid) join event x on x.ns = $1 and x.xid = r.xid) e
  where pg_visible_in_snapshot(e.xid, s.snapshot)
    and (s.tick > $2 + 1 or e.seq > $3 or (e.seq = $3
      and greatest(cardinality(e.nos), cardinality(e.groups), cardinality(e.channels), cardinality(e.workgroups), 1) > $4::int))
  order by s.tick, e.seq limit $6)
select
  s.tick,
  s.mark,
  s.mark_before,
  r.seq,
  p.first,
  r.at,
  r.kind,
  r.state,
  r.worker,
  r.until,
  r.nos[p.first + 1 : p.first + $7::int] as nos,
  r.groups[p.first + 1 : p.first + $7] as groups,
  r.channels[p.first + 1 : p.first + $7] as channels,
  r.workgroups[p.first + 1 : p.first + $7] as workgroups,
  r.attempts[p.first + 1 : p.first + $7] as attempts,
  r.progress[p.first + 1 : p.first + $7] as progress
from span s
left join row r on r.tick = s.tick
left join lateral generate_series(
  r.first,
  greatest(cardinality(r.nos), cardinality(r.groups), cardinality(r.channels), cardinality(r.workgroups), 1) - 1,
  $7) as p(first) on r.seq is not null
order by s.tick, r.seq, p.first
limit $6;

-- name: name_events
-- What the numbers in events stand for. $1 ns; numbers: $2 tasks $3 groups $4 channels $5 workgroups $6 workers
select 1 as kind, no as ref, id::text as text from task where ns = $1 and no = any ($2::bigint[])
union all
select 2, group_no, id::text from task_group where ns = $1 and group_no = any ($3::bigint[])
union all
select kind, ref, id::text from gone where ns = $1 and ((kind = 1 and ref = any ($2)) or (kind = 2 and ref = any ($3)))
union all
select 3, channel, name from channel where ns = $1 and channel = any ($4::int[])
union all
select 4, workgroup, name from workgroup where ns = $1 and workgroup = any ($5::int[])
union all
select 5, worker, name from worker where ns = $1 and worker = any ($6::int[]);

-- name: forget_ticks
-- The last one stays, however old: the log goes on from there. $1 ns $2 seconds $3 at most so many
with old as materialized (
  select tick from tick
  where ns = $1 and at < now() - $2::float8 * interval '1 s' and tick < (select max(tick) from tick where ns = $1)
  order by tick limit $3 for update skip locked),
gone as (delete from tick where ns = $1 and tick = any (array(select tick from old)) returning 1)
select count(*)::int as gone from gone;

-- name: forget_events
-- What no tick leads to any more and every fold has counted; and the ids of what was deleted before that. $1 ns $2 at most so many
-- $3 seconds that ids are kept
with kept as materialized (
  select least(
    (select pg_snapshot_xmin(snapshot) from tick where ns = $1 order by tick limit 1),
    (select pg_snapshot_xmin(upto) from fold where ns = $1),
    (select pg_snapshot_xmin(upto) from group_fold where ns = $1)) as first),
old as materialized (
  select e.ctid as at from event e
  where e.ns = $1 and e.xid < (select first from kept) order by e.xid limit $2 for update skip locked),
gone_events as (delete from event where ctid = any (array(select at from old)) returning 1),
old_ids as materialized (
  select kind, ref from gone where ns = $1 and at < now() - $3::float8 * interval '1 s' order by at limit $2 for update skip locked),
gone_ids as (delete from gone g using old_ids o where g.ns = $1 and g.kind = o.kind and g.ref = o.ref returning 1)
select (select count(*)::int from gone_events) + (select count(*)::int from gone_ids) as gone;

-- name: moved_logs
-- Namespaces whose log was written in another cluster (a dump was restored, or an upgrade made a new one).
select ns from namespace where log_system is distinct from (select system_identifier from pg_control_system()) order by ns;

-- name: begin_log
-- Transaction numbers of another cluster mean nothing here: the log begins anew, once all folds have counted the old one. Cursors
-- are expired by it. $1 ns
with told as (delete from event where ns = $1),
ticked as (delete from tick where ns = $1 returning tick),
hung as (update lease set grown = null where ns = $1 and grown is not null),
known as (update namespace set log_system = (select system_identifier from pg_control_system()) where ns = $1)
insert into tick (ns, tick, snapshot) select $1, coalesce(max(tick), 0) + 1, pg_current_snapshot() from ticked;
