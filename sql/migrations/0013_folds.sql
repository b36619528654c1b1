-- Folding events asks of each task that comes or ends whether it weighs more or less than others: of the few that do, here.
create index task_weighed on task (ns, no) include (weight) where weight <> 1;

-- As before (0009), but each event is summed up by itself, so that tens of thousands of rows are never sorted.
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
  select e.ns, x.group_no, e.was, e.state, x.n, e.at, x.more
  from group_fold f
  join event e on e.ns = f.ns and e.xid >= pg_snapshot_xmin(f.upto) and not pg_visible_in_snapshot(e.xid, f.upto)
  cross join lateral (
    select u.group_no, count(u.no) as n,
      coalesce(sum((
        select t.weight - 1 from task t where t.ns = e.ns and t.no = u.no and t.weight <> 1))
        filter (where e.was is null or (e.was in (5, 7)) <> (e.state in (5, 7))), 0) as more
    from unnest(e.nos, e.groups) as u(no, group_no)
    group by u.group_no) x
  -- 18: a group is made. It has no tasks yet, and a row from then on.
  where (e.kind = 18 or (e.state is distinct from e.was and cardinality(e.nos) > 0))
    and e.xid is distinct from pg_current_xact_id_if_assigned()) i
group by i.ns, i.group_no;
