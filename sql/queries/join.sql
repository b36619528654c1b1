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
-- The parents that each of these tasks was told to wait for with all they spawn. $1 ns $2 numbers
select child as no, array_agg(parent) as roots from edge
where ns = $1 and child = any ($2::bigint[]) and subtree and not adopted
group by child;

-- name: waiting_for
-- Which of the tasks $3 are, or wait for, the tasks $2, down any links. $1 ns
with recursive d as (
  select n as root, n as no from unnest($2::bigint[]) as n
  union
  select d.root, e.child from d join edge e on e.ns = $1 and e.parent = d.no)
select root, no from d where no = any ($3::bigint[]);

-- name: adopt
-- Tasks just made become parents of joins that are blocked. $1 ns $2 parents $3 joins
with pair as materialized (select u.parent, u.child from unnest($2::bigint[], $3::bigint[]) as u(parent, child)),
linked as (
  insert into edge (ns, parent, child, place, subtree, adopted)
  select $1, parent, child, 2147483647, true, true from pair
  on conflict (ns, parent, child) do nothing
  returning child),
more as (select child, count(*)::int as n from linked group by child)
update blocked b set open = b.open + m.n from more m where b.ns = $1 and b.no = m.child
returning b.no;
