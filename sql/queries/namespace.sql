-- name: namespace_by_name
-- $1 name
select ns from namespace where name = $1;

-- name: lease_key
select value from secret where name = 'lease';
