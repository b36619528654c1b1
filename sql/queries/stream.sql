-- Workers to which leases are pushed. A pushed lease is an offer until a call names it (lease.offer).

-- name: enter_streams
-- The newest stream of each worker. $1 ns $2 workers $3 ids of streams
insert into stream (ns, worker, id)
select $1, s.worker, s.id from unnest($2::int[], $3::uuid[]) as s(worker, id) order by s.worker
on conflict (ns, worker) do update set id = excluded.id;

-- name: renew_offers
-- What was pushed to these workers and not confirmed is offered anew, for so long. $1 ns $2 workers $3 seconds
with offered as materialized (
  select lease_no, part from lease
  where ns = $1 and worker = any ($2::int[]) and offer is not null and runner is null order by lease_no, part for update),
renewed as (
  update lease l set until = least(greatest(l.until, now() + $3::float8 * interval '1 s'), l.deadline)
  from offered o
  where l.ns = $1 and l.lease_no = o.lease_no and l.part = o.part
  returning l.lease_no, l.worker, l.until, l.nos, l.attempts)
select r.worker, r.lease_no, r.until, u.no, u.attempt
from renewed r cross join lateral unnest(r.nos, r.attempts) as u(no, attempt)
order by r.lease_no, u.no;

-- name: watch_streams
-- Which of these streams are still the newest of their workers; which of these leases stand, by their places in the list.
-- $1 ns $2 workers $3 ids of streams; leases: $4 lease nos $5 numbers
select
  array(
    select s.worker from unnest($2::int[], $3::uuid[]) as s(worker, id)
    join stream x on x.ns = $1 and x.worker = s.worker and x.id = s.id) as workers,
  array(
    select i.ord::int from unnest($4::bigint[], $5::bigint[]) with ordinality as i(lease_no, no, ord)
    where exists (select from lease l where l.ns = $1 and l.lease_no = i.lease_no and l.nos @> array[i.no])) as standing;

-- name: leave_streams
-- $1 ns $2 workers $3 ids of streams
delete from stream x using unnest($2::int[], $3::uuid[]) as s(worker, id)
where x.ns = $1 and x.worker = s.worker and x.id = s.id;
