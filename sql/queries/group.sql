-- Reading groups, channels, workgroups and workers.

-- name: read_groups
-- By number or by id. $1 ns $2 numbers $3 ids
select group_no, id, name, metadata, created_at,
  exists (select from pause p where p.ns = $1 and p.kind = 2 and p.ref = group_no) as is_paused
from task_group
where ns = $1 and (group_no = any ($2::bigint[]) or id = any ($3::uuid[]));

-- name: group_numbers
-- Tasks of a group to draw, oldest first. $1 ns $2 group number $3 at most so many
select no from task where ns = $1 and group_no = $2 order by no limit $3;

-- name: read_channels
-- In order of name. $1 ns $2 these names, or null for all $3 after this name $4 how many
select c.channel as number, c.name,
  exists (select from pause p where p.ns = $1 and p.kind = 3 and p.ref = c.channel) as is_paused, m.max_running
from channel c
left join cap m on m.ns = $1 and m.kind = 1 and m.ref = c.channel
where c.ns = $1 and ($2::text[] is null or c.name = any ($2)) and ($3::text is null or c.name > $3::text collate "C")
order by c.name limit $4;

-- name: oldest_ready
-- Seconds since the oldest task that could be claimed now became ready. $1 ns $2 channels $3 how many to look at in each priority:
-- what is older goes first
with recursive lane(channel, rank) as (
  select c.channel, f.rank
  from unnest($2::int[]) as c(channel)
  cross join lateral (
    select r.rank from ready r where r.ns = $1 and r.channel = c.channel order by r.rank limit 1) f
  where c.channel not in (select p.ref from pause p where p.ns = $1 and p.kind = 3)
  union all
  select l.channel, n.rank
  from lane l cross join lateral (
    select r.rank from ready r where r.ns = $1 and r.channel = l.channel and r.rank > l.rank order by r.rank limit 1) n)
select l.channel as number, extract(epoch from now() - min(r.ready_at))::float8 as seconds
from lane l
cross join lateral (
  select x.ready_at, x.workgroup, x.no, x.group_no, x.admitted from ready x
  where x.ns = $1 and x.channel = l.channel and x.rank = l.rank order by x.no limit $3) r
where not coalesce(r.workgroup = any (array(select o.workgroup from hold o where o.ns = $1 and o.until > now())), false)
  and (r.admitted or not coalesce(r.workgroup = any (array(select p.ref from cap p where p.ns = $1 and p.kind = 2)), false))
  and ((select not exists (select from pause p where p.ns = $1 and p.kind < 3)) or not exists (
    select from pause p where p.ns = $1 and (p.kind, p.ref) in ((1, r.no), (2, r.group_no))))
group by l.channel;

-- name: read_workgroups
-- In order of name. $1 ns $2 these names, or null for all $3 after this name $4 how many $5 suspended ones only
select w.workgroup as number, w.name, h.until as suspended_until, h.reason, m.max_running, m.starts, m.seconds
from workgroup w
left join cap m on m.ns = w.ns and m.kind = 2 and m.ref = w.workgroup
left join hold h on h.ns = w.ns and h.workgroup = w.workgroup and h.until > now()
where w.ns = $1 and ($2::text[] is null or w.name = any ($2)) and ($3::text is null or w.name > $3::text collate "C")
  and (not $5::bool or h.until is not null)
order by w.name limit $4;

-- name: counts_by_state
-- The fold plus the events after it: exact. $1 ns $2 channel or workgroup numbers
with tail as (
  select e.was, e.state, u.channel, u.workgroup
  from fold f
  join event e on e.ns = $1 and e.xid >= pg_snapshot_xmin(f.upto) and not pg_visible_in_snapshot(e.xid, f.upto)
  cross join lateral unnest(e.channels, e.workgroups) as u(channel, workgroup)
  where f.ns = $1 and e.state is distinct from e.was and cardinality(e.nos) > 0)
select ref as number, state, sum(n)::bigint as n
from (
  select ref, state, n from tally where ns = $1 and ref = any ($2::int[])
  union all select channel, state, 1 from tail where state is not null
  union all select channel, was, -1 from tail where was is not null
  union all select workgroup, state, 1 from tail where state is not null
  union all select workgroup, was, -1 from tail where was is not null) x
where ref = any ($2::int[])
group by ref, state
having sum(n) <> 0
order by ref, state;

-- name: read_workers
-- In order of id. $1 ns $2 alive ones only $3 seconds of silence after which one is not alive $4 after this id $5 how many
select
  w.name as id,
  w.channels,
  w.transport,
  w.last_seen_at,
  w.last_seen_at > now() - $3::float8 * interval '1 s' as is_alive,
  coalesce(l.running, 0)::int as running
from worker w
left join (
  select worker, sum(cardinality(nos)) as running from lease where ns = $1 group by worker) l on l.worker = w.worker
where w.ns = $1 and (not $2::bool or w.last_seen_at > now() - $3::float8 * interval '1 s')
  and ($4::text is null or w.name > $4::text collate "C")
order by w.name limit $5;

-- name: server_now
select now() as now;
