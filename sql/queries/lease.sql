-- What workers do with their leases: complete, fail, extend, release; and what happens to leases that nobody keeps.
-- Rows are always locked in this order: claim, lease (by number), runner (by key), blocked (by number), hold.
-- Lean, statements pass over leases that others have in hand: those are asked for again, apart and in full, which waits for them.

-- name: standing_leases
-- Tasks that stand under these lease numbers. $1 ns $2 lease nos
select l.lease_no, l.until, u.no, u.attempt
from lease l cross join lateral unnest(l.nos, l.attempts) as u(no, attempt)
where l.ns = $1 and l.lease_no = any ($2::bigint[])
order by l.lease_no, u.no;

-- name: free_leases
-- Tasks of these leases that nobody else has in hand; locked until the transaction ends. $1 ns $2 lease nos, sorted
with held as materialized (
  select lease_no, nos from lease where ns = $1 and lease_no = any ($2::bigint[]) order by lease_no, part for update skip locked)
select lease_no, unnest(nos) as no from held;

-- name: complete_tasks
-- Ends tasks and frees the children that waited for them alone. Items whose lease does not stand are not in `ords`;
-- `again` > 0: a child was hung under one of these meanwhile (see below), nothing was done for its lease: run again.
-- Items with keys are left out (lean, or $8 false) and named in `keyed` until their twins have been brought in (bring_twins).
-- Freed children with keys are named in `merging`: merge_ready is the next statement.
-- $1 ns $2 lease nos, sorted; items: $3 lease nos (the first stands for those that are missing) $4 numbers $5 outputs $6 delay
-- seconds for the children, or null
-- in full: $7 makes tasks: SUBTREE links from it count on until settle_children; $8 keyed items too
with held as materialized (
  select * from lease where ns = $1 and lease_no = any ($2::bigint[]) order by lease_no, part
  --lean{
  for update skip locked),
  --lean}
  --full{
  for update),
  --full}
-- Whoever hangs a child under a running task stamps its lease, and may have committed after our snapshot was taken: then
-- its edge is invisible to us, but the stamp is read from the locked, newest row.
fresh as materialized (
  select * from held where grown is null or pg_visible_in_snapshot(grown, pg_current_snapshot())),
-- In a part with a runner stand its twins, which end as it does.
item as materialized (
  select f.lease_no, f.part, f.worker, f.started_at, u.*, g.ord, g.output,
    --lean{
    g.ord is not null and u.key is null as taken,
    g.child_delay
    --lean}
    --full{
    g.ord is not null and ($8::bool or u.key is null) as taken,
    f.runner,
    f.runner is not null as is_twin,
    case when f.runner is null then g.child_delay end as child_delay,
    f.runner is null and g.makes as makes
    --full}
  from fresh f
  cross join lateral unnest(f.nos, f.groups, f.channels, f.workgroups, f.attempts, f.remainings, f.failures, f.keys)
    as u(no, group_no, channel, workgroup, attempt, remaining, failures, key)
  --lean{
  left join unnest($3::bigint[], $4::bigint[], $5::json[], $6::float8[]) with ordinality
    as g(lease_no, no, output, child_delay, ord) on coalesce(g.lease_no, ($3::bigint[])[1]) = f.lease_no and g.no = u.no),
  --lean}
  --full{
  left join unnest($3::bigint[], $4::bigint[], $5::json[], $6::float8[], $7::bool[]) with ordinality
    as g(lease_no, no, output, child_delay, makes, ord)
    on coalesce(g.lease_no, ($3::bigint[])[1]) = f.lease_no and g.no = coalesce(f.runner, u.no)),
  --full}
hit as materialized (select * from item where taken),
delta as materialized (
  select e.child,
    --lean{
    count(*)::int as n,
    --lean}
    --full{
    count(*) filter (where not (h.makes and e.subtree))::int as n,
    --full}
    now() + max(h.child_delay) * interval '1 s' as not_before
  -- `offset 0`: looked up one by one, whatever the planner believes of tables that nobody has analyzed yet.
  from hit h cross join lateral (select * from edge x where x.ns = $1 and x.parent = h.no offset 0) e
  group by e.child),
-- Children are locked in order and their newest `open` is read here; all that follows decides by it and finds its rows by
-- key alone. A condition on `open` in the update or delete would be tested on the old version and strand the child.
locked as materialized (
  select b.* from blocked b where b.ns = $1 and b.no = any (array(select child from delta)) order by b.no for update),
