-- Deleting, beginning again, changing.

-- What a join that is deleted has left.
create index feeder_of_join on feeder (ns, join_no);

-- Tasks that run or have failed though a parent of theirs begins again: they may end, but do not start anew before it has succeeded.
create table ahead (
  ns int not null,
  no bigint not null,
  primary key (ns, no)
);

-- Of a task that was plucked: at place 0 the one that it is a copy of, from 1 on what the parents of that had produced then.
create table plucked (
  ns int not null,
  no bigint not null,
  place int not null,
  id uuid not null,
  name text not null,
  channel text not null,
  state smallint not null,
  input json,
  output json,
  primary key (ns, no, place)
);

-- As before (0003), but without what the asking transaction has written itself: one that folds and goes on has all of its own events
-- folded later (fold_groups).
create or replace view group_tail as
select
  i.ns,
  i.group_no,
  coalesce(sum(case when was is null then n when state is null then -n end), 0)::int as total,
  coalesce(sum(case
    when state not in (5, 7) and (was is null or was in (5, 7)) then n
    when was not in (5, 7) and (state is null or state in (5, 7)) then -n end), 0)::int as unsettled,
  coalesce(sum(case 6 when state then n when was then -n end), 0)::int as failing,
  array[
    coalesce(sum(case 0 when state then n when was then -n end), 0),
    coalesce(sum(case 1 when state then n when was then -n end), 0),
    coalesce(sum(case 2 when state then n when was then -n end), 0),
    coalesce(sum(case 3 when state then n when was then -n end), 0),
    coalesce(sum(case 4 when state then n when was then -n end), 0),
    coalesce(sum(case 5 when state then n when was then -n end), 0),
    coalesce(sum(case 6 when state then n when was then -n end), 0),
    coalesce(sum(case 7 when state then n when was then -n end), 0)]::int[] as counts,
  coalesce(sum(case when was is null then n + more when state is null then -n end), 0)::bigint as weight,
  coalesce(sum(case
    when state in (5, 7) and (was is null or was not in (5, 7)) then n + more
    when was in (5, 7) and (state is null or state not in (5, 7)) then -n - more end), 0)::bigint as settled_weight,
  max(i.at) filter (where state in (5, 7)) as settled_at
from (
  select e.ns, u.group_no, e.was, e.state, count(u.no) as n, max(e.at) as at,
    coalesce(sum((
      select t.weight - 1 from task t where t.ns = e.ns and t.no = u.no and t.weight <> 1))
      filter (where e.was is null or (e.was in (5, 7)) <> (e.state in (5, 7))), 0) as more
  from group_fold f
  join event e on e.ns = f.ns and e.xid >= pg_snapshot_xmin(f.upto) and not pg_visible_in_snapshot(e.xid, f.upto)
  cross join lateral unnest(e.nos, e.groups) as u(no, group_no)
  -- 18: a group is made. It has no tasks yet, and a row from then on.
  where (e.kind = 18 or (e.state is distinct from e.was and cardinality(e.nos) > 0))
    and e.xid is distinct from pg_current_xact_id_if_assigned()
  group by e.ns, u.group_no, e.was, e.state) i
group by i.ns, i.group_no;
