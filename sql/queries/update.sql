-- Changing tasks and groups that are there. Rows are locked in the order of lease.sql.

-- name: lock_place
-- Where a task stands, locked: whoever ends or moves it waits. Ready and delayed ones are taken out of their place when $3 says so,
-- and stand nowhere until place_again. Nothing is answered of one that has just changed its place: run again. $1 ns $2 number
with t as materialized (select no, channel, rank from task where ns = $1 and no = $2::bigint),
held as materialized (
  select l.nos, l.attempts, l.remainings from lease l
  where l.ns = $1 and l.nos @> array[$2] order by l.lease_no, l.part for update),
ready_one as materialized (
  select x.* from ready x
  where x.ns = $1 and (x.channel, x.rank, x.no) in (select channel, rank, no from t) and (select count(*) from held) >= 0 for update),
parked_one as materialized (
  select x.* from parked x where x.ns = $1 and x.no = $2 and (select count(*) from held) >= 0 for update),
scheduled_one as materialized (
  select x.* from scheduled x where x.ns = $1 and x.no = $2 and (select count(*) from held) >= 0 for update),
blocked_one as materialized (
  select x.* from blocked x where x.ns = $1 and x.no = $2 and (select count(*) from held) >= 0 for update),
merged_one as materialized (
  select x.* from merged x where x.ns = $1 and x.no = $2 and (select count(*) from held) >= 0 for update),
failed_one as materialized (
  select x.* from failed x where x.ns = $1 and x.no = $2 and (select count(*) from held) >= 0 for update),
done_one as materialized (
  select x.* from done x where x.ns = $1 and x.no = $2 and (select count(*) from held) >= 0 for update),
from_ready as (
  delete from ready x using ready_one o
  where $3::bool and x.ns = $1 and x.channel = o.channel and x.rank = o.rank and x.no = o.no),
from_parked as (delete from parked x using parked_one o where $3 and x.ns = $1 and x.no = o.no),
from_scheduled as (delete from scheduled x using scheduled_one o where $3 and x.ns = $1 and x.no = o.no)
select 2 as state, attempt, remaining, failures, null::timestamptz as run_at, ready_at from ready_one
union all select 2, attempt, remaining, failures, null, ready_at from parked_one
union all select 1, attempt, remaining, failures, run_at, null from scheduled_one
union all select 0, attempt, remaining, failures, run_at, null from blocked_one
union all select 4, attempt, remaining, failures, null, ready_at from merged_one
union all select 6, attempt, remaining, 0, null, null from failed_one
union all select outcome, attempt, remaining, 0, null, null from done_one
union all
select 3, u.attempt, u.remaining, 0, null, null
from held cross join lateral unnest(held.nos, held.attempts, held.remainings) as u(no, attempt, remaining) where u.no = $2;

-- name: task_to_change
-- $1 ns $2 number
select t.group_no, t.channel, t.workgroup, t.rank, t.name, t.key, t.input, t.metadata, t.run_after, t.max_attempts, t.retry_delay,
  t.backoff, t.max_delay, t.timeout, t.weight, t.is_seed, t.on_duplicate, t.on_parent_failure
from task t where t.ns = $1 and t.no = $2::bigint for update;

-- name: change_task
-- Its row, where it stands unless it was taken out of there, and its counts: what it counts for moves with it. Other weights are
-- corrected in the group, whose fold is locked and is of now. $1 ns $2 number $3 its state
-- $4 name $5 channel $6 workgroup $7 rank $8 key $9 input $10 metadata $11 run_after $12 max attempts $13 retry delay $14 backoff
-- $15 max delay $16 time-out $17 weight $18 is seed $19 on parent failure $20 remaining attempts $21 when it may run, if it waits
with old as materialized (select * from task where ns = $1 and no = $2::bigint),
changed as (
  update task
  set name = $4, channel = $5, workgroup = $6, rank = $7, key = $8, input = $9, metadata = $10, run_after = $11,
    max_attempts = $12, retry_delay = $13, backoff = $14, max_delay = $15, timeout = $16, weight = $17, is_seed = $18,
    on_parent_failure = $19::smallint
  where ns = $1 and no = $2),
ticket as materialized (
  select case when on_duplicate <> 3 then $8::text end as key, key as old_key, channel as old_channel, workgroup as old_workgroup,
    weight as old_weight, group_no
  from old),
in_blocked as (
  update blocked x
  set channel = $5, rank = $7, workgroup = $6, key = t.key, policy = $19::smallint, remaining = $20, run_at = $21
  from ticket t where x.ns = $1 and x.no = $2),
