-- Limits: how many tasks of a channel or workgroup run at once, and how many of a workgroup start in a window.

-- name: set_cap
-- $1 ns $2 kind (1 channel, 2 workgroup) $3 its number; $4 whether max_running is to be $5; $6 whether the rate is to be $7 starts
-- in $8 seconds
with turn as (insert into cap (ns, kind, ref) values ($1, 0, 0) on conflict do nothing)
insert into cap as c (ns, kind, ref, max_running, starts, seconds)
values ($1, $2, $3, case when $4::bool then $5::int end, case when $6::bool then $7::int end, case when $6 then $8::float8 end)
on conflict (ns, kind, ref) do update set
  max_running = case when $4 then excluded.max_running else c.max_running end,
  starts = case when $6 then excluded.starts else c.starts end,
  seconds = case when $6 then excluded.seconds else c.seconds end
returning max_running, starts;

-- name: lift_cap
-- Of one that limits nothing any more. $1 ns $2 kind $3 number
with gone as (
  delete from cap where ns = $1 and kind = $2 and ref = $3 and max_running is null and starts is null returning kind, ref),
forgotten as (
  delete from start where ns = $1 and workgroup in (select ref from gone where kind = 2))
select ref from gone;

-- name: take_turn
-- Limits are kept by whoever has this row; what others did under it is read by the next statement. $1 ns
select ref from cap where ns = $1 and kind = 0 for update;

-- name: admit
-- Of each limited workgroup the best of each channel, twice as many as could start at once and at most $2, stand where claims look;
-- and as many again when they are more urgent. It is no limit by itself: more may stand there when two do this at once. Where nothing
-- was moved aside yet, what is ready is taken. A row for each channel. $1 ns
with recursive open as materialized (
  select c.ref as workgroup, least(2 * greatest(coalesce(c.max_running, 0), coalesce(c.starts, 0)), $2::int) as most,
    exists (select from parked p where p.ns = $1 and p.workgroup = c.ref and not p.paused) as aside
  from cap c
  where c.ns = $1 and c.kind = 2
    and not exists (select from hold h where h.ns = $1 and h.workgroup = c.ref and h.until > now())),
-- Those that stand there by now.
stand as materialized (
  select y.workgroup, y.channel, count(*)::int as n, max(y.rank) as rank
  from ready y
  where y.ns = $1 and y.workgroup = any (array(select o.workgroup from open o)) and y.workgroup <> 0 and y.admitted
  group by y.workgroup, y.channel),
lane(workgroup, most, channel) as (
  select o.workgroup, o.most, f.channel
  from open o
  cross join lateral (
    select p.channel from parked p
    where p.ns = $1 and p.workgroup = o.workgroup and not p.paused order by p.channel limit 1) f
  where o.aside
  union all
  select l.workgroup, l.most, n.channel
  from lane l cross join lateral (
    select p.channel from parked p
    where p.ns = $1 and p.workgroup = l.workgroup and not p.paused and p.channel > l.channel order by p.channel limit 1) n),
marked as (
  update ready set admitted = true
  where ctid = any (array(
    select r.ctid
    from open o
    left join (select workgroup, sum(n)::int as n, max(rank) as rank from stand group by workgroup) s using (workgroup)
    cross join lateral (
      select x.ctid from ready x
      where x.ns = $1 and x.workgroup = o.workgroup and x.workgroup <> 0 and not x.admitted
        and (coalesce(s.n, 0) < o.most or x.rank < s.rank)
      order by x.rank, x.no
      limit greatest(case when coalesce(s.n, 0) < o.most then 1 else 2 end * o.most - coalesce(s.n, 0), 0)
      for update skip locked) r
    where not o.aside))
  returning channel, rank, no, null::text as key),
gone as (
  delete from parked
  where ctid = any (array(
    select p.ctid
    from lane l
    left join stand s using (workgroup, channel)
    cross join lateral (
      select x.ctid from parked x
      where x.ns = $1 and x.workgroup = l.workgroup and not x.paused and x.channel = l.channel
        and (coalesce(s.n, 0) < l.most or x.rank < s.rank)
      order by x.rank, x.no
      limit greatest(case when coalesce(s.n, 0) < l.most then 1 else 2 end * l.most - coalesce(s.n, 0), 0)
      for update skip locked) p))
  returning channel, rank, workgroup, no, group_no, attempt, remaining, failures, key, ready_at),
back as (
  insert into ready (ns, channel, rank, workgroup, no, group_no, attempt, remaining, failures, key, ready_at, admitted)
  select $1, channel, rank, workgroup, no, group_no, attempt, remaining, failures, key, ready_at, true from gone)
select channel, min(rank) as rank, min(no) as no, count(*)::int as moved, array_agg(no) filter (where key is not null) as merging
from (select channel, rank, no, key from gone union all select channel, rank, no, key from marked) x
group by channel;

-- name: any_cap
-- Whether workgroups are limited. $1 ns
select exists (select from cap where ns = $1 and kind = 2) as yes;

-- name: forget_starts
-- What lies before the window. $1 ns
with gone as (
  delete from start x using cap p
  where x.ns = $1 and p.ns = $1 and p.kind = 2 and p.ref = x.workgroup and x.at < now() - p.seconds * interval '1 s' returning 1)
select count(*)::int as gone from gone;