rest as materialized (
  select lease_no, part, array_agg(no) as nos, array_agg(group_no) as groups, array_agg(channel) as channels,
    array_agg(workgroup) as workgroups, array_agg(attempt) as attempts, array_agg(remaining) as remainings,
    array_agg(failures) as failures, array_agg(key) as keys
  from item where not taken group by lease_no, part),
emptied as (
  delete from lease l using fresh f
  where l.ns = $1 and l.lease_no = f.lease_no and l.part = f.part
    and not exists (select from rest r where r.lease_no = f.lease_no and r.part = f.part)),
trimmed as (
  update lease l
  set nos = r.nos, groups = r.groups, channels = r.channels, workgroups = r.workgroups, attempts = r.attempts,
    remainings = r.remainings, failures = r.failures, keys = r.keys
  from rest r
  where l.ns = $1 and l.lease_no = r.lease_no and l.part = r.part and cardinality(l.nos) > cardinality(r.nos)),
ended as (
  insert into done (ns, no, lease_no, outcome, attempt, remaining, worker, started_at, output
    --full{
    , merged_into
    --full}
    )
  select $1, no, lease_no, 5, attempt, remaining, worker, started_at, output
    --full{
    , runner
    --full}
  from hit),
due as materialized (
  select l.*, l.open - d.n as left_open, greatest(l.run_at, d.not_before) as due_at
  from locked l join delta d on d.child = l.no),
fewer as (
  update blocked b set open = d.left_open, run_at = d.due_at from due d
  where b.ns = $1 and b.no = d.no and d.left_open > 0),
freed as (
  delete from blocked b using due d where b.ns = $1 and b.no = d.no and d.left_open <= 0),
later as (
  insert into scheduled (ns, run_at, no, channel, rank, workgroup, group_no, attempt, remaining, failures, key)
  select $1, due_at, no, channel, rank, workgroup, group_no, attempt, remaining, failures, key from due
  where left_open <= 0 and due_at > now()),
soon as (
  insert into ready (ns, channel, rank, workgroup, no, group_no, attempt, remaining, failures, key)
  select $1, channel, rank, workgroup, no, group_no, attempt, remaining, failures, key from due
  where left_open <= 0 and (due_at is null or due_at <= now())),
--full{
-- What makes tasks, and the joins that adopt them.
feed as materialized (
  select h.no, e.child as join_no, true as counted from hit h join edge e on e.ns = $1 and e.parent = h.no
  where h.makes and e.subtree
  union
  select f.no, f.join_no, false from hit h join feeder f on f.ns = $1 and f.no = h.no where h.makes),
--full}
told as (
  insert into event (ns, kind, was, state, worker, nos, groups, channels, workgroups, attempts)
  select $1, 6,
    --lean{
    3,
    --lean}
    --full{
    case when is_twin then 4 else 3 end,
    --full}
    5, worker, array_agg(no), array_agg(group_no), array_agg(channel), array_agg(workgroup), array_agg(attempt)
  from hit group by worker
    --full{
    , is_twin
    --full}
  union all
  select $1, case when later then 2 else 3 end, 0, case when later then 1 else 2 end, null, array_agg(no),
    array_agg(group_no), array_agg(channel), array_agg(workgroup), array_agg(attempt)
  from (select *, coalesce(due_at > now(), false) as later from due where left_open <= 0) x group by later)
select
  freed.*,
  --lean{
  (select array_agg(ord::int order by ord) from hit) as ords,
  (select array_agg(group_no order by ord) from hit) as groups,
  (select array_agg(ord::int) from item where ord is not null and not taken) as keyed,
  (select count(*)::int from held) - (select count(*)::int from fresh) as again,
  null::bigint[] as joins,
  null::bigint[] as feeders,
  null::bigint[] as fed
  --lean}
  --full{
  (select array_agg(ord::int order by ord) from hit where not is_twin) as ords,
  (select array_agg(group_no order by ord) from hit where not is_twin) as groups,
  (select array_agg(ord::int) from item where not is_twin and ord is not null and not taken) as keyed,
  (select count(*)::int from held) - (select count(*)::int from fresh) as again,
  (select array_agg(join_no) from feed where counted and join_no in (select no from locked)) as joins,
  (select array_agg(no) from feed) as feeders,
  (select array_agg(join_no) from feed) as fed
  --full}
from (
  select
    array_agg(channel) filter (where is_ready) as channels,
    array_agg(rank) filter (where is_ready) as ranks,
    array_agg(no) filter (where is_ready) as nos,
    array_agg(no) filter (where is_ready and key is not null) as merging,
    extract(epoch from min(due_at) filter (where not is_ready) - now())::float8 as due_in
  from (select *, coalesce(due_at <= now(), true) as is_ready from due where left_open <= 0) x) freed;

