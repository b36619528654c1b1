-- What people take away: tasks with all below them, groups. A task is first taken out of its place, which locks out whoever would
-- end it, claim it or hang another below it; when nothing more is found below, its rows go.
-- Rows are locked in the order of lease.sql; a group that is to go before all of them.

-- name: lock_group
-- Nobody makes tasks in it from now on (create_tasks). $1 ns $2 id
select group_no from task_group where ns = $1 and id = $2::uuid for update;

-- name: numbers_of_groups
-- Their tasks. $1 ns $2 group numbers
select no, is_seed from task where ns = $1 and group_no = any ($2::bigint[]) order by no;

-- name: lock_leases_of
-- First of all, in order: the leases of these tasks, of their parents and of their children. $1 ns $2 numbers
with t as materialized (
  select unnest($2::bigint[]) as no
  union select e.parent from edge e where e.ns = $1 and e.child = any ($2)
  union select e.child from edge e where e.ns = $1 and e.parent = any ($2)),
held as materialized (
  select l.lease_no from lease l
  where l.ns = $1 and (l.lease_no, l.part) in (
    select x.lease_no, x.part from lease x cross join lateral unnest(x.nos) as u(no) join t using (no) where x.ns = $1)
  order by l.lease_no, l.part for update)
select count(*)::int as n from held;

-- name: take_tasks
-- Out of the places where they stand, whatever these are; `wases` says which. `moved` were found nowhere: they have just changed
-- their place, run again for them. Who ran for a key is in `runners`: free its twins next. $1 ns $2 numbers
with t as materialized (
  select t.no, t.channel, t.rank from task t where t.ns = $1 and t.no = any ($2::bigint[])),
-- Leases first, as completions lock them: every other place reads `held` before it deletes.
held as materialized (
  select l.* from lease l
  where l.ns = $1 and (l.lease_no, l.part) in (
    select x.lease_no, x.part from lease x cross join lateral unnest(x.nos) as u(no) join t using (no) where x.ns = $1)
  order by l.lease_no, l.part for update),
free as materialized (select t.* from t where (select count(*) from held) >= 0),
item as materialized (
  select f.lease_no, f.part, u.*, t.no is not null as taken
  from held f
  cross join lateral unnest(f.nos, f.groups, f.channels, f.workgroups, f.attempts, f.remainings, f.failures, f.keys)
    as u(no, group_no, channel, workgroup, attempt, remaining, failures, key)
  left join t on t.no = u.no),
rest as materialized (
  select lease_no, part, array_agg(no) as nos, array_agg(group_no) as groups, array_agg(channel) as channels,
    array_agg(workgroup) as workgroups, array_agg(attempt) as attempts, array_agg(remaining) as remainings,
    array_agg(failures) as failures, array_agg(key) as keys
  from item where not taken group by lease_no, part),
emptied as (
  delete from lease l using held f
  where l.ns = $1 and l.lease_no = f.lease_no and l.part = f.part
    and not exists (select from rest r where r.lease_no = f.lease_no and r.part = f.part)),
trimmed as (
  update lease l
  set nos = r.nos, groups = r.groups, channels = r.channels, workgroups = r.workgroups, attempts = r.attempts,
    remainings = r.remainings, failures = r.failures, keys = r.keys
  from rest r
  where l.ns = $1 and l.lease_no = r.lease_no and l.part = r.part and cardinality(l.nos) > cardinality(r.nos)),
from_ready as (
  delete from ready x using free t where x.ns = $1 and x.channel = t.channel and x.rank = t.rank and x.no = t.no
  returning x.no, x.attempt),
