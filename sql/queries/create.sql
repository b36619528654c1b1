-- Creating groups and tasks.

-- name: lock_parents
-- First statement of a transaction that hangs tasks under tasks that exist: no parent can end, begin again or go unseen before we
-- commit. Those that wait or have ended are locked for key share, which claims and loops skip; a running one's lease is stamped with
-- our transaction, which its completion reads. One found nowhere has just moved: run again. $1 ns $2 ids $3 or numbers
with t as materialized (
  select no, id, group_no, channel, rank from task where ns = $1 and (id = any ($2::uuid[]) or no = any ($3::bigint[]))),
-- Leases first, as completions lock them: every other place reads `held` before it locks.
held as materialized (
  select l.lease_no, l.part from lease l
  where l.ns = $1 and (l.lease_no, l.part) in (
    select x.lease_no, x.part from lease x cross join lateral unnest(x.nos) as u(no) join t using (no) where x.ns = $1)
  order by l.lease_no, l.part for update),
r as materialized (
  select x.no from ready x where x.ns = $1 and (x.channel, x.rank, x.no) in (select channel, rank, no from t)
  and (select count(*) from held) >= 0
  order by x.no for key share),
p as materialized (
  select x.no from parked x where x.ns = $1 and x.no in (select no from t) and (select count(*) from held) >= 0
  order by x.no for key share),
s as materialized (
  select x.no from scheduled x where x.ns = $1 and x.no in (select no from t) and (select count(*) from held) >= 0
  order by x.no for key share),
b as materialized (
  select x.no from blocked x where x.ns = $1 and x.no in (select no from t) and (select count(*) from held) >= 0
  order by x.no for key share),
m as materialized (
  select x.no from merged x where x.ns = $1 and x.no in (select no from t) and (select count(*) from held) >= 0
  order by x.no for key share),
f as materialized (
  select x.no from failed x where x.ns = $1 and x.no in (select no from t) and (select count(*) from held) >= 0
  order by x.no for key share),
d as materialized (
  select x.no, x.outcome from done x where x.ns = $1 and x.no in (select no from t) and (select count(*) from held) >= 0
  order by x.no for key share),
l as (
  update lease x set grown = pg_current_xact_id() from held h
  where x.ns = $1 and x.lease_no = h.lease_no and x.part = h.part
  returning x.nos)
select
  t.no,
  t.id,
  t.group_no,
  coalesce(
    (select case d.outcome when 5 then 'succeeded' else 'cancelled' end from d where d.no = t.no),
    case
      when t.no in (select no from f) then 'failed'
      when t.no in (select no from r union all select no from p union all select no from s union all select no from b
                    union all select no from m union all select unnest(nos) from l) then 'open'
      else 'moved'
    end) as place
from t;

-- name: lock_groups
-- So that they are not deleted before we commit. $1 ns $2 numbers
select group_no from task_group where ns = $1 and group_no = any ($2::bigint[]) order by group_no for key share;

-- name: create_tasks
-- New groups and tasks of many calls at once. An id that is there already raises unique_violation: nothing is made.
-- $1 ns
-- groups: $2 ids $3 names $4 metadata
-- tasks: $5 ids $6 place in $2 of a new group, or 0 $7 number of an existing group $8 channels $9 workgroups $10 ranks
--   $11 names $12 inputs $13 metadata $14 run_after $15 delay seconds $16 delay seconds from the parent $17 max attempts
--   $18 retry delay $19 backoff $20 max delay $21 weight $22 is seed $23 spawned by $24 parents that it still waits for
-- links: $25 place in $5 of a parent made here, or 0 $26 number of a parent that exists $27 place in $5 of the child
--   $28 place among the child's parents
-- in full, of tasks: $29 keys $30 on duplicate $31 time-outs $32 on parent failure; of links: $33 subtree $34 adopted
-- Of what is never null the first value stands for those that are missing.
-- Into a group that is gone, or locked by whoever deletes it, nothing is made, and nothing is answered: lock_groups waits.
with there as materialized (
  -- Locked, so that it is not deleted meanwhile. What goes on from a task is safe by the lease of that.
  select group_no from task_group
  where ns = $1 and group_no = any (array(
    select distinct coalesce(g.group_no, ($7::bigint[])[1])
    from unnest($5::uuid[], $7::bigint[], $23::bigint[]) as g(id, group_no, spawned_by)
    where g.spawned_by is null))
  order by group_no for key share skip locked),
new_group as materialized (
  select nextval('group_no') as group_no, u.*
  from unnest($2::uuid[], $3::text[], $4::json[]) with ordinality as u(id, name, metadata, ord)),
