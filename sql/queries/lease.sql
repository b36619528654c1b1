-- What workers do: claim, complete, fail, extend, release; and what happens to leases that nobody keeps.
-- Rows are always locked in this order: claim, lease (by number), runner (by key), blocked (by number), hold.

-- name: best_places
-- Where the best tasks of many channels stand: a claim that locked as many in each as it may take would lock them by the thousand.
-- Nothing is locked here. First the same few of each; the worst of the best of those bounds what is then read of each.
-- $1 ns $2 channels; where to start in each: $3 ranks $4 numbers; $5 how many
with start as materialized (
  select * from unnest($2::int[], $3::int[], $4::bigint[]) as h(channel, rank, no)
  where channel not in (select p.ref from pause p where p.ns = $1 and p.kind = 3)),
free as materialized (select not exists (select from pause p where p.ns = $1 and p.kind < 3) as unpaused),
few as materialized (
  select h.channel, r.rank, r.no
  from start h
  cross join lateral (
    select x.rank, x.no from ready x
    where x.ns = $1 and x.channel = h.channel and (x.rank, x.no) > (h.rank, h.no)
      and not coalesce(x.workgroup = any (array(select o.workgroup from hold o where o.ns = $1 and o.until > now())), false)
      and (x.admitted or not coalesce(x.workgroup = any (array(select p.ref from cap p where p.ns = $1 and p.kind = 2)), false))
      and ((select unpaused from free) or not exists (
        select from pause p where p.ns = $1 and (p.kind, p.ref) in ((1, x.no), (2, x.group_no))))
    order by x.rank, x.no limit (select ceil($5::int / greatest(count(*), 1)::float8) from start)) r
  order by r.rank, r.no limit $5),
bound as materialized (
  select rank, no from few where (select count(*) from few) = $5 order by rank desc, no desc limit 1),
best as (
  select h.channel, r.rank, r.no
  from start h
  cross join lateral (
    select x.rank, x.no from ready x
    where x.ns = $1 and x.channel = h.channel and (x.rank, x.no) > (h.rank, h.no)
      and (x.rank, x.no) <= (coalesce((select rank from bound), 2147483647), coalesce((select no from bound), 9223372036854775807))
      and not coalesce(x.workgroup = any (array(select o.workgroup from hold o where o.ns = $1 and o.until > now())), false)
      and (x.admitted or not coalesce(x.workgroup = any (array(select p.ref from cap p where p.ns = $1 and p.kind = 2)), false))
      and ((select unpaused from free) or not exists (
        select from pause p where p.ns = $1 and (p.kind, p.ref) in ((1, x.no), (2, x.group_no))))
    order by x.rank, x.no limit $5) r
  where h.channel in (select channel from few)
  order by r.rank, r.no limit $5)
select channel, rank, no from best order by rank, no;

-- name: claim_tasks
-- For many workers of one set of channels at once; dealt round by round, so that a few tasks spread over many workers.
-- A request whose claim id is known gets nothing here: its answer stands in claimed_before. One row at least, for `again`.
-- Lean, it takes nothing when it meets a key or while anything is paused, and `again` is 1: run it in full; nor where there are
-- limits, and `again` is 2: run it in full after take_turn, in one transaction. In full, `again` is how many merged instead of
-- running, or -1 when limits were met without the turn; a key's other ready tasks are taken in by take_in, the next statement.
-- `opens_in`: seconds until a rate limit that is reached now lets a task through.
-- $1 ns $2 channels; where to start in each: $3 ranks $4 numbers; requests: $5 workers $6 limits $7 lease seconds
-- $8 claim ids or null $9 what was asked; $10 at most so many of each channel; $11 of the requests: null, or the lease is pushed, an
-- offer, and lasts for so many seconds once it is confirmed
--full{
-- $12 whether the turn was taken
--full}
with wanted as materialized (
  select w.*, nextval('lease_no') as lease_no
  from unnest($5::int[], $6::int[], $7::float8[], $8::uuid[], $9::text[], $11::float4[]) with ordinality
    as w(worker, n, seconds, claim_id, asked, offer, ord)
  where w.claim_id is null or not exists (select from claim c where c.ns = $1 and c.claim_id = w.claim_id)),