from_parked as (delete from parked x using free t where x.ns = $1 and x.no = t.no returning x.no, x.attempt),
from_merged as (delete from merged x using free t where x.ns = $1 and x.no = t.no returning x.no, x.attempt),
from_scheduled as (delete from scheduled x using free t where x.ns = $1 and x.no = t.no returning x.no, x.attempt),
from_blocked as (delete from blocked x using free t where x.ns = $1 and x.no = t.no returning x.no, x.attempt),
from_failed as (delete from failed x using free t where x.ns = $1 and x.no = t.no returning x.no, x.attempt),
from_done as (delete from done x using free t where x.ns = $1 and x.no = t.no returning x.no, x.attempt, x.outcome),
hit as materialized (
  select no, attempt, 2 as was from from_ready
  union all select no, attempt, 2 from from_parked
  union all select no, attempt, 4 from from_merged
  union all select no, attempt, 1 from from_scheduled
  union all select no, attempt, 0 from from_blocked
  union all select no, attempt, 6 from from_failed
  union all select no, attempt, outcome from from_done
  union all select no, attempt, 3 from item where taken)
select
  (select array_agg(no order by no) from hit) as nos,
  (select array_agg(was::int order by no) from hit) as wases,
  (select array_agg(attempt order by no) from hit) as attempts,
  (select array_agg(no) from item where taken and key is not null) as runners,
  (select array_agg(no) from t where no not in (select no from hit)) as moved;

-- name: weigh_otherwise
-- Whether one of these tasks does not weigh 1. $1 ns $2 numbers
select exists (select from task where ns = $1 and no = any ($2::bigint[]) and weight <> 1) as yes;

-- name: lock_fold
-- How far groups are is not folded by anybody else until the transaction ends. It may wait for a fold. $1 ns
select ns from group_fold where ns = $1 for update;

-- name: lock_joins_of
-- Blocked tasks that had adopted some of these, without being one of them. $1 ns $2 numbers
select b.no from blocked b
where b.ns = $1 and b.no = any (array(
  select e.child from edge e
  where e.ns = $1 and e.parent = any ($2::bigint[]) and e.adopted and not exists (select from unnest($2) as x(no) where x.no = e.child)))
order by b.no for update;

-- name: delete_tasks
-- What was taken out of its place is gone. One event each, unless the verb is on the group. Answers what is to be taken off the
-- counts in that case (delete_groups). What other weights there are is taken off the group, whose fold is locked and is of now.
-- $1 ns; tasks: $2 numbers $3 where each stood $4 attempts; $5 the verb is on the group
with gone as materialized (select * from unnest($2::bigint[], $3::int[], $4::int[]) as g(no, was, attempt)),
t as (
  delete from task x using gone g where x.ns = $1 and x.no = g.no
  returning x.no, x.id, x.group_no, x.channel, x.workgroup, x.key, x.weight, g.was, g.attempt),
named as (
  insert into gone (ns, kind, ref, id) select $1, 1, no, id from t
  on conflict do nothing),
below as (delete from edge e using gone g where e.ns = $1 and e.parent = g.no),
above as (
  delete from edge e using gone g
  where e.ns = $1 and e.child = g.no and not exists (select from gone p where p.no = e.parent)),
feeding as (delete from feeder f using gone g where f.ns = $1 and f.no = g.no),
fed as (
  delete from feeder f using gone g
  where f.ns = $1 and f.join_no = g.no and not exists (select from gone x where x.no = f.no)),
errors as (delete from error x using gone g where x.ns = $1 and x.no = g.no),
reports as (delete from progress x using gone g where x.ns = $1 and x.no = g.no),
runs_no_more as (delete from ahead x using gone g where x.ns = $1 and x.no = g.no),
keys as (
  delete from keyed k using t where t.key is not null and k.ns = $1 and k.channel = t.channel and k.key = t.key and k.no = t.no),
pauses as (delete from pause p using gone g where p.ns = $1 and p.kind = 1 and p.ref = g.no),
copied as (delete from plucked x using gone g where x.ns = $1 and x.no = g.no),
lighter as (
  update group_tally x set weight = x.weight - o.weight, settled_weight = x.settled_weight - o.settled_weight
  from (
    select group_no, sum(weight - 1) as weight, coalesce(sum(weight - 1) filter (where was in (5, 7)), 0) as settled_weight
    from t where weight <> 1 group by group_no) o
  where x.ns = $1 and x.group_no = o.group_no),
