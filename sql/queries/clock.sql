-- What the clock does: leases run out, delays end, suspensions end; and the heartbeat that forgives an outage.

-- name: next_due
-- Seconds until the next lease, delay or suspension ends; null when there is none. What was due longer ago than $2 seconds was
-- ended then: a look further back passes over all rows that died since the oldest snapshot in the database. $1 ns
select extract(epoch from least(
  (select min(until) from lease where ns = $1 and until > now() - $2::float8 * interval '1 s'),
  (select min(run_at) from scheduled where ns = $1 and run_at > now() - $2::float8 * interval '1 s'),
  (select min(until) from hold where ns = $1)) - now())::float8 as due_in;

-- name: beat
-- The heartbeat. After a gap in it, every lease that stood when the gap began is prolonged by the gap and the grace,
-- in the statement that ends the gap, so that no sweep comes between. $1 ns $2 longest silence that is no gap, seconds
-- $3 grace seconds
with n as (select alive_at, now() - alive_at as silence from namespace where ns = $1 for no key update),
stood as materialized (
  select l.lease_no, l.part from lease l, n
  where n.silence > $2::float8 * interval '1 s' and l.ns = $1 and l.until > n.alive_at
  order by l.lease_no, l.part for update of l),
prolonged as (
  update lease l
  set until = l.until + n.silence + $3::float8 * interval '1 s',
    deadline = l.deadline + n.silence + $3::float8 * interval '1 s'
  from stood s, n
  where l.ns = $1 and l.lease_no = s.lease_no and l.part = s.part
  returning l.lease_no),
alive as (update namespace set alive_at = now() where ns = $1)
select extract(epoch from silence)::float8 as silence, (select count(*)::int from prolonged) as prolonged from n;

-- name: overdue_leases
-- Leases that ran out, locked until the transaction ends. Nothing happens while the heartbeat is silent. skip locked: a
-- completion that holds the row wins, and we come again. $1 ns $2 longest silence that is no gap, seconds $3 at most so many
-- $4 as next_due's $2
with gone as materialized (
  select l.lease_no, l.nos, l.keys, l.until >= l.deadline and l.offer is null as timed_out
  from lease l
  where l.ns = $1 and l.until <= now() and l.until > now() - $4::float8 * interval '1 s'
    and exists (select from namespace n where n.ns = $1 and n.alive_at > now() - $2::float8 * interval '1 s')
  order by l.until limit $3 for update skip locked)
select
  g.lease_no,
  coalesce(g.timed_out, false) as timed_out,
  (select array_agg(u.no) from unnest(g.nos, g.keys) as u(no, key) where u.key is not null) as keyed
from gone g;

-- name: expire_leases
-- Takes back what overdue_leases locked. A lost lease: the attempt counts, the task is claimable at once. A time-out is a
-- failure like any other. Either way: FAILED when no attempt remains. An offer that lapsed is a release. $1 ns $2 lease nos
with gone as (
  delete from lease
  where ns = $1 and (lease_no, part) in (
    select l.lease_no, l.part from lease l where l.ns = $1 and l.lease_no = any ($2::bigint[]) and l.until <= now()
    for update skip locked)
  returning lease_no, worker, started_at, runner, coalesce(until >= deadline and offer is null, false) as timed_out,
    offer is not null as offered, nos, groups, channels, workgroups, attempts, remainings, failures, keys),
item as materialized (
  select g.lease_no, g.worker, g.started_at, g.runner is not null as is_twin, g.timed_out, g.offered, u.no, u.group_no, u.channel,
    u.workgroup, u.attempt - g.offered::int as attempt, u.remaining + g.offered::int as remaining, u.failures, u.key, t.rank,
    w.name as worker_name,
    u.remaining <= 0 and not g.offered as final,
    case when g.timed_out
      then least(t.max_delay, t.retry_delay * power(t.backoff, least(u.failures, 100))) * (0.9 + 0.2 * random())
      else 0 end as wait
  from gone g
  cross join lateral unnest(g.nos, g.groups, g.channels, g.workgroups, g.attempts, g.remainings, g.failures, g.keys)
    as u(no, group_no, channel, workgroup, attempt, remaining, failures, key)
  join task t on t.ns = $1 and t.no = u.no
  left join worker w on w.ns = $1 and w.worker = g.worker),
noted as (
  insert into error (ns, no, attempt, worker, started_at, error)
  select $1, no, attempt, worker, started_at, json_build_object(
    'code', case when timed_out then 'TIMED_OUT' else 'LEASE_EXPIRED' end,
    'message', case
      when timed_out then format('the attempt of worker %s took longer than the time-out of the task', worker_name)
      else format('the lease of worker %s ran out: it neither finished the task nor extended the lease', worker_name) end,
    'workerId', worker_name)
  from item where not offered),
later as (
  insert into scheduled (ns, run_at, no, channel, rank, workgroup, group_no, attempt, remaining, failures, key)
  select $1, now() + wait * interval '1 s', no, channel, rank, workgroup, group_no, attempt, remaining, failures + 1, key
  from item where not final and wait > 0),
back as (
  insert into ready (ns, channel, rank, workgroup, no, group_no, attempt, remaining, failures, key)
  select $1, channel, rank, workgroup, no, group_no, attempt, remaining, failures + timed_out::int, key
  from item where not final and wait <= 0),
over as (
  insert into failed (ns, no, channel, rank, workgroup, group_no, attempt, remaining, worker, started_at, key)
  select $1, no, channel, rank, workgroup, group_no, attempt, remaining, worker, started_at, key from item where final),