-- Groups are found by their places in an array: a join might change the order in which numbers are drawn.
given as materialized (
  select
    nextval('task_no') as no,
    u.id,
    coalesce(
      (select array_agg(group_no order by ord) from new_group)[coalesce(u.new_group, ($6::int[])[1])],
      u.old_group,
      ($7::bigint[])[1]) as group_no,
    coalesce(u.channel, ($8::int[])[1]) as channel,
    coalesce(u.workgroup, ($9::int[])[1]) as workgroup,
    coalesce(u.rank, ($10::int[])[1]) as rank,
    coalesce(u.name, ($11::text[])[1]) as name,
    u.input,
    u.metadata,
    coalesce(u.run_after, now() + u.delay * interval '1 s') as own_time,
    u.parent_delay,
    coalesce(u.max_attempts, ($17::int[])[1]) as max_attempts,
    coalesce(u.retry_delay, ($18::float8[])[1]) as retry_delay,
    coalesce(u.backoff, ($19::float8[])[1]) as backoff,
    coalesce(u.max_delay, ($20::float8[])[1]) as max_delay,
    coalesce(u.weight, ($21::int[])[1]) as weight,
    coalesce(u.is_seed, ($22::bool[])[1]) as is_seed,
    u.spawned_by,
    coalesce(u.open, ($24::int[])[1]) as open,
    --full{
    u.key,
    coalesce(u.on_duplicate, ($30::smallint[])[1]) as on_duplicate,
    u.timeout,
    coalesce(u.policy, ($32::smallint[])[1]) as policy,
    --full}
    u.ord
  from unnest($5::uuid[], $6::int[], $7::bigint[], $8::int[], $9::int[], $10::int[], $11::text[], $12::json[], $13::json[],
    $14::timestamptz[], $15::float8[], $16::float8[], $17::int[], $18::float8[], $19::float8[], $20::float8[], $21::int[],
    $22::bool[], $23::bigint[], $24::int[]
    --full{
    , $29::text[], $30::smallint[], $31::float8[], $32::smallint[]
    --full}
    ) with ordinality
    as u(id, new_group, old_group, channel, workgroup, rank, name, input, metadata, run_after, delay, parent_delay,
      max_attempts, retry_delay, backoff, max_delay, weight, is_seed, spawned_by, open,
      --full{
      key, on_duplicate, timeout, policy,
      --full}
      ord)
  where coalesce(u.new_group, ($6::int[])[1]) <> 0 or u.spawned_by is not null
    or coalesce(u.old_group, ($7::bigint[])[1]) in (select group_no from there)),
grouped as (
  insert into task_group (ns, group_no, id, name, metadata, made_upto)
  select $1, group_no, id, name, metadata, (select coalesce(max(no), 0) from given) from new_group
  returning group_no),
t as materialized (
  select
    no,
    group_no,
    channel,
    workgroup,
    rank,
    max_attempts,
    open,
    --full{
    case when on_duplicate <> 3 then key end as key,
    policy,
    --full}
    ord,
    greatest(own_time, now() + parent_delay * interval '1 s') as run_at
  from given),
made as (
  insert into task (ns, no, id, group_no, channel, workgroup, rank, name, input, metadata, run_after, max_attempts,
    retry_delay, backoff, max_delay, weight, is_seed, spawned_by, has_parents
    --full{
    , key, on_duplicate, timeout, on_parent_failure
    --full}
    )
  select $1, no, id, group_no, channel, workgroup, rank, name, input, metadata, own_time, max_attempts,
    retry_delay, backoff, max_delay, weight, is_seed, spawned_by, ord in (select unnest($27::int[]))
    --full{
    , key, on_duplicate, timeout, policy
    --full}
  from given),
linked as (
  insert into edge (ns, parent, child, place
    --full{
    , subtree, adopted
    --full}
    )
  select $1, coalesce(p.no, l.parent_no, ($26::bigint[])[1]), c.no, coalesce(l.place, ($28::int[])[1])
    --full{
    , coalesce(l.subtree, ($33::bool[])[1]), coalesce(l.adopted, ($34::bool[])[1])
    --full}
  from unnest($25::int[], $26::bigint[], $27::int[], $28::int[]
    --full{
    , $33::bool[], $34::bool[]
    --full}
    ) as l(parent, parent_no, child, place
    --full{
    , subtree, adopted
    --full}
    )
  join t c on c.ord = l.child
  left join t p on p.ord = coalesce(l.parent, ($25::int[])[1])),
hung as (
  insert into blocked (ns, no, open, run_at, channel, rank, workgroup, group_no, attempt, remaining, failures
    --full{
    , key, policy
    --full}
    )
  select $1, no, open, run_at, channel, rank, workgroup, group_no, 0, max_attempts, 0
    --full{
    , key, policy
    --full}
  from t where open > 0),