in_merged as (update merged set rank = $7, remaining = $20 where ns = $1 and no = $2),
in_failed as (
  update failed x set channel = $5, rank = $7, workgroup = $6, key = t.key from ticket t where x.ns = $1 and x.no = $2),
-- Stamped, as by lock_parents: whoever waits for the lease to end this attempt reads its rank afresh.
in_lease as (
  update lease l
  set grown = pg_current_xact_id(), remainings = array(
    select case when u.no = $2 then $20::int else u.remaining end
    from unnest(l.nos, l.remainings) with ordinality as u(no, remaining, ord) order by u.ord)
  where $3::int = 3 and l.ns = $1 and l.nos @> array[$2]),
forgotten as (
  delete from keyed k using ticket t
  where (t.old_key is distinct from $8 or t.old_channel <> $5) and k.ns = $1 and k.channel = t.old_channel and k.key = t.old_key
    and k.no = $2),
remembered as (
  insert into keyed (ns, channel, key, no)
  select $1, $5, $8, $2 from ticket t
  where $8 is not null and $3 not in (5, 7) and (t.old_key is distinct from $8 or t.old_channel <> $5)
    and not exists (select from plucked x where x.ns = $1 and x.no = $2)
  on conflict do nothing),
counted as (
  insert into tally as x (ns, ref, state, n)
  select $1, ref, $3, sum(n)
  from (
    select t.old_channel as ref, -1 as n from ticket t where t.old_channel <> $5
    union all select $5, 1 from ticket t where t.old_channel <> $5
    union all select t.old_workgroup, -1 from ticket t where t.old_workgroup <> $6 and t.old_workgroup <> 0
    union all select $6, 1 from ticket t where t.old_workgroup <> $6 and $6 <> 0) c
  group by ref order by ref
  on conflict (ns, ref, state) do update set n = x.n + excluded.n),
weighed as (
  update group_tally g
  set weight = g.weight + $17 - t.old_weight,
    settled_weight = g.settled_weight + case when $3 in (5, 7) then $17 - t.old_weight else 0 end
  from ticket t where $17 <> t.old_weight and g.ns = $1 and g.group_no = t.group_no)
select count(*)::int as n from ticket;

-- name: place_again
-- A task that lock_place took out of its place stands as its row says: ready, or delayed; or blocked, when how many it waits for is
-- counted next (recount). $1 ns $2 number $3 its state before $4 attempt $5 remaining $6 failures $7 when it may run $8 ready since
-- $9 blocked
with t as materialized (
  select no, channel, rank, workgroup, group_no, on_parent_failure as policy, case when on_duplicate <> 3 then key end as key,
    case when $9::bool then 0 when $7::timestamptz > now() then 1 else 2 end as state
  from task where ns = $1 and no = $2::bigint),
hung as (
  insert into blocked (ns, no, open, run_at, channel, rank, workgroup, group_no, attempt, remaining, failures, key, policy)
  select $1, no, 1, $7, channel, rank, workgroup, group_no, $4, $5, $6, key, policy from t where state = 0),
later as (
  insert into scheduled (ns, run_at, no, channel, rank, workgroup, group_no, attempt, remaining, failures, key)
  select $1, $7, no, channel, rank, workgroup, group_no, $4, $5, $6, key from t where state = 1),
soon as (
  insert into ready (ns, channel, rank, workgroup, no, group_no, attempt, remaining, failures, key, ready_at)
  select $1, channel, rank, workgroup, no, group_no, $4, $5, $6, key, coalesce($8::timestamptz, now()) from t where state = 2),
told as (
  insert into event (ns, kind, was, state, until, nos, groups, channels, workgroups, attempts)
  select $1, 14, $3::smallint, state, case when state = 1 then $7 end, array[no], array[group_no], array[channel], array[workgroup],
    array[$4::int]
  from t)
select channel, rank, no, state, key is not null as merges, extract(epoch from $7 - now())::float8 as due_in from t;

-- name: tell_of_update
-- Of a task that stands where it stood. $1 ns $2 number $3 state $4 attempt
insert into event (ns, kind, was, state, nos, groups, channels, workgroups, attempts)
select $1, 14, $3::smallint, $3::smallint, array[no], array[group_no], array[channel], array[workgroup], array[$4::int]
from task where ns = $1 and no = $2::bigint;

-- name: change_group
-- $1 ns $2 id; what is to be changed and to what: $3 $4 the name $5 $6 the metadata
with changed as (
  update task_group
  set name = case when $3::bool then $4 else name end, metadata = case when $5::bool then $6::json else metadata end
  where ns = $1 and id = $2::uuid
  returning group_no),
told as (insert into event (ns, kind, groups) select $1, 19, array[group_no] from changed)
select group_no from changed;
