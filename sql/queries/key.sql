-- Keys: of the tasks of one channel and key (ALLOW excepted) one runs, and the ready ones ride with it.
-- Whoever makes such a task, makes one ready, claims one or ends one locks the key's row in `runner` first; what it then
-- looks for stands in the next statement, whose snapshot shows all that was done under the lock before.

-- name: lock_keys
-- Until the transaction ends nobody else makes, readies, claims or ends tasks of these keys. $1 ns $2 channels $3 keys
insert into runner as r (ns, channel, key)
select distinct $1::int, k.channel, k.key from unnest($2::int[], $3::text[]) as k(channel, key)
order by k.channel, k.key
on conflict (ns, channel, key) do update set no = r.no;

-- name: tasks_with_keys
-- Tasks of these keys that have not ended, of any policy, oldest first. $1 ns $2 channels $3 keys
select k.channel, k.key, k.no, t.id, t.group_no
from unnest($2::int[], $3::text[]) as x(channel, key)
join keyed k on k.ns = $1 and k.channel = x.channel and k.key = x.key
join task t on t.ns = $1 and t.no = k.no
join task_place p on p.ns = $1 and p.no = k.no
where p.state not in (5, 6, 7)
order by k.no;

-- name: remember_keys
-- After creating. Nobody finds a copy by its key (pluck.sql). $1 ns $2 numbers
insert into keyed (ns, channel, key, no)
select $1, channel, key, no from task t
where ns = $1 and no = any ($2::bigint[]) and key is not null
  and not exists (select from plucked x where x.ns = $1 and x.no = t.no)
on conflict do nothing;

-- name: merge_ready
-- Tasks that this transaction has made ready, or moved aside or back: those whose key has a runner ride with it. A runner
-- that comes now waits for this transaction, and then takes in what it finds. $1 ns $2 numbers of tasks that merge
with t as materialized (select no, channel, key, rank from task where ns = $1 and no = any ($2::bigint[])),
seat as (
  insert into runner as r (ns, channel, key)
  select distinct $1::int, channel, key from t order by channel, key
  on conflict (ns, channel, key) do update set no = r.no
  returning channel, key, no),
from_ready as (
  delete from ready x using t join seat s using (channel, key)
  where s.no is not null and x.ns = $1 and x.channel = t.channel and x.rank = t.rank and x.no = t.no
  returning x.no, s.no as into_no, x.channel, x.rank, x.workgroup, x.group_no, x.attempt, x.remaining, x.failures, x.key,
    x.ready_at),
from_parked as (
  delete from parked x using t join seat s using (channel, key)
  where s.no is not null and x.ns = $1 and x.no = t.no
  returning x.no, s.no as into_no, x.channel, x.rank, x.workgroup, x.group_no, x.attempt, x.remaining, x.failures, x.key,
    x.ready_at),
gone as materialized (select * from from_ready union all select * from from_parked),
ride as (
  insert into merged (ns, no, into_no, channel, rank, workgroup, group_no, attempt, remaining, failures, key, ready_at)
  select $1, no, into_no, channel, rank, workgroup, group_no, attempt, remaining, failures, key, ready_at from gone),
told as (
  insert into event (ns, kind, was, state, nos, groups, channels, workgroups, attempts)
  select $1, 10, 2, 4, array_agg(no), array_agg(group_no), array_agg(channel), array_agg(workgroup), array_agg(attempt)
  from gone having count(*) > 0)
select no from gone;

-- name: take_in
-- After a claim: the ready tasks of the keys that it runs, held or not, ride with them. Their rows are waited for: a claim
-- that holds one merges it by itself. $1 ns $2 numbers of runners
with k as materialized (select no, channel, key from task where ns = $1 and no = any ($2::bigint[])),
r as materialized (
  select x.channel, x.rank, x.no from ready x join k on x.ns = $1 and x.channel = k.channel and x.key = k.key
  order by x.no for update of x),
p as materialized (
  select x.no from parked x join k on x.ns = $1 and x.channel = k.channel and x.key = k.key
  order by x.no for update of x),
seat as materialized (
  select s.channel, s.key, s.no from runner s join k on s.ns = $1 and s.channel = k.channel and s.key = k.key
  where s.no = k.no and (select count(*) from r) + (select count(*) from p) > 0
  order by s.channel, s.key for update of s),
from_ready as (
  delete from ready x using r, seat s
  where x.ns = $1 and x.channel = r.channel and x.rank = r.rank and x.no = r.no and s.channel = x.channel and s.key = x.key
  returning x.no, s.no as into_no, x.channel, x.rank, x.workgroup, x.group_no, x.attempt, x.remaining, x.failures, x.key,
    x.ready_at),
from_parked as (
  delete from parked x using p, seat s
  where x.ns = $1 and x.no = p.no and s.channel = x.channel and s.key = x.key
  returning x.no, s.no as into_no, x.channel, x.rank, x.workgroup, x.group_no, x.attempt, x.remaining, x.failures, x.key,
    x.ready_at),
gone as materialized (select * from from_ready union all select * from from_parked),
ride as (
  insert into merged (ns, no, into_no, channel, rank, workgroup, group_no, attempt, remaining, failures, key, ready_at)
  select $1, no, into_no, channel, rank, workgroup, group_no, attempt, remaining, failures, key, ready_at from gone),
told as (
  insert into event (ns, kind, was, state, nos, groups, channels, workgroups, attempts)
  select $1, 10, 2, 4, array_agg(no), array_agg(group_no), array_agg(channel), array_agg(workgroup), array_agg(attempt)
  from gone having count(*) > 0)
select no from gone;