-- name: fail_tasks
-- Ends attempts: back to wait for another, or FAILED. Items whose lease does not stand, or under one of whose tasks a child
-- was hung meanwhile, are not in the answer. Keyed ones are answered with state 0 and left alone ($10 false) until their
-- twins have been brought in, which then fail with them.
-- $1 ns $2 lease nos, sorted; items: $3 lease nos $4 numbers $5 errors $6 delay seconds, or null for the task's own
-- $7 workgroup delay seconds, or null $8 keep the attempt $9 discard; $10 keyed items too
with held as materialized (
  select * from lease where ns = $1 and lease_no = any ($2::bigint[]) order by lease_no, part for update),
fresh as materialized (
  select * from held where grown is null or pg_visible_in_snapshot(grown, pg_current_snapshot())),
item as materialized (
  select f.lease_no, f.part, f.worker, f.started_at, f.runner is not null as is_twin, u.*, g.ord, g.error, g.delay,
    g.workgroup_delay, g.keep, g.discard, g.ord is not null and ($10::bool or u.key is null) as taken
  from fresh f
  cross join lateral unnest(f.nos, f.groups, f.channels, f.workgroups, f.attempts, f.remainings, f.failures, f.keys)
    as u(no, group_no, channel, workgroup, attempt, remaining, failures, key)
  left join unnest($3::bigint[], $4::bigint[], $5::json[], $6::float8[], $7::float8[], $8::bool[], $9::bool[]) with ordinality
    as g(lease_no, no, error, delay, workgroup_delay, keep, discard, ord) on g.lease_no = f.lease_no and g.no = coalesce(f.runner, u.no)),
rest as materialized (
  select lease_no, part, array_agg(no) as nos, array_agg(group_no) as groups, array_agg(channel) as channels,
    array_agg(workgroup) as workgroups, array_agg(attempt) as attempts, array_agg(remaining) as remainings,
    array_agg(failures) as failures, array_agg(key) as keys
  from item where not taken group by lease_no, part),
emptied as (
  delete from lease l using fresh f
  where l.ns = $1 and l.lease_no = f.lease_no and l.part = f.part
    and not exists (select from rest r where r.lease_no = f.lease_no and r.part = f.part)),
trimmed as (
  update lease l
  set nos = r.nos, groups = r.groups, channels = r.channels, workgroups = r.workgroups, attempts = r.attempts,
    remainings = r.remainings, failures = r.failures, keys = r.keys
  from rest r
  where l.ns = $1 and l.lease_no = r.lease_no and l.part = r.part and cardinality(l.nos) > cardinality(r.nos)),
hit as materialized (
  select i.*, t.rank,
    i.remaining + i.keep::int as kept_remaining,
    i.failures + (not i.keep)::int as counted,
    i.discard or i.remaining + i.keep::int <= 0 as final,
    greatest(
      coalesce(i.delay, case when i.keep and i.workgroup_delay is not null then 0 else
        least(t.max_delay, t.retry_delay * power(t.backoff, least(i.failures, 100))) * (0.9 + 0.2 * random()) end),
      case when i.workgroup = 0 then i.workgroup_delay end) as wait
  from item i cross join lateral (select * from task x where x.ns = $1 and x.no = i.no offset 0) t
  where i.taken),
noted as (
  insert into error (ns, no, attempt, lease_no, worker, started_at, error)
  select $1, no, attempt, lease_no, worker, started_at, error from hit),
later as (
  insert into scheduled (ns, run_at, no, channel, rank, workgroup, group_no, attempt, remaining, failures,
    key)
  select $1, now() + wait * interval '1 s', no, channel, rank, workgroup, group_no, attempt, kept_remaining, counted,
    key
  from hit where not final and wait > 0),
soon as (
  insert into ready (ns, channel, rank, workgroup, no, group_no, attempt, remaining, failures, key)
  select $1, channel, rank, workgroup, no, group_no, attempt, kept_remaining, counted, key from hit
  where not final and wait <= 0),
over as (
  insert into failed (ns, no, channel, rank, workgroup, group_no, attempt, remaining, worker, started_at,
    key)
  select $1, no, channel, rank, workgroup, group_no, attempt, kept_remaining, worker, started_at, key from hit where final),
