-- What the clock does: leases run out, delays end, suspensions end; and the heartbeat that forgives an outage.

-- name: next_due
-- Seconds until the next lease, delay or suspension ends; null when there is none. $1 ns
select extract(epoch from least(
  (select min(until) from lease where ns = $1),
  (select min(run_at) from scheduled where ns = $1),
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
  update lease l set until = l.until + n.silence + $3::float8 * interval '1 s'
  from stood s, n
  where l.ns = $1 and l.lease_no = s.lease_no and l.part = s.part
  returning l.lease_no),
alive as (update namespace set alive_at = now() where ns = $1)
select extract(epoch from silence)::float8 as silence, (select count(*)::int from prolonged) as prolonged from n;

-- name: expire_leases
-- Leases that ran out: the attempt counts, the task is claimable at once, or FAILED when none remains. Nothing happens
-- while the heartbeat is silent. skip locked: a completion that holds the row wins, and we come again.
-- $1 ns $2 longest silence that is no gap, seconds $3 at most so many leases
with gone as (
  delete from lease
  where (ns, lease_no, part) in (
    select l.ns, l.lease_no, l.part from lease l
    where l.ns = $1 and l.until <= now()
      and exists (select from namespace n where n.ns = $1 and n.alive_at > now() - $2::float8 * interval '1 s')
    order by l.until limit $3 for update skip locked)
  returning lease_no, worker, started_at, nos, groups, channels, workgroups, attempts, remainings, failures),
item as materialized (
  select g.lease_no, g.worker, g.started_at, u.*, t.rank, w.name as worker_name
  from gone g
  cross join lateral unnest(g.nos, g.groups, g.channels, g.workgroups, g.attempts, g.remainings, g.failures)
    as u(no, group_no, channel, workgroup, attempt, remaining, failures)
  join task t on t.ns = $1 and t.no = u.no
  left join worker w on w.ns = $1 and w.worker = g.worker),
noted as (
  insert into error (ns, no, attempt, worker, started_at, error)
  select $1, no, attempt, worker, started_at, json_build_object(
    'code', 'LEASE_EXPIRED',
    'message', format('the lease of worker %s ran out: it neither finished the task nor extended the lease', worker_name),
    'workerId', worker_name)
  from item),
back as (
  insert into ready (ns, channel, rank, workgroup, no, group_no, attempt, remaining, failures)
  select $1, channel, rank, workgroup, no, group_no, attempt, remaining, failures from item where remaining > 0),
over as (
  insert into failed (ns, no, channel, rank, workgroup, group_no, attempt, remaining, worker, started_at)
  select $1, no, channel, rank, workgroup, group_no, attempt, remaining, worker, started_at from item where remaining <= 0),
told as (
  insert into event (ns, kind, was, state, worker, nos, groups, channels, workgroups, attempts)
  select $1, case when remaining > 0 then 11 else 8 end, 3, case when remaining > 0 then 2 else 6 end, worker,
    array_agg(no), array_agg(group_no), array_agg(channel), array_agg(workgroup), array_agg(attempt)
  from item group by worker, remaining > 0)
select channel, min(rank) as rank, min(no) as no, count(*)::int as n from item where remaining > 0 group by channel
union all
select 0, 0, 0, count(*)::int from item where remaining <= 0 having count(*) > 0;

-- name: promote_scheduled
-- Tasks whose time has come. $1 ns $2 at most so many
with gone as (
  delete from scheduled
  where ctid = any (array(
    select ctid from scheduled where ns = $1 and run_at <= now() order by run_at limit $2 for update skip locked))
  returning no, channel, rank, workgroup, group_no, attempt, remaining, failures),
back as (
  insert into ready (ns, channel, rank, workgroup, no, group_no, attempt, remaining, failures)
  select $1, channel, rank, workgroup, no, group_no, attempt, remaining, failures from gone),
told as (
  insert into event (ns, kind, was, state, nos, groups, channels, workgroups, attempts)
  select $1, 3, 1, 2, array_agg(no), array_agg(group_no), array_agg(channel), array_agg(workgroup), array_agg(attempt)
  from gone having count(*) > 0)
select channel, min(rank) as rank, min(no) as no, count(*)::int as n from gone group by channel;

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
-- The floor poll: which of these channels hold something that could be claimed. $1 ns $2 channels
select c.channel
from unnest($2::int[]) as c(channel)
where exists (
  select from ready r
  where r.ns = $1 and r.channel = c.channel
    and r.workgroup <> all (array(select o.workgroup from hold o where o.ns = $1 and o.until > now())));

-- name: fold_events
-- Counts by channel and workgroup, folded from the events by whoever takes the row. The locked row may be newer than
-- this statement's snapshot: then its `upto` lies ahead of ours and we would count twice, so both reads must agree. $1 ns
with f as materialized (
  select l.upto from (select upto from fold where ns = $1 for update skip locked) l
  where l.upto::text = (select x.upto::text from fold x where x.ns = $1)),
e as materialized (
  select e.was, e.state, u.channel, u.workgroup
  from f
  join event e on e.ns = $1 and e.xid >= pg_snapshot_xmin(f.upto) and not pg_visible_in_snapshot(e.xid, f.upto)
  cross join lateral unnest(e.channels, e.workgroups) as u(channel, workgroup)
  where e.state is distinct from e.was and cardinality(e.nos) > 0),
n as materialized (
  select ref, state, sum(n) as n from (
    select channel as ref, state, count(*) as n from e group by 1, 2
    union all select channel, was, -count(*) from e where was is not null group by 1, 2
    union all select workgroup, state, count(*) from e where workgroup <> 0 group by 1, 2
    union all select workgroup, was, -count(*) from e where was is not null and workgroup <> 0 group by 1, 2) x
  group by ref, state having sum(n) <> 0),
counted as (
  insert into tally as t (ns, ref, state, n) select $1, ref, state, n from n order by ref, state
  on conflict (ns, ref, state) do update set n = t.n + excluded.n)
update fold set upto = pg_current_snapshot() from f
where ns = $1 and exists (select from e)
returning (select count(*)::int from e) as folded;

-- name: ping_workers
-- $1 ns $2 workers $3 channels, as JSON arrays $4 transports
update worker w
set last_seen_at = now(), channels = array(select json_array_elements_text(s.channels)), transport = s.transport
from unnest($2::int[], $3::json[], $4::text[]) as s(worker, channels, transport)
where w.ns = $1 and w.worker = s.worker;