-- The delete finds its rows by ctid = any(array(…)): as a join, the planner may take more than the limit.
-- The limit is never null, which would be no limit: with every request known, nothing is taken.
-- The planner must not guess from its statistics how many rows a suspension leaves: where all tasks have the same workgroup it
-- guesses none, and reads and sorts the whole channel. `coalesce` keeps it from guessing.
-- Over several channels each is locked up to its limit and the best are taken; the others are free again at commit.
--full{
-- What limits leave, for whoever has the turn: nobody else can change it. Null, as good as no limit, where there is none.
clock as materialized (select clock_timestamp() as at),
running as materialized (
  select u.ref, count(*)::int as n
  from lease l cross join lateral (select unnest(l.channels) union all select unnest(l.workgroups)) as u(ref)
  where $12 and l.ns = $1 group by u.ref),
room as materialized (
  select p.kind, p.ref, least(p.max_running - coalesce(r.n, 0), p.starts - coalesce(s.n, 0)) as n,
    case when p.starts <= s.n then s.first + p.seconds * interval '1 s' end as opens_at
  from cap p
  left join running r on r.ref = p.ref
  left join lateral (
    select sum(x.n)::int as n, min(x.at) as first from start x, clock k
    where p.starts is not null and x.ns = $1 and x.workgroup = p.ref and x.at > k.at - p.seconds * interval '1 s') s on true
  where $12 and p.ns = $1 and (p.kind = 2 or (p.kind = 1 and p.ref = any ($2)))),
--full}
candidate as materialized (
  select r.*
  from unnest($2::int[], $3::int[], $4::bigint[], $10::int[]) as h(channel, rank, no, n)
  cross join lateral (
    select x.ctid as at, x.rank, x.no, x.key, x.channel, x.workgroup, x.admitted
    from ready x
    where x.ns = $1 and x.channel = h.channel and (x.rank, x.no) > (h.rank, h.no)
      and not coalesce(x.workgroup = any (array(select o.workgroup from hold o where o.ns = $1 and o.until > now())), false)
      and (x.admitted or not coalesce(x.workgroup = any (array(select p.ref from cap p where p.ns = $1 and p.kind = 2)), false))
      --full{
      and ((select not exists (select from pause p where p.ns = $1 and p.kind < 3)) or not exists (
        select from pause p where p.ns = $1 and (p.kind, p.ref) in ((1, x.no), (2, x.group_no))))
      and ($12 or not x.admitted)
      and not coalesce(x.workgroup = any (array(select m.ref from room m where m.kind = 2 and m.n <= 0)), false)
      --full}
    order by x.rank, x.no
    limit (select least(coalesce(sum(w.n), 0), h.n) from wanted w)
    for update skip locked) r
  --full{
  where h.channel not in (select p.ref from pause p where p.ns = $1 and p.kind = 3)
    and h.channel not in (select m.ref from room m where m.kind = 1 and m.n <= 0)
    and ($12 or h.channel not in (select p.ref from cap p where p.ns = $1 and p.kind = 1))
  --full}
  order by r.rank, r.no
  limit (select coalesce(sum(n), 0) from wanted)),
