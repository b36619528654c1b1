-- SUBTREE links: the join of a tree that is still growing.

-- name: subtree_members
-- All that these tasks have spawned so far, to any depth. $1 ns $2 numbers
with recursive m as (
  select t.spawned_by as root, t.no from task t where t.ns = $1 and t.spawned_by = any ($2::bigint[])
  union
  select m.root, t.no from m join task t on t.ns = $1 and t.spawned_by = m.no)
select
  m.root,
  m.no,
  t.id,
  exists (select from edge e where e.ns = $1 and e.parent = m.root and e.child = m.no and e.subtree and not e.adopted) as joins
from m join task t on t.ns = $1 and t.no = m.no
order by m.root, m.no;

-- name: joins
-- Of the parents that each of these tasks was told to wait for with all they spawn, those that the task $3 is, or is spawned
-- from at any depth. $1 ns $2 numbers
with recursive above as (
  select $3::bigint as no
  union
  select t.spawned_by from above a join task t on t.ns = $1 and t.no = a.no where t.spawned_by is not null)
select child as no, array_agg(parent) as roots from edge
where ns = $1 and child = any ($2::bigint[]) and subtree and not adopted and parent in (select no from above)
group by child;

-- name: waiting_for
-- Which of the tasks $3 are, or wait for, the tasks $2, down any links. $1 ns
with recursive d as (
  select n as root, n as no from unnest($2::bigint[]) as n
  union
  select d.root, e.child from d join edge e on e.ns = $1 and e.parent = d.no)
select root, no from d where no = any ($3::bigint[]);

-- name: adopt
-- Tasks just made become parents of joins that have not started, which are blocked (again). `moved` is true of one that changed its
-- place meanwhile: run again for it. $1 ns $2 parents $3 joins
with pair as materialized (select u.parent, u.child from unnest($2::bigint[], $3::bigint[]) as u(parent, child)),
t as materialized (select no, channel, rank from task where ns = $1 and no = any ($3::bigint[])),
b as materialized (
  select b.no, b.open from blocked b where b.ns = $1 and b.no in (select no from t) order by b.no for update),
from_ready as (
  delete from ready x using t
  where x.ns = $1 and x.channel = t.channel and x.rank = t.rank and x.no = t.no and x.attempt = 0
    and (select count(*) from b) >= 0
  returning x.no, null::timestamptz as run_at, x.channel, x.rank, x.workgroup, x.group_no, x.remaining, x.failures, x.key),
from_parked as (
  delete from parked x using t where x.ns = $1 and x.no = t.no and x.attempt = 0 and (select count(*) from b) >= 0
  returning x.no, null::timestamptz as run_at, x.channel, x.rank, x.workgroup, x.group_no, x.remaining, x.failures, x.key),
from_scheduled as (
  delete from scheduled x using t where x.ns = $1 and x.no = t.no and x.attempt = 0 and (select count(*) from b) >= 0
  returning x.no, x.run_at, x.channel, x.rank, x.workgroup, x.group_no, x.remaining, x.failures, x.key),
back as materialized (
  select *, 2 as was from from_ready
  union all select *, 2 from from_parked
  union all select *, 1 from from_scheduled),
linked as (
  insert into edge (ns, parent, child, place, subtree, adopted)
  select $1, parent, child, 2147483647, true, true from pair
  where child in (select no from b union all select no from back)
  returning child),
more as materialized (select child, count(*)::int as n from linked group by child),
counted as (
  update blocked x set open = b.open + m.n from b join more m on m.child = b.no where x.ns = $1 and x.no = b.no),
again as (
  insert into blocked (ns, no, open, run_at, channel, rank, workgroup, group_no, attempt, remaining, failures, key, policy)
  select $1, k.no, m.n, k.run_at, k.channel, k.rank, k.workgroup, k.group_no, 0, k.remaining, k.failures, k.key,
    (select x.on_parent_failure from task x where x.ns = $1 and x.no = k.no)
  from back k join more m on m.child = k.no),
told as (
  insert into event (ns, kind, was, state, nos, groups, channels, workgroups, attempts)
  select $1, 14, was, 0, array_agg(no), array_agg(group_no), array_agg(channel), array_agg(workgroup), array_agg(0)
  from back group by was)
select child as join_no, false as moved from more
union all
select no, true from t
where no not in (select child from more) and (
  exists (select from blocked x where x.ns = $1 and x.no = t.no)
  or exists (select from ready x where x.ns = $1 and x.channel = t.channel and x.rank = t.rank and x.no = t.no and x.attempt = 0)
  or exists (select from parked x where x.ns = $1 and x.no = t.no and x.attempt = 0)
  or exists (select from scheduled x where x.ns = $1 and x.no = t.no and x.attempt = 0));

-- name: subtree_links
-- What these tasks were told to wait for with all it spawns. $1 ns $2 numbers
select child as join_no, parent as root from edge
where ns = $1 and child = any ($2::bigint[]) and subtree and not adopted order by child, place;

-- name: link_adopted
-- Joins that stand nowhere get more parents. $1 ns $2 parents $3 joins
insert into edge (ns, parent, child, place, subtree, adopted)
select $1, parent, child, 2147483647, true, true from unnest($2::bigint[], $3::bigint[]) as u(parent, child)
on conflict do nothing;

-- name: feed
-- What these tasks spawn is adopted by these joins, though they are not their parents. $1 ns $2 numbers $3 joins
insert into feeder (ns, no, join_no) select $1, * from unnest($2::bigint[], $3::bigint[]) as u(no, join_no)
on conflict do nothing;
