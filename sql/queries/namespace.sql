-- name: namespace_by_name
-- $1 name
select ns from namespace where name = $1;

-- name: namespaces
select name from namespace order by ns;

-- name: make_namespace
-- With where its folds and its log begin. Nothing where another call makes one at the same time: try again. $1 name
with made as (
  insert into namespace (ns, name, log_system)
  select max(ns) + 1, $1, (select system_identifier from pg_control_system()) from namespace
  on conflict do nothing
  returning ns),
folds as (insert into fold (ns, upto) select ns, pg_current_snapshot() from made),
group_folds as (insert into group_fold (ns, upto) select ns, pg_current_snapshot() from made),
ticks as (insert into tick (ns, tick, snapshot) select ns, 1, pg_current_snapshot() from made)
select ns from made;

-- name: lease_key
select value from secret where name = 'lease';
