-- Beginning again: tasks as if they had never run. They are taken out of their places first (take_tasks), and stand nowhere until
-- begin_again.

-- name: spawned_below
-- All that these have spawned, to any depth, and all below that along links that someone named. $1 ns $2 numbers
with recursive s as (
  select t.no from task t where t.ns = $1 and t.spawned_by = any ($2::bigint[])
  union
  select t.no from s join task t on t.ns = $1 and t.spawned_by = s.no),
d as (
  select no from s
  union
  select e.child from d join edge e on e.ns = $1 and e.parent = d.no and not e.adopted)
select no from d order by no;

-- name: lock_keys_of
-- Until the transaction ends nobody else makes, readies, claims or ends tasks of the keys of these. $1 ns $2 numbers
insert into runner as r (ns, channel, key)
select distinct $1::int, channel, key from task where ns = $1 and no = any ($2::bigint[]) and key is not null and on_duplicate <> 3
order by channel, key
on conflict (ns, channel, key) do update set no = r.no;

-- name: parents_of
-- Whom these wait for, without those of $3: all of them, or those that have not succeeded. $1 ns $2 numbers $4 all
select distinct e.parent as no
from edge e
where e.ns = $1 and e.child = any ($2::bigint[]) and e.parent <> all ($3::bigint[])
  and ($4::bool or not exists (select from done d where d.ns = $1 and d.no = e.parent and d.outcome = 5))
order by no;

-- name: children_of
-- Who waits for these, in whatever way, without those of $3, and is not settled. $1 ns $2 numbers
select distinct e.child as no
from edge e
where e.ns = $1 and e.parent = any ($2::bigint[]) and e.child <> all ($3::bigint[])
  and not exists (select from done d where d.ns = $1 and d.no = e.child)
order by no;

-- name: begin_again
-- Tasks that stand nowhere begin again: they wait for their parents, for their time, or are ready. $1 ns; tasks: $2 numbers
-- $3 where each stood
with r as materialized (
  select g.was, t.no, t.channel, t.rank, t.workgroup, t.group_no, t.max_attempts, t.on_parent_failure as policy,
    case when t.on_duplicate <> 3 then t.key end as key,
    case when t.run_after > now() then t.run_after end as due_at,
    (
      select count(*)::int from edge e
      where e.ns = $1 and e.child = t.no
        and not exists (select from done d where d.ns = $1 and d.no = e.parent and (d.outcome = 5 or t.on_parent_failure = 2))
        and not (t.on_parent_failure = 2 and exists (select from failed f where f.ns = $1 and f.no = e.parent))) as open
  from unnest($2::bigint[], $3::int[]) as g(no, was) join task t on t.ns = $1 and t.no = g.no),
placed as materialized (
  select *, case when open > 0 then 0 when due_at is not null then 1 else 2 end as state from r),
hung as (
  insert into blocked (ns, no, open, run_at, channel, rank, workgroup, group_no, attempt, remaining, failures, key, policy)
  select $1, no, open, due_at, channel, rank, workgroup, group_no, 0, max_attempts, 0, key, policy from placed where state = 0),
later as (
  insert into scheduled (ns, run_at, no, channel, rank, workgroup, group_no, attempt, remaining, failures, key)
  select $1, due_at, no, channel, rank, workgroup, group_no, 0, max_attempts, 0, key from placed where state = 1),
soon as (
  insert into ready (ns, channel, rank, workgroup, no, group_no, attempt, remaining, failures, key)
  select $1, channel, rank, workgroup, no, group_no, 0, max_attempts, 0, key from placed where state = 2),
errors as (delete from error x using r where x.ns = $1 and x.no = r.no),
reports as (delete from progress x using r where x.ns = $1 and x.no = r.no),
runs_no_more as (delete from ahead x using r where x.ns = $1 and x.no = r.no),
told as (
  insert into event (ns, kind, was, state, nos, groups, channels, workgroups, attempts)
  select $1, 13, was, state, array_agg(no), array_agg(group_no), array_agg(channel), array_agg(workgroup), array_agg(0)
  from placed group by was, state)
select
  array_agg(channel) filter (where state = 2) as channels,
  array_agg(rank) filter (where state = 2) as ranks,
  array_agg(no) filter (where state = 2) as nos,
  array_agg(no) filter (where state = 2 and key is not null) as merging,
  extract(epoch from min(due_at) filter (where state = 1) - now())::float8 as due_in
from placed;