told as (
  insert into event (ns, kind, was, state, worker, until, nos, groups, channels, workgroups, attempts)
  select $1, case when final then 8 when offered then 12 when timed_out then 7 else 11 end, case when is_twin then 4 else 3 end,
    case when final then 6 when wait > 0 then 1 else 2 end, worker,
    case when not final and wait > 0 then now() + min(wait) * interval '1 s' end,
    array_agg(no), array_agg(group_no), array_agg(channel), array_agg(workgroup), array_agg(attempt)
  from item group by worker, is_twin, offered, timed_out, final, wait > 0)
select
  no,
  channel,
  rank,
  case when final then 6 when wait > 0 then 1 else 2 end as state,
  wait as due_in
from item;

-- name: promote_scheduled
-- Tasks whose time has come. $1 ns $2 at most so many $3 as next_due's $2
with gone as (
  delete from scheduled
  where ctid = any (array(
    select ctid from scheduled
    where ns = $1 and run_at <= now() and run_at > now() - $3::float8 * interval '1 s'
    order by run_at limit $2 for update skip locked))
  returning no, channel, rank, workgroup, group_no, attempt, remaining, failures, key),
back as (
  insert into ready (ns, channel, rank, workgroup, no, group_no, attempt, remaining, failures, key)
  select $1, channel, rank, workgroup, no, group_no, attempt, remaining, failures, key from gone),
told as (
  insert into event (ns, kind, was, state, nos, groups, channels, workgroups, attempts)
  select $1, 3, 1, 2, array_agg(no), array_agg(group_no), array_agg(channel), array_agg(workgroup), array_agg(attempt)
  from gone having count(*) > 0)
select channel, min(rank) as rank, min(no) as no, count(*)::int as moved,
  array_agg(no) filter (where key is not null) as merging
from gone group by channel;

-- name: forget_claims
-- Claim ids whose leases have ended are kept for an hour more. $1 ns
with ended as (
  update claim c set ended_at = now()
  where c.ns = $1 and c.ended_at is null
    and not exists (select from lease l where l.ns = $1 and l.lease_no = c.lease_no)
  returning c.claim_id),
gone as (delete from claim c where c.ns = $1 and c.ended_at < now() - interval '1 hour' returning c.claim_id)
select (select count(*)::int from ended) as ended, (select count(*)::int from gone) as gone;

-- name: ready_channels
-- The floor poll: the first of each of these channels that could be claimed, and what claims with these ids took.
-- $1 ns $2 channels; where to start in each: $3 ranks $4 numbers; $5 claim ids
select c.channel, f.rank, f.no, null::uuid as claim_id, null::bigint as lease_no, null::text as asked
from unnest($2::int[], $3::int[], $4::bigint[]) as c(channel, rank, no)
cross join lateral (
  select r.rank, r.no from ready r
  where r.ns = $1 and r.channel = c.channel and (r.rank, r.no) > (c.rank, c.no)
    and not coalesce(r.workgroup = any (array(select o.workgroup from hold o where o.ns = $1 and o.until > now())), false)
    and (r.admitted or not coalesce(r.workgroup = any (array(select p.ref from cap p where p.ns = $1 and p.kind = 2)), false))
    and ((select not exists (select from pause p where p.ns = $1 and p.kind < 3)) or not exists (
      select from pause p where p.ns = $1 and (p.kind, p.ref) in ((1, r.no), (2, r.group_no))))
  order by r.rank, r.no limit 1) f
where c.channel not in (select p.ref from pause p where p.ns = $1 and p.kind = 3)
union all
select null, null, null, claim_id, lease_no, asked from claim where ns = $1 and claim_id = any ($5::uuid[]);

-- name: fold_events
-- Counts by channel and workgroup, folded from the events by whoever takes the row. The locked row may be newer than
-- this statement's snapshot: then its `upto` lies ahead of ours and we would count twice, so both reads must agree. $1 ns
with f as materialized (
  select l.upto from (select upto from fold where ns = $1 for update skip locked) l
  where l.upto::text = (select x.upto::text from fold x where x.ns = $1)),
e as materialized (
  select e.was, e.state, x.channel, x.workgroup, x.n
  from f
  join event e on e.ns = $1 and e.xid >= pg_snapshot_xmin(f.upto) and not pg_visible_in_snapshot(e.xid, f.upto)
  cross join lateral (
    select u.channel, u.workgroup, count(*) as n
    from unnest(e.channels, e.workgroups) as u(channel, workgroup)
    group by 1, 2) x
  where e.state is distinct from e.was and cardinality(e.nos) > 0),
n as materialized (
  select ref, state, sum(n) as n from (
    select channel as ref, state, n from e where state is not null
    union all select channel, was, -n from e where was is not null
    union all select workgroup, state, n from e where state is not null and workgroup <> 0
    union all select workgroup, was, -n from e where was is not null and workgroup <> 0) x
  group by ref, state having sum(n) <> 0),
counted as (
  insert into tally as t (ns, ref, state, n) select $1, ref, state, n from n order by ref, state
  on conflict (ns, ref, state) do update set n = t.n + excluded.n)
update fold set upto = pg_current_snapshot() from f
where ns = $1 and exists (select from e)
returning (select sum(n)::int from e) as folded;

-- name: ping_workers
-- $1 ns $2 workers $3 channels, as JSON arrays $4 transports
update worker w
set last_seen_at = now(), channels = array(select json_array_elements_text(s.channels)), transport = s.transport
from unnest($2::int[], $3::json[], $4::text[]) as s(worker, channels, transport)
where w.ns = $1 and w.worker = s.worker;