--lean{
refused as materialized (
  select case
    when exists (select from candidate where admitted)
      or exists (select from cap p where p.ns = $1 and p.kind = 1 and p.ref = any ($2)) then 2
    when exists (select from candidate where key is not null) or exists (select from pause p where p.ns = $1) then 1
    else 0 end as why),
--lean}
--full{
-- Of a channel or workgroup no more than there is room for, the best first.
fitting as materialized (
  select c.at
  from (
    select x.at, x.channel, x.workgroup, x.admitted,
      row_number() over (partition by x.channel order by x.rank, x.no) as of_channel,
      row_number() over (partition by x.workgroup order by x.rank, x.no) as of_workgroup
    from candidate x) c
  left join room n on n.kind = 1 and n.ref = c.channel
  left join room m on m.kind = 2 and m.ref = c.workgroup and c.admitted
  where (n.n is null or c.of_channel <= n.n) and (m.n is null or c.of_workgroup <= m.n)),
--full}
claimed as (
  delete from ready
  --lean{
  where ctid = any (array(select at from candidate)) and (select why from refused) = 0
  --lean}
  --full{
  where ctid = any (array(select at from fitting))
  --full}
  returning channel, rank, workgroup, no, group_no, attempt, remaining, failures, key, ready_at),
--full{
-- Of a key one task runs, and whoever comes second rides with it. The upsert locks the key, and answers with its newest row.
keyed as materialized (
  select *, row_number() over (partition by channel, key order by rank, no) as nth from claimed where key is not null),
lead as (
  insert into runner as r (ns, channel, key, no)
  select $1, channel, key, no from keyed where nth = 1 order by channel, key
  on conflict (ns, channel, key) do update set no = coalesce(r.no, excluded.no)
  returning channel, key, no),
twin as materialized (
  select k.*, l.no as into_no from keyed k join lead l using (channel, key) where l.no <> k.no),
ride as (
  insert into merged (ns, no, into_no, channel, rank, workgroup, group_no, attempt, remaining, failures, key, ready_at)
  select $1, no, into_no, channel, rank, workgroup, group_no, attempt, remaining, failures, key, ready_at from twin),
--full}
slot as materialized (
  select row_number() over (order by nth, ord) as turn, w.*
  from wanted w cross join lateral generate_series(1, w.n) as nth),
got as materialized (
  select
    c.attempt + 1 as attempt,
    c.remaining - 1 as remaining,
    c.failures,
    c.key is not null as merges,
    extract(epoch from now() - c.ready_at)::float4 as waited,
    s.lease_no,
    s.worker,
    s.claim_id,
    s.asked,
    s.offer,
    s.ord,
    now() + least(s.seconds, t.timeout) * interval '1 s' as until,
    t.*
  from (
    select *, row_number() over (order by rank, no) as turn from claimed
    --full{
    where no not in (select no from twin)
    --full}
    ) c
  join slot s using (turn)
  join task t on t.ns = $1 and t.no = c.no),
-- Tasks with a time-out stand in a part with those of the same one: a lease row has one deadline.
parted as materialized (
  select lease_no, coalesce(-(timeout * 1000)::bigint, 0) as part, worker, until, offer, now() + timeout * interval '1 s' as deadline,
    array_agg(no) as nos, array_agg(group_no) as groups, array_agg(channel) as channels, array_agg(workgroup) as workgroups,
    array_agg(attempt) as attempts, array_agg(remaining) as remainings, array_agg(failures) as failures,
    array_agg(case when merges then key end) as keys, array_agg(waited) as waits
  from got group by lease_no, worker, until, offer, timeout),
leased as (
  insert into lease (ns, lease_no, part, worker, until, offer, deadline, nos, groups, channels, workgroups, attempts, remainings,
    failures, keys)
  select $1, lease_no, part, worker, until, offer, deadline, nos, groups, channels, workgroups, attempts, remainings, failures, keys
  from parted),
taken as (
  insert into claim (ns, claim_id, lease_no, asked)
  select distinct $1, claim_id, lease_no, asked from got where claim_id is not null),