later as (
  insert into scheduled (ns, run_at, no, channel, rank, workgroup, group_no, attempt, remaining, failures
    --full{
    , key
    --full}
    )
  select $1, run_at, no, channel, rank, workgroup, group_no, 0, max_attempts, 0
    --full{
    , key
    --full}
  from t where open = 0 and run_at > now()),
soon as (
  insert into ready (ns, channel, rank, workgroup, no, group_no, attempt, remaining, failures
    --full{
    , key
    --full}
    )
  select $1, channel, rank, workgroup, no, group_no, 0, max_attempts, 0
    --full{
    , key
    --full}
  from t
  where open = 0 and (run_at is null or run_at <= now())),
told as (
  insert into event (ns, kind, state, nos, groups, channels, workgroups, attempts)
  select $1, 1, state, array_agg(no), array_agg(group_no), array_agg(channel), array_agg(workgroup), array_agg(0)
  from (select no, group_no, channel, workgroup,
      case when open > 0 then 0 when run_at > now() then 1 else 2 end as state from t) x
  group by state),
told_groups as (
  insert into event (ns, kind, groups)
  select $1, 18, array_agg(group_no) from grouped having count(*) > 0)
select
  ord,
  no,
  group_no,
  channel,
  rank,
  case when open > 0 then 0 when run_at > now() then 1 else 2 end as state,
  extract(epoch from run_at - now())::float8 as due_in
from t order by ord;

-- name: create_ready_tasks
-- What create_tasks makes of tasks of the default policy that wait for nothing and have no key, in two thirds of the time.
-- $1 ns $2 ids $3 numbers of groups that are there, or 0 $4 channels $5 workgroups $6 ranks $7 names $8 inputs $9 metadata
-- in full, with new groups: $10 place in $11 of a task's new group, or 0; of groups: $11 ids $12 names $13 metadata
-- Of $3 to $7 and $10 the first stands for those that are missing.
with there as materialized (
  select group_no from task_group where ns = $1 and group_no = any ($3::bigint[]) order by group_no for key share skip locked),
--full{
new_group as materialized (
  select nextval('group_no') as group_no, u.*
  from unnest($11::uuid[], $12::text[], $13::json[]) with ordinality as u(id, name, metadata, ord)),
--full}
t as materialized (
  select
    nextval('task_no') as no,
    u.id,
    coalesce(
      --full{
      (select array_agg(group_no order by ord) from new_group)[coalesce(u.new_group, ($10::int[])[1])],
      --full}
      u.old_group,
      ($3::bigint[])[1]) as group_no,
    coalesce(u.channel, ($4::int[])[1]) as channel,
    coalesce(u.workgroup, ($5::int[])[1]) as workgroup,
    coalesce(u.rank, ($6::int[])[1]) as rank,
    coalesce(u.name, ($7::text[])[1]) as name,
    u.input,
    u.metadata,
    u.ord
  from unnest($2::uuid[], $3::bigint[], $4::int[], $5::int[], $6::int[], $7::text[], $8::json[], $9::json[]
    --full{
    , $10::int[]
    --full}
    ) with ordinality as u(id, old_group, channel, workgroup, rank, name, input, metadata,
      --full{
      new_group,
      --full}
      ord)
  -- `is true`: a join might change the order in which numbers are drawn.
  where (coalesce(u.old_group, ($3::bigint[])[1]) in (select group_no from there)) is true
    --full{
    or coalesce(u.new_group, ($10::int[])[1]) <> 0
    --full}
  ),
--full{
grouped as (
  insert into task_group (ns, group_no, id, name, metadata, made_upto)
  select $1, group_no, id, name, metadata, (select coalesce(max(no), 0) from t) from new_group
  returning group_no),
--full}
made as (
  insert into task (ns, no, id, group_no, channel, workgroup, rank, name, input, metadata, max_attempts, retry_delay, backoff,
    max_delay, has_parents)
  select $1, no, id, group_no, channel, workgroup, rank, name, input, metadata, 5, 30, 1, 3600, false from t),
soon as (
  insert into ready (ns, channel, rank, workgroup, no, group_no, attempt, remaining, failures)
  select $1, channel, rank, workgroup, no, group_no, 0, 5, 0 from t),
told as (
  insert into event (ns, kind, state, nos, groups, channels, workgroups, attempts)
  select $1, 1, 2, array_agg(no), array_agg(group_no), array_agg(channel), array_agg(workgroup), array_agg(0)
  from t having count(*) > 0)