told as (
  insert into event (ns, kind, was, state, worker, until, nos, groups, channels, workgroups, attempts)
  select $1, case when final then 8 else 7 end, case when is_twin then 4 else 3 end,
    case when final then 6 when wait > 0 then 1 else 2 end, worker,
    case when not final then now() + min(wait) * interval '1 s' end,
    array_agg(no), array_agg(group_no), array_agg(channel), array_agg(workgroup), array_agg(attempt)
  from hit group by worker, is_twin, final, wait > 0)
select
  ord::int,
  is_twin,
  no,
  channel,
  rank,
  workgroup,
  workgroup_delay,
  case when final then 6 when wait > 0 then 1 else 2 end as state,
  wait as due_in
from hit
union all
select ord::int, is_twin, no, channel, 0, workgroup, null, 0, 0 from item where ord is not null and not taken;

-- name: release_leases
-- Gives tasks back untouched; the twins of keyed ones are freed after (free_twins). $1 ns $2 lease nos, sorted; items: $3 lease nos $4 numbers
with held as materialized (
  select * from lease where ns = $1 and lease_no = any ($2::bigint[]) order by lease_no, part
  --lean{
  for update skip locked),
  --lean}
  --full{
  for update),
  --full}
item as materialized (
  select f.lease_no, f.part, f.worker, u.*, g.ord
  from held f
  cross join lateral unnest(f.nos, f.groups, f.channels, f.workgroups, f.attempts, f.remainings, f.failures, f.keys)
    as u(no, group_no, channel, workgroup, attempt, remaining, failures, key)
  left join unnest($3::bigint[], $4::bigint[]) with ordinality as g(lease_no, no, ord)
    on g.lease_no = f.lease_no and g.no = u.no),
rest as materialized (
  select lease_no, part, array_agg(no) as nos, array_agg(group_no) as groups, array_agg(channel) as channels,
    array_agg(workgroup) as workgroups, array_agg(attempt) as attempts, array_agg(remaining) as remainings,
    array_agg(failures) as failures, array_agg(key) as keys
  from item where ord is null group by lease_no, part),
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
-- Locked: who held the lease before us may have changed the rank.
back as materialized (
  select i.*, t.rank from item i join task t on t.ns = $1 and t.no = i.no where i.ord is not null order by t.no for share of t),
soon as (
  insert into ready (ns, channel, rank, workgroup, no, group_no, attempt, remaining, failures, key)
  select $1, channel, rank, workgroup, no, group_no, attempt - 1, remaining + 1, failures, key from back),
told as (
  insert into event (ns, kind, was, state, worker, nos, groups, channels, workgroups, attempts)
  select $1, 12, 3, 2, worker, array_agg(no), array_agg(group_no), array_agg(channel), array_agg(workgroup),
    array_agg(attempt - 1)
  from back group by worker)
select ord::int, no, channel, rank, key is not null as keyed from back;

-- name: extend_leases
-- Never shortens, and never past the deadline; an offer is confirmed by it. Tasks of a lease that are not named stay behind in a part of their own, unextended.
-- $1 ns $2 lease nos, sorted; items: $3 lease nos $4 numbers $5 seconds
with held as materialized (
  select * from lease where ns = $1 and lease_no = any ($2::bigint[]) order by lease_no, part
  --lean{
  for update skip locked),
  --lean}
  --full{
  for update),
  --full}
item as materialized (
  select f.lease_no, f.part, u.*, g.ord
  from held f
  cross join lateral unnest(f.nos, f.groups, f.channels, f.workgroups, f.attempts, f.remainings, f.failures, f.keys)
    as u(no, group_no, channel, workgroup, attempt, remaining, failures, key)
  left join unnest($3::bigint[], $4::bigint[]) with ordinality as g(lease_no, no, ord)
    on g.lease_no = f.lease_no and g.no = u.no),
part as materialized (
  select lease_no, part, bool_or(ord is not null) as named, bool_or(ord is null) as other from item group by lease_no, part),
rest as materialized (
  select lease_no, part, array_agg(no) as nos, array_agg(group_no) as groups, array_agg(channel) as channels,
    array_agg(workgroup) as workgroups, array_agg(attempt) as attempts, array_agg(remaining) as remainings,
    array_agg(failures) as failures, array_agg(key) as keys
  from item join part using (lease_no, part)
  where ord is null and named group by lease_no, part),
whole as (
  update lease l set until = least(greatest(l.until, now() + $5::float8 * interval '1 s'), l.deadline), offer = null
  from part p
  where l.ns = $1 and l.lease_no = p.lease_no and l.part = p.part and p.named and not p.other
  returning l.until),
