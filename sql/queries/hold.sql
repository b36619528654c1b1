-- Suspended workgroups: one row each, however many tasks they hold.

-- name: suspend_workgroups
-- A shorter suspension never shortens a longer one. $1 ns $2 workgroups $3 seconds $4 reasons
with asked as (
  select workgroup, max(seconds) as seconds, (array_agg(reason order by seconds desc))[1] as reason
  from unnest($2::int[], $3::float8[], $4::text[]) as a(workgroup, seconds, reason)
  group by workgroup),
held as (
  insert into hold as h (ns, workgroup, until, reason)
  select $1, workgroup, now() + seconds * interval '1 s', reason from asked order by workgroup
  on conflict (ns, workgroup) do update set until = excluded.until, reason = excluded.reason
  where h.until < excluded.until
  returning h.workgroup, h.until),
told as (
  insert into event (ns, kind, until, workgroups) select $1, 16, until, array[workgroup] from held)
select workgroup, extract(epoch from until - now())::float8 as due_in from held;

-- name: resume_workgroup
-- $1 ns $2 workgroup
with gone as (delete from hold where ns = $1 and workgroup = $2 returning workgroup),
told as (insert into event (ns, kind, workgroups) select $1, 17, array[workgroup] from gone)
select workgroup from gone;

-- name: park_held
-- Moves ready tasks of suspended workgroups aside, and of limited ones all but those that claims choose from. Only a claim's
-- speed depends on it: a claim skips them by itself.
-- $1 ns $2 at most so many
with gone as (
  delete from ready
  where ctid = any (array(
    select r.ctid
    from hold h
    cross join lateral (
      select x.ctid from ready x
      where x.ns = $1 and x.workgroup = h.workgroup and x.workgroup <> 0
      order by x.rank, x.no limit $2 for update skip locked) r
    where h.ns = $1 and h.until > now() + interval '1 s'
    limit $2) || array(
    select r.ctid
    from cap c
    cross join lateral (
      select x.ctid from ready x
      where x.ns = $1 and x.workgroup = c.ref and x.workgroup <> 0 and not x.admitted
      order by x.rank, x.no limit $2 for update skip locked) r
    where c.ns = $1 and c.kind = 2
    limit $2))
  returning channel, rank, workgroup, no, group_no, attempt, remaining, failures, key, ready_at),
aside as (
  insert into parked (ns, workgroup, rank, no, channel, group_no, attempt, remaining, failures, key, ready_at)
  select $1, workgroup, rank, no, channel, group_no, attempt, remaining, failures, key, ready_at from gone)
select count(*)::int as moved, array_agg(no) filter (where key is not null) as merging from gone;

-- name: parked_free
-- Workgroups with tasks aside that nothing holds any more. A loose index scan: as many steps as there are workgroups
-- with tasks aside. $1 ns
with recursive w as (
  (select workgroup from parked where ns = $1 and not paused order by workgroup limit 1)
  union all
  select n.workgroup
  from w cross join lateral (
    select p.workgroup from parked p where p.ns = $1 and not p.paused and p.workgroup > w.workgroup order by p.workgroup limit 1) n)
select workgroup from w
where not exists (select from hold h where h.ns = $1 and h.workgroup = w.workgroup and h.until > now())
  and not exists (select from cap c where c.ns = $1 and c.kind = 2 and c.ref = w.workgroup);

-- name: unpark
-- Nothing where there is a limit: admit does it. $1 ns $2 workgroup $3 at most so many
with gone as (
  delete from parked
  where ctid = any (array(
    select p.ctid from parked p
    where p.ns = $1 and p.workgroup = $2 and not p.paused
      and not exists (select from cap c where c.ns = $1 and c.kind = 2 and c.ref = $2)
    order by p.rank, p.no limit $3 for update of p skip locked))
  returning channel, rank, workgroup, no, group_no, attempt, remaining, failures, key, ready_at),
back as (
  insert into ready (ns, channel, rank, workgroup, no, group_no, attempt, remaining, failures, key, ready_at)
  select $1, channel, rank, workgroup, no, group_no, attempt, remaining, failures, key, ready_at from gone)
select channel, min(rank) as rank, min(no) as no, count(*)::int as moved,
  array_agg(no) filter (where key is not null) as merging
from gone group by channel;

-- name: end_holds
-- Removes the rows of suspensions that are over. $1 ns
with gone as (
  delete from hold where ctid = any (array(
    select ctid from hold where ns = $1 and until <= now() order by workgroup for update skip locked))
  returning workgroup),
told as (
  insert into event (ns, kind, workgroups) select $1, 17, array_agg(workgroup) from gone having count(*) > 0)
select h.workgroup from gone h;

-- name: channels_of_workgroups
-- Where ready tasks of these workgroups wait, and from where a claim should look. $1 ns $2 workgroups
select channel, min(rank) as rank, min(no) as no
from (
  select x.channel, x.rank, x.no
  from unnest($2::int[]) as w(workgroup)
  cross join lateral (
    select r.channel, r.rank, r.no from ready r
    where r.ns = $1 and r.workgroup = w.workgroup and r.workgroup <> 0 order by r.rank, r.no limit 1000) x) y
group by channel;