--full{
-- After `told`, and so told before it: the last insert that nothing reads from runs first.
, told_groups as (
  insert into event (ns, kind, groups)
  select $1, 18, array_agg(group_no) from grouped having count(*) > 0)
--full}
select array_agg(ord::int) as ords, array_agg(no) as nos, array_agg(group_no) as groups from t;

-- name: create_ready_task
-- create_ready_tasks for one task of a group that is there: three quarters of the time, which is all that one caller after another waits
-- for. $1 ns $2 id $3 group_no $4 channel $5 workgroup $6 rank $7 name $8 input $9 metadata
with there as materialized (select group_no from task_group where ns = $1 and group_no = $3 for key share skip locked),
made as (
  insert into task (ns, no, id, group_no, channel, workgroup, rank, name, input, metadata, max_attempts, retry_delay, backoff,
    max_delay, has_parents)
  select $1, nextval('task_no'), $2, group_no, $4, $5, $6, $7, $8, $9, 5, 30, 1, 3600, false from there
  returning no, group_no, channel, workgroup, rank),
soon as (
  insert into ready (ns, channel, rank, workgroup, no, group_no, attempt, remaining, failures)
  select $1, channel, rank, workgroup, no, group_no, 0, 5, 0 from made),
told as (
  insert into event (ns, kind, state, nos, groups, channels, workgroups, attempts)
  select $1, 1, 2, array[no], array[group_no], array[channel], array[workgroup], array[0] from made)
select no from made;

-- name: create_leased_task
-- create_ready_task for a task that a claim waits for: made and leased by one commit, it never stands in `ready`. Where the claim must
-- not have it (a pause, a limit, a suspension, a claim id that is known) it is made ready, and there is no lease_no. Nothing is made
-- where the group is gone or locked: whoever waits for the claim need not wait for a lock.
-- $1 ns $2 id $3 group_no $4 channel $5 workgroup $6 rank $7 name $8 input $9 metadata
-- the claim: $10 worker $11 lease seconds $12 claim id or null $13 what was asked $14 offer, as in claim_tasks
with there as materialized (select group_no from task_group where ns = $1 and group_no = $3 for key share skip locked),
made as (
  insert into task (ns, no, id, group_no, channel, workgroup, rank, name, input, metadata, max_attempts, retry_delay, backoff,
    max_delay, has_parents)
  select $1, nextval('task_no'), $2, group_no, $4, $5, $6, $7, $8, $9, 5, 30, 1, 3600, false from there
  returning no, group_no, channel, workgroup, rank),
free as materialized (
  select nextval('lease_no') as lease_no
  where not exists (select from pause p where p.ns = $1)
    and not exists (select from cap p where p.ns = $1 and ((p.kind = 1 and p.ref = $4) or (p.kind = 2 and p.ref = $5)))
    and not exists (select from hold o where o.ns = $1 and o.workgroup = $5 and o.until > now())
    and not exists (select from claim c where c.ns = $1 and c.claim_id = $12)),
soon as (
  insert into ready (ns, channel, rank, workgroup, no, group_no, attempt, remaining, failures)
  select $1, channel, rank, workgroup, no, group_no, 0, 5, 0 from made where not exists (select from free)),
leased as (
  insert into lease (ns, lease_no, worker, until, offer, nos, groups, channels, workgroups, attempts, remainings, failures, keys)
  select $1, lease_no, $10, now() + $11 * interval '1 s', $14, array[no], array[group_no], array[channel], array[workgroup],
    array[1], array[4], array[0], array[null::text]
  from made cross join free),
taken as (
  insert into claim (ns, claim_id, lease_no, asked)
  select $1, $12, lease_no, $13 from made cross join free where $12 is not null),
-- One insert, so that they are told in this order.
told as (
  insert into event (ns, kind, was, state, worker, nos, groups, channels, workgroups, attempts, waits)
  select $1, 1, null, 2, null, array[no], array[group_no], array[channel], array[workgroup], array[0], null from made
  union all
  select $1, 4, 2, 3, $10, array[no], array[group_no], array[channel], array[workgroup], array[1], array[0::float4]
  from made cross join free)
select no, lease_no, now() as started_at from made left join free on true;

-- name: groups_to_repeat
-- Groups that are there already, with the highest number their creating call drew. $1 ns $2 ids
select id, group_no, made_upto from task_group where ns = $1 and id = any ($2::uuid[]);

-- name: tasks_made_with_group
-- $1 ns $2 group_no $3 made_upto
select no, id from task where ns = $1 and group_no = $2 and no <= $3 order by no;

-- name: existing_tasks
-- $1 ns $2 ids
select no, id, group_no from task where ns = $1 and id = any ($2::uuid[]);
