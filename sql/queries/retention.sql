-- What is forgotten when it is old: groups, and settled tasks of groups that go on. Each batch is a transaction of its own.

-- name: expired_groups
-- Those that the fold calls finished so long ago, longest ago first. $1 ns $2 seconds $3 without these $4 at most so many
select group_no, total
from group_tally
where ns = $1 and finished_at < now() - $2::float8 * interval '1 s' and group_no <> all ($3::bigint[])
order by finished_at, group_no limit $4;

-- name: stale_groups
-- Those made so long ago that the fold does not call finished, oldest first. Groups have nearly the order of their numbers: the first
-- younger by a margin ends the walk. $1 ns $2 seconds $3 after this one $4 at most so many
select g.group_no, coalesce(t.total, 0) as total
from task_group g left join group_tally t on t.ns = $1 and t.group_no = g.group_no
where g.ns = $1 and g.group_no > $3 and t.finished_at is null and g.created_at < now() - $2::float8 * interval '1 s'
order by g.group_no limit $4;

-- name: lock_groups
-- Nobody makes tasks in them from now on. Skip locked: whoever makes or deletes some just now wins, and we come again. $1 ns $2 numbers
select group_no from task_group where ns = $1 and group_no = any ($2::bigint[]) order by group_no for update skip locked;

-- name: lock_settled_of
-- Of groups that are locked: all that has been settled is locked too, so that it is not reset; which of them have nothing else, and
-- how long ago the last of it was. Skip locked: who has it will reset or delete it, and then it is not settled.
-- $1 ns $2 group numbers $3 seconds
with t as materialized (select no, group_no from task where ns = $1 and group_no = any ($2::bigint[])),
d as materialized (
  select x.no, x.at from done x
  where x.ns = $1 and x.no = any (array(select no from t)) order by x.no for update skip locked)
select
  t.group_no,
  count(*) = count(d.no) as is_settled,
  coalesce(max(d.at) < now() - $3::float8 * interval '1 s', false) as is_old
from t left join d using (no)
group by t.group_no
order by t.group_no;

-- name: running_groups
-- Which of these have tasks that run, or ride with one that does, as far as one sees without locks. $1 ns $2 group numbers
select distinct u.group_no
from lease l cross join lateral unnest(l.groups) as u(group_no)
where l.ns = $1 and u.group_no = any ($2::bigint[])
union
select m.group_no from merged m where m.ns = $1 and m.group_no = any ($2)
order by group_no;

-- name: old_settled
-- The next that were settled so long ago, in order; `may_go` are those of groups that are not finished, but seeds.
-- $1 ns $2 seconds; after: $3 when $4 number; $5 at most so many
with d as materialized (
  select x.at, x.no from done x
  where x.ns = $1 and (x.at, x.no) > ($3::timestamptz, $4::bigint) and x.at < now() - $2::float8 * interval '1 s'
  order by x.at, x.no limit $5)
select d.at, d.no, not t.is_seed and g.finished_at is null as may_go
from d
join task t on t.ns = $1 and t.no = d.no
left join group_tally g on g.ns = $1 and g.group_no = t.group_no
order by d.at, d.no;

-- name: lock_settled
-- They are not reset, and nothing is hung below them, until the transaction ends. Skip locked: who has one will do something with it.
-- $1 ns $2 numbers $3 seconds
select no from done
where ns = $1 and no = any ($2::bigint[]) and at < now() - $3::float8 * interval '1 s' order by no for update skip locked;

-- name: needless
-- Of settled tasks that are locked, those that nobody asks for any more: nothing unsettled waits for them or reads what they produced,
-- and none of them lies between a spawner that stays and what was spawned below it, where a later SUBTREE link looks for that.
-- $1 ns $2 numbers
with recursive c as materialized (
  select t.no, t.spawned_by
  from task t
  where t.ns = $1 and t.no = any ($2::bigint[])
    and not exists (
      select from edge e
      where e.ns = $1 and e.parent = t.no and not exists (select from done d where d.ns = $1 and d.no = e.child))),
going as (
  select c.no from c
  where not exists (select from task s where s.ns = $1 and s.no = c.spawned_by)
    or not exists (select from task s where s.ns = $1 and s.spawned_by = c.no)
  union
  select c.no from going g join c on c.spawned_by = g.no)
select no from going order by no;