--full{
begun as (
  insert into start (ns, workgroup, at, n)
  select $1, g.workgroup, k.at, count(*)
  from got g cross join clock k
  where g.workgroup = any (array(select p.ref from cap p where p.ns = $1 and p.kind = 2 and p.starts is not null))
  group by g.workgroup, k.at),
--full}
told as (
  insert into event (ns, kind, was, state, worker, nos, groups, channels, workgroups, attempts, waits)
  select $1, 4, 2, 3, worker, nos, groups, channels, workgroups, attempts, waits from parted
  --full{
  union all
  select $1, 10, 2, 4, null, array_agg(no), array_agg(group_no), array_agg(channel), array_agg(workgroup), array_agg(attempt),
    null::float4[]
  from twin having count(*) > 0
  --full}
  )
select
  g.ord,
  g.lease_no,
  g.until,
  now() as started_at,
  g.attempt,
  g.remaining,
  g.channel as channel_no,
  c.name as channel,
  g.merges,
  g.no,
  g.id,
  g.group_no,
  g.rank,
  g.name,
  w.name as workgroup,
  g.key,
  g.input,
  g.metadata,
  g.run_after,
  g.max_attempts,
  g.retry_delay,
  g.backoff,
  g.max_delay,
  g.timeout,
  g.on_parent_failure,
  g.weight,
  g.is_seed,
  g.spawned_by,
  g.created_at,
  --lean{
  (select why from refused) as again,
  null::float8 as opens_in
  --lean}
  --full{
  case when $12 then (select count(*)::int from twin)
    when exists (select from cap p where p.ns = $1 and (p.kind = 2 or (p.kind = 1 and p.ref = any ($2)))) then -1
    else (select count(*)::int from twin) end as again,
  (select extract(epoch from min(m.opens_at) - k.at)::float8 from room m, clock k group by k.at) as opens_in
  --full}
from (select) as always
left join got g on true
left join channel c on c.ns = $1 and c.channel = g.channel
left join workgroup w on w.ns = $1 and w.workgroup = g.workgroup
order by g.ord, g.rank, g.no;

-- name: claimed_before
-- What claims with these ids took, and how they were asked. $1 ns $2 claim ids
select claim_id, lease_no, asked from claim where ns = $1 and claim_id = any ($2::uuid[]);

-- name: standing_leases
-- Tasks that stand under these lease numbers. $1 ns $2 lease nos
select l.lease_no, l.until, u.no, u.attempt
from lease l cross join lateral unnest(l.nos, l.attempts) as u(no, attempt)
where l.ns = $1 and l.lease_no = any ($2::bigint[])
order by l.lease_no, u.no;

-- name: complete_tasks
-- Ends tasks and frees the children that waited for them alone. Items whose lease does not stand are not in `ords`;
-- `again` > 0: a child was hung under one of these meanwhile (see below), nothing was done for its lease: run again.
-- Items with keys are left out (lean, or $8 false) and named in `keyed` until their twins have been brought in (bring_twins).
-- Freed children with keys are named in `merging`: merge_ready is the next statement.
-- $1 ns $2 lease nos, sorted; items: $3 lease nos $4 numbers $5 outputs $6 delay seconds for the children, or null
-- in full: $7 makes tasks: SUBTREE links from it count on until settle_children; $8 keyed items too
with held as materialized (
  select * from lease where ns = $1 and lease_no = any ($2::bigint[]) order by lease_no, part for update),
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
    as g(lease_no, no, output, child_delay, ord) on g.lease_no = f.lease_no and g.no = u.no),
  --lean}
  --full{
  left join unnest($3::bigint[], $4::bigint[], $5::json[], $6::float8[], $7::bool[]) with ordinality
    as g(lease_no, no, output, child_delay, makes, ord) on g.lease_no = f.lease_no and g.no = coalesce(f.runner, u.no)),
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
  from hit h join edge e on e.ns = $1 and e.parent = h.no
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
  from item i join task t on t.ns = $1 and t.no = i.no
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
  select * from lease where ns = $1 and lease_no = any ($2::bigint[]) order by lease_no, part for update),
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
  select * from lease where ns = $1 and lease_no = any ($2::bigint[]) order by lease_no, part for update),
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