-- name: lock_runners
-- Before keyed tasks end: their leases, and then the keys that they run for. $1 ns; pairs: $2 lease nos $3 numbers
with held as materialized (
  select lease_no, nos from lease where ns = $1 and lease_no = any ($2::bigint[]) order by lease_no, part for update),
mine as materialized (
  select t.no, t.channel, t.key from held h cross join lateral unnest(h.nos) as u(no)
  join task t on t.ns = $1 and t.no = u.no
  where (h.lease_no, u.no) in (select p.lease_no, p.no from unnest($2::bigint[], $3::bigint[]) as p(lease_no, no)))
select r.no from runner r join mine m on r.ns = $1 and r.channel = m.channel and r.key = m.key
where r.no = m.no and (select count(*) from held) >= 0
order by r.channel, r.key for update of r;

-- name: bring_twins
-- What rides with these runners, locked before, joins their leases, to end as they do; and they are runners no more. Ready
-- tasks of their keys come too: a server died between its claim and take_in. $1 ns $2 lease nos $3 numbers of the runners
-- $4 they succeed: their keys are forgotten
with me as materialized (
  select l.lease_no, l.worker, l.until, l.started_at, l.deadline, t.no, t.channel, t.key
  from lease l cross join lateral unnest(l.nos) as u(no)
  join task t on t.ns = $1 and t.no = u.no
  where l.ns = $1 and l.lease_no = any ($2::bigint[]) and u.no = any ($3::bigint[])),
from_merged as (
  delete from merged m using me where m.ns = $1 and m.into_no = me.no
  returning m.no, m.into_no, m.channel, m.workgroup, m.group_no, m.attempt, m.remaining, m.failures, m.key),
from_ready as (
  delete from ready x using me
  where x.ns = $1 and x.channel = me.channel and x.key = me.key and x.ctid = any (array(
    select y.ctid from ready y join me on y.ns = $1 and y.channel = me.channel and y.key = me.key for update of y skip locked))
  returning x.no, me.no as into_no, x.channel, x.workgroup, x.group_no, x.attempt, x.remaining, x.failures, x.key),
from_parked as (
  delete from parked x using me
  where x.ns = $1 and x.channel = me.channel and x.key = me.key and x.ctid = any (array(
    select y.ctid from parked y join me on y.ns = $1 and y.channel = me.channel and y.key = me.key for update of y skip locked))
  returning x.no, me.no as into_no, x.channel, x.workgroup, x.group_no, x.attempt, x.remaining, x.failures, x.key),
late as materialized (select * from from_ready union all select * from from_parked),
twin as materialized (select * from from_merged union all select * from late),
joined as (
  insert into lease (ns, lease_no, part, worker, until, started_at, deadline, runner, nos, groups, channels, workgroups,
    attempts, remainings, failures, keys)
  select $1, me.lease_no, nextval('lease_no'), me.worker, me.until, me.started_at, me.deadline, me.no, w.*
  from me
  cross join lateral (
    select array_agg(t.no), array_agg(t.group_no), array_agg(t.channel), array_agg(t.workgroup), array_agg(t.attempt + 1),
      array_agg(t.remaining - 1), array_agg(t.failures), array_agg(t.key)
    from twin t where t.into_no = me.no having count(*) > 0) w),
free as (
  delete from runner r using me where r.ns = $1 and r.channel = me.channel and r.key = me.key and r.no = me.no),
forgotten as (
  delete from keyed k
  using (select channel, key, no from me union all select channel, key, no from twin) e
  where $4::bool and k.ns = $1 and k.channel = e.channel and k.key = e.key and k.no = e.no),
told as (
  insert into event (ns, kind, was, state, nos, groups, channels, workgroups, attempts)
  select $1, 10, 2, 4, array_agg(no), array_agg(group_no), array_agg(channel), array_agg(workgroup), array_agg(attempt)
  from late having count(*) > 0)
select count(*)::int as twins from twin;

-- name: lock_runners_of
-- Before what rides with these tasks is freed. $1 ns $2 numbers
select r.no from runner r join task t on t.ns = $1 and r.ns = $1 and r.channel = t.channel and r.key = t.key
where t.no = any ($2::bigint[]) and r.no = t.no
order by r.channel, r.key for update of r;

-- name: free_twins
-- These runners, locked before, run no more: what rode with them is ready as before. $1 ns $2 numbers
with gone as (
  delete from merged where ns = $1 and into_no = any ($2::bigint[])
  returning no, channel, rank, workgroup, group_no, attempt, remaining, failures, key, ready_at),
back as (
  insert into ready (ns, channel, rank, workgroup, no, group_no, attempt, remaining, failures, key, ready_at)
  select $1, channel, rank, workgroup, no, group_no, attempt, remaining, failures, key, ready_at from gone),
free as (
  delete from runner r using task t
  where t.ns = $1 and t.no = any ($2::bigint[]) and r.ns = $1 and r.channel = t.channel and r.key = t.key and r.no = t.no),
told as (
  insert into event (ns, kind, was, state, nos, groups, channels, workgroups, attempts)
  select $1, 3, 4, 2, array_agg(no), array_agg(group_no), array_agg(channel), array_agg(workgroup), array_agg(attempt)
  from gone having count(*) > 0)
select channel, rank, no from gone;

-- name: forget_ended_keys
-- Rows that say nothing: locks of keys without a runner, keys of tasks that have ended. $1 ns $2 at most so many of each
with idle as (
  delete from runner where ctid = any (array(
    select ctid from runner where ns = $1 and no is null limit $2 for update skip locked))
  returning key),
ended as (
  delete from keyed where ctid = any (array(
    select k.ctid from keyed k join done d on d.ns = k.ns and d.no = k.no
    where k.ns = $1 limit $2 for update of k skip locked))
  returning no)
select (select count(*)::int from idle) as idle, (select count(*)::int from ended) as ended;
