-- Reading groups, channels, workgroups and workers.

-- name: read_groups
-- By number or by id. $1 ns $2 numbers $3 ids
select group_no, id, name, metadata, created_at,
  exists (select from pause p where p.ns = $1 and p.kind = 2 and p.ref = group_no) as is_paused
from task_group
where ns = $1 and (group_no = any ($2::bigint[]) or id = any ($3::uuid[]));

-- name: group_counts
-- $1 ns $2 group numbers
select group_no, state, count(*)::int as n, sum(weight)::bigint as weight, max(finished_at) as finished_at
from task_place where ns = $1 and group_no = any ($2::bigint[])
group by group_no, state
order by group_no, state;

-- name: group_numbers
-- Tasks of a group to draw, oldest first. $1 ns $2 group number $3 at most so many
select no from task where ns = $1 and group_no = $2 order by no limit $3;

-- name: page_of_groups
-- $1 ns $2 part of the name $3 created after $4 created before $5 states wanted, or null: 1 OPEN 2 FINISHED 3 FAILING
--   4 PAUSED
-- $6 order: 1 newest first 2 oldest first 3 latest end first 4 name; after: $7 number $8 the sort key there $9 how many
with g as (
  select g.group_no, g.name, g.created_at,
    exists (select from task_place p where p.ns = $1 and p.group_no = g.group_no and p.state not in (5, 7)) as unsettled,
    exists (select from failed f join task t on t.ns = f.ns and t.no = f.no where f.ns = $1 and t.group_no = g.group_no)
      as failing,
    exists (select from task t where t.ns = $1 and t.group_no = g.group_no) as filled
  from task_group g
  where g.ns = $1
    and ($2::text is null or strpos(lower(g.name), lower($2)) > 0)
    and ($3::timestamptz is null or g.created_at > $3)
    and ($4::timestamptz is null or g.created_at < $4)),
k as (
  select g.group_no,
    case $6::int
      when 1 then lpad((9223372036854775807 - g.group_no)::text, 19, '0')
      when 2 then lpad(g.group_no::text, 19, '0')
      when 3 then lpad((9223372036854775807 - coalesce((
        select (extract(epoch from max(p.finished_at)) * 1000000)::bigint from task_place p
        where p.ns = $1 and p.group_no = g.group_no and g.filled and not g.unsettled), 0))::text, 19, '0')
      else g.name
    end collate "C" as sort_key
  from g
  where $5::int[] is null
    or (1 = any ($5) and (g.unsettled or not g.filled))
    or (2 = any ($5) and g.filled and not g.unsettled)
    or (3 = any ($5) and g.failing)
    or (4 = any ($5) and exists (select from pause p where p.ns = $1 and p.kind = 2 and p.ref = g.group_no)))
select group_no, sort_key from k
where $7::bigint is null or (sort_key, group_no) > ($8::text collate "C", $7)
order by sort_key, group_no
limit $9;

-- name: count_groups
-- Counts up to $6 and stops. $1 … $5 as page_of_groups
select count(*)::int as n
from (
  select 1
  from task_group g
  where g.ns = $1
    and ($2::text is null or strpos(lower(g.name), lower($2)) > 0)
    and ($3::timestamptz is null or g.created_at > $3)
    and ($4::timestamptz is null or g.created_at < $4)
    and ($5::int[] is null
      or (1 = any ($5) and (
        exists (select from task_place p where p.ns = $1 and p.group_no = g.group_no and p.state not in (5, 7))
        or not exists (select from task t where t.ns = $1 and t.group_no = g.group_no)))
      or (2 = any ($5)
        and not exists (select from task_place p where p.ns = $1 and p.group_no = g.group_no and p.state not in (5, 7))
        and exists (select from task t where t.ns = $1 and t.group_no = g.group_no))
      or (3 = any ($5) and exists (
        select from failed f join task t on t.ns = f.ns and t.no = f.no where f.ns = $1 and t.group_no = g.group_no))
      or (4 = any ($5) and exists (select from pause p where p.ns = $1 and p.kind = 2 and p.ref = g.group_no)))
  limit $6) x;

-- name: read_channels
-- In order of name. $1 ns $2 these names, or null for all $3 after this name $4 how many
select channel as number, name,
  exists (select from pause p where p.ns = $1 and p.kind = 3 and p.ref = channel) as is_paused
from channel
where ns = $1 and ($2::text[] is null or name = any ($2)) and ($3::text is null or name > $3::text collate "C")
order by name limit $4;

-- name: oldest_ready
-- Seconds since the oldest task that could be claimed now became ready. $1 ns $2 channels
select c.channel as number, extract(epoch from now() - min(r.ready_at))::float8 as seconds
from unnest($2::int[]) as c(channel)
join ready r on r.ns = $1 and r.channel = c.channel
  and r.workgroup <> all (array(select o.workgroup from hold o where o.ns = $1 and o.until > now()))
  and ((select not exists (select from pause p where p.ns = $1 and p.kind < 3)) or not exists (
    select from pause p where p.ns = $1 and (p.kind, p.ref) in ((1, r.no), (2, r.group_no))))
where c.channel not in (select p.ref from pause p where p.ns = $1 and p.kind = 3)
group by c.channel;

-- name: read_workgroups
-- In order of name. $1 ns $2 these names, or null for all $3 after this name $4 how many $5 suspended ones only
select w.workgroup as number, w.name, h.until as suspended_until, h.reason
from workgroup w
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
  union all select channel, state, 1 from tail
  union all select channel, was, -1 from tail where was is not null
  union all select workgroup, state, 1 from tail
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
  (select coalesce(sum(cardinality(l.nos)), 0)::int from lease l where l.ns = $1 and l.worker = w.worker) as running
from worker w
where w.ns = $1 and (not $2::bool or w.last_seen_at > now() - $3::float8 * interval '1 s')
  and ($4::text is null or w.name > $4::text collate "C")
order by w.name limit $5;

-- name: server_now
select now() as now;
