-- Claiming: what is ready goes to who asks, under a lease. The order of locks is that of lease.sql.

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
-- `opens_in`: seconds until a rate limit that is reached now lets a task through. `started_at` stands in one row only: reading an
-- instant takes as long as ten numbers.
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
  -- `offset 0`: looked up one by one. Hashed, all claims that are remembered would be read.
  where w.claim_id is null or not exists (select from claim c where c.ns = $1 and c.claim_id = w.claim_id offset 0)),
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
    turn,
    c.no,
    c.group_no,
    c.channel,
    c.workgroup,
    c.rank,
    c.attempt + 1 as attempt,
    c.remaining - 1 as remaining,
    c.failures,
    c.key,
    extract(epoch from now() - c.ready_at)::float4 as waited,
    s.lease_no,
    s.worker,
    s.claim_id,
    s.asked,
    s.offer,
    s.ord,
    least(s.seconds, t.timeout) as seconds,
    t.*
  from (
    select *, row_number() over (order by rank, no) as turn from claimed
    --full{
    where no not in (select no from twin)
    --full}
    ) c
  join slot s using (turn)
  -- One by one, too: of a table that nobody has analyzed yet the planner would read all.
  cross join lateral (
    select x.id, x.name, x.key as own_key, x.input, x.metadata, x.timeout, x.has_parents
    from task x where x.ns = $1 and x.no = c.no offset 0) t),
-- Tasks with a time-out stand in a part with those of the same one: a lease row has one deadline.
parted as materialized (
  select lease_no, coalesce(-(timeout * 1000)::bigint, 0) as part, worker, now() + seconds * interval '1 s' as until, offer,
    now() + timeout * interval '1 s' as deadline,
    array_agg(no) as nos, array_agg(group_no) as groups, array_agg(channel) as channels, array_agg(workgroup) as workgroups,
    array_agg(attempt) as attempts, array_agg(remaining) as remainings, array_agg(failures) as failures,
    array_agg(key) as keys, array_agg(waited) as waits
  from got group by lease_no, worker, seconds, offer, timeout),
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
  g.seconds,
  g.attempt,
  g.remaining,
  g.channel as channel_no,
  c.name as channel,
  g.key is not null as merges,
  g.no,
  g.id,
  g.group_no,
  g.rank,
  g.name,
  w.name as workgroup,
  g.own_key as key,
  g.input,
  g.metadata,
  g.timeout,
  g.has_parents,
  case when g.turn = 1 then now() end as started_at,
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