-- name: block_again
-- Tasks that have not started wait again, because one that they have waited for begins again; how many they wait for is counted next
-- (recount). What runs or has failed is left alone, but does not start anew before that one has succeeded (wait_again). `moved` were
-- found nowhere: they have just changed their place, run again. $1 ns $2 numbers
with t as materialized (
  select t.no, t.channel, t.rank, t.on_parent_failure as policy from task t where t.ns = $1 and t.no = any ($2::bigint[])),
held as materialized (
  select l.nos from lease l
  where l.ns = $1 and (l.lease_no, l.part) in (
    select x.lease_no, x.part from lease x cross join lateral unnest(x.nos) as u(no) join t using (no) where x.ns = $1)
  order by l.lease_no, l.part for update),
b as materialized (
  select x.no from blocked x
  where x.ns = $1 and x.no in (select no from t) and (select count(*) from held) >= 0 order by x.no for update),
f as materialized (
  select x.no from failed x
  where x.ns = $1 and x.no in (select no from t) and (select count(*) from held) >= 0 order by x.no for update),
stays as materialized (
  select no from f
  union all
  select no from t where no in (select unnest(nos) from held)),
goes_on as (insert into ahead (ns, no) select $1, no from stays on conflict do nothing),
from_ready as (
  delete from ready x using t
  where x.ns = $1 and x.channel = t.channel and x.rank = t.rank and x.no = t.no and (select count(*) from b) >= 0
  returning x.no, null::timestamptz as run_at, x.channel, x.rank, x.workgroup, x.group_no, x.attempt, x.remaining, x.failures, x.key,
    t.policy),
from_parked as (
  delete from parked x using t where x.ns = $1 and x.no = t.no and (select count(*) from b) >= 0
  returning x.no, null::timestamptz, x.channel, x.rank, x.workgroup, x.group_no, x.attempt, x.remaining, x.failures, x.key, t.policy),
from_merged as (
  delete from merged x using t where x.ns = $1 and x.no = t.no and (select count(*) from b) >= 0
  returning x.no, null::timestamptz, x.channel, x.rank, x.workgroup, x.group_no, x.attempt, x.remaining, x.failures, x.key, t.policy),
from_scheduled as (
  delete from scheduled x using t where x.ns = $1 and x.no = t.no and (select count(*) from b) >= 0
  returning x.no, x.run_at, x.channel, x.rank, x.workgroup, x.group_no, x.attempt, x.remaining, x.failures, x.key, t.policy),
back as materialized (
  select *, 2 as was from from_ready
  union all select *, 2 from from_parked
  union all select *, 4 from from_merged
  union all select *, 1 from from_scheduled),
hung as (
  insert into blocked (ns, no, open, run_at, channel, rank, workgroup, group_no, attempt, remaining, failures, key, policy)
  select $1, no, 1, run_at, channel, rank, workgroup, group_no, attempt, remaining, failures, key, policy from back),
told as (
  insert into event (ns, kind, was, state, nos, groups, channels, workgroups, attempts)
  select $1, 14, was, 0, array_agg(no), array_agg(group_no), array_agg(channel), array_agg(workgroup), array_agg(attempt)
  from back group by was),
found as materialized (select no from b union all select no from back)
select
  (select array_agg(no) from found) as blocked,
  (
    select array_agg(no) from t
    where no not in (select no from found) and no not in (select no from stays)
      and not exists (select from done d where d.ns = $1 and d.no = t.no)) as moved;

-- name: wait_again
-- Of tasks that this transaction has made ready or scheduled again, those that are ahead of a parent: block_again is next.
-- $1 ns $2 numbers
with a as (delete from ahead where ns = $1 and no = any ($2::bigint[]) returning no)
select a.no from a
where exists (
  select from edge e
  where e.ns = $1 and e.child = a.no
    and not exists (select from done d where d.ns = $1 and d.no = e.parent and d.outcome = 5));

-- name: tell_of_group
-- One event for the whole of it. $1 ns $2 group number $3 kind
insert into event (ns, kind, groups) values ($1, $3::smallint, array[$2::bigint]);

-- name: forget_ended_ahead
-- Those that are settled do not start anew. $1 ns
with gone as (
  delete from ahead where ctid = any (array(
    select a.ctid from ahead a join done d on d.ns = $1 and d.no = a.no where a.ns = $1 order by a.no for update of a skip locked))
  returning no)
select count(*)::int as n from gone;