trimmed as (
  update lease l
  set nos = r.nos, groups = r.groups, channels = r.channels, workgroups = r.workgroups, attempts = r.attempts,
    remainings = r.remainings, failures = r.failures, keys = r.keys
  from rest r
  where l.ns = $1 and l.lease_no = r.lease_no and l.part = r.part),
split as (
  insert into lease (ns, lease_no, part, worker, until, started_at, deadline, grown, nos, groups, channels, workgroups,
    attempts, remainings, failures, keys)
  select $1, i.lease_no, nextval('lease_no'), h.worker,
    least(greatest(h.until, now() + $5::float8 * interval '1 s'), h.deadline), h.started_at, h.deadline, h.grown,
    array_agg(i.no), array_agg(i.group_no), array_agg(i.channel), array_agg(i.workgroup), array_agg(i.attempt),
    array_agg(i.remaining), array_agg(i.failures), array_agg(i.key)
  from item i join part p using (lease_no, part) join held h using (lease_no, part)
  where i.ord is not null and p.other
  group by i.lease_no, i.part, h.worker, h.until, h.started_at, h.deadline, h.grown
  returning until)
select
  (select array_agg(ord::int) from item where ord is not null) as ords,
  (select min(until) from (select until from whole union all select until from split) u) as until,
  (select array_agg(ord::int) from item where ord is not null and workgroup in (
    select o.workgroup from hold o where o.ns = $1 and o.until > now())) as suspended;

-- name: report_progress
-- $1 ns; items: $2 numbers $3 fractions $4 messages $5 workers' lease nos (an item whose lease does not stand is dropped)
with stands as materialized (
  select u.no, u.group_no, u.channel, u.workgroup, u.attempt, l.worker, g.fraction, g.message
  from lease l
  cross join lateral unnest(l.nos, l.groups, l.channels, l.workgroups, l.attempts)
    as u(no, group_no, channel, workgroup, attempt)
  join unnest($2::bigint[], $3::float8[], $4::text[], $5::bigint[]) as g(no, fraction, message, lease_no)
    on g.lease_no = l.lease_no and g.no = u.no
  where l.ns = $1 and l.lease_no = any ($5::bigint[])),
kept as (
  insert into progress as p (ns, no, fraction, message)
  select $1, no, fraction, message from stands order by no
  on conflict (ns, no) do update
  set fraction = coalesce(excluded.fraction, p.fraction), message = coalesce(excluded.message, p.message)),
told as (
  insert into event (ns, kind, was, state, worker, nos, groups, channels, workgroups, attempts, progress)
  select $1, 5, 3, 3, worker, array_agg(no), array_agg(group_no), array_agg(channel), array_agg(workgroup),
    array_agg(attempt), array_agg(fraction)
  from stands group by worker)
select count(*) as kept from stands;

-- name: ended_items
-- What became of items that a statement did not find: completed or failed under this very lease; cancelled since, or
-- deleted; or it stands all the same (an extension moved it to another part of its lease meanwhile): run again.
-- $1 ns $2 lease nos $3 numbers
select
  i.ord::int,
  coalesce(d.outcome = 5 and d.lease_no = i.lease_no, false) as completed,
  exists (select from error e where e.ns = $1 and e.no = i.no and e.lease_no = i.lease_no) as failed,
  t.no is null or coalesce(d.outcome = 7, false) as cancelled,
  exists (select from lease l where l.ns = $1 and l.lease_no = i.lease_no and l.nos @> array[i.no]) as stands
from unnest($2::bigint[], $3::bigint[]) with ordinality as i(lease_no, no, ord)
left join task t on t.ns = $1 and t.no = i.no
left join done d on d.ns = $1 and d.no = i.no;

-- name: standing_with
-- How a task stands with a worker that knows no leases: the lease it has on it, or whether the last thing it said of it was an error
-- (a lost lease and a time-out write one without a lease number). $1 ns $2 number $3 worker
select
  (select l.lease_no from lease l
   where l.ns = $1 and l.worker = $3::int and l.runner is null and l.nos @> array[$2::bigint]
   order by l.lease_no desc limit 1) as lease_no,
  coalesce((select e.lease_no is not null from error e
   where e.ns = $1 and e.no = $2 and e.worker = $3 order by e.seq desc limit 1), false) as failed;

-- name: workgroups_of
-- Of those tasks that have one. $1 ns $2 numbers
select no, workgroup from task where ns = $1 and no = any ($2::bigint[]) and workgroup <> 0;