told as (
  insert into event (ns, kind, was, nos, groups, channels, workgroups, attempts)
  select $1, 15, was, array_agg(no), array_agg(group_no), array_agg(channel), array_agg(workgroup), array_agg(attempt)
  from t where not $5::bool group by was)
select ref, state, sum(n)::int as n
from (
  select channel as ref, was as state, count(*) as n from t where $5::bool group by 1, 2
  union all select workgroup, was, count(*) from t where $5 and workgroup <> 0 group by 1, 2) c
group by ref, state
order by ref, state;

-- name: delete_groups
-- Groups whose tasks are gone, and whose fold is locked and of now. Counts by channel and workgroup are taken off the fold at once:
-- the one event of each group does not name its tasks.
-- $1 ns $2 group numbers; counts: $3 channels and workgroups $4 states $5 how many
with g as (delete from task_group where ns = $1 and group_no = any ($2::bigint[]) returning group_no, id),
named as (
  insert into gone (ns, kind, ref, id) select $1, 2, group_no, id from g
  on conflict do nothing),
tallied as (delete from group_tally where ns = $1 and group_no = any ($2) returning 1),
pauses as (delete from pause where ns = $1 and kind = 2 and ref = any ($2)),
counted as (
  insert into tally as t (ns, ref, state, n)
  select $1, ref, state, sum(-n) from unnest($3::int[], $4::int[], $5::int[]) as c(ref, state, n) group by ref, state
  order by ref, state
  on conflict (ns, ref, state) do update set n = t.n + excluded.n),
told as (
  insert into event (ns, kind, groups) select $1, 21, array_agg(group_no order by group_no) from g having count(*) > 0)
select count(*)::int as n from g;

-- name: recount
-- Blocked tasks, locked by a statement before this one: for how many parents each waits is counted afresh; those that wait for none
-- go on. $1 ns $2 numbers
with locked as materialized (
  select b.* from blocked b where b.ns = $1 and b.no = any ($2::bigint[]) order by b.no for update),
due as materialized (
  select l.*, l.run_at as due_at, (
    select count(*)::int from edge e
    where e.ns = $1 and e.child = l.no
      and not exists (select from done d where d.ns = $1 and d.no = e.parent and (d.outcome = 5 or l.policy = 2))
      and not (l.policy = 2 and exists (select from failed f where f.ns = $1 and f.no = e.parent))) as left_open
  from locked l),
counted as (
  update blocked b set open = d.left_open from due d
  where b.ns = $1 and b.no = d.no and d.left_open > 0 and d.left_open <> d.open),
freed as (delete from blocked b using due d where b.ns = $1 and b.no = d.no and d.left_open = 0),
later as (
  insert into scheduled (ns, run_at, no, channel, rank, workgroup, group_no, attempt, remaining, failures, key)
  select $1, due_at, no, channel, rank, workgroup, group_no, attempt, remaining, failures, key from due
  where left_open = 0 and due_at > now()),
soon as (
  insert into ready (ns, channel, rank, workgroup, no, group_no, attempt, remaining, failures, key)
  select $1, channel, rank, workgroup, no, group_no, attempt, remaining, failures, key from due
  where left_open = 0 and (due_at is null or due_at <= now())),
told as (
  insert into event (ns, kind, was, state, nos, groups, channels, workgroups, attempts)
  select $1, case when later then 2 else 3 end, 0, case when later then 1 else 2 end, array_agg(no),
    array_agg(group_no), array_agg(channel), array_agg(workgroup), array_agg(attempt)
  from (select *, coalesce(due_at > now(), false) as later from due where left_open = 0) x group by later)
select
  array_agg(channel) filter (where is_ready) as channels,
  array_agg(rank) filter (where is_ready) as ranks,
  array_agg(no) filter (where is_ready) as nos,
  array_agg(no) filter (where is_ready and key is not null) as merging,
  extract(epoch from min(due_at) filter (where not is_ready) - now())::float8 as due_in
from (select *, coalesce(due_at <= now(), true) as is_ready from due where left_open = 0) x;
