-- Vacuuming hot tables ourselves: autovacuum comes once a minute at most, and a queue turns its rows over in seconds.

-- name: dead_rows
-- Which of these tables have so many dead rows. $1 tables $2 so many
select relname::text as name from pg_stat_user_tables
where relid = any (array(select to_regclass(t) from unnest($1::text[]) as t)) and n_dead_tup >= $2::bigint
order by n_dead_tup desc;

-- name: never_analyzed
-- Tables with so many rows of which the planner knows nothing yet, but for those whose rows come and go: analyzed while they happen to
-- be empty they would be taken for empty when they are full, and read whole for each row of others. $1 those tables $2 so many
select quote_ident(relname) as name from pg_stat_user_tables
where schemaname = 'public' and relname <> all ($1::text[]) and n_live_tup >= $2::bigint
  and last_analyze is null and last_autoanalyze is null
order by relname;

-- name: seem_empty
-- Which of these tables the planner takes for empty, by a vacuum that came while they were, though their files are not: it would read
-- them whole for each row of others once they are full again. None before PostgreSQL 18, which is the first that can be told. $1 tables
select relname::text as name, relpages as pages from pg_class
where oid = any (array(select to_regclass(t) from unnest($1::text[]) as t)) and relpages > 0 and reltuples < relpages
  and current_setting('server_version_num')::int >= 180000
order by relname;

-- name: tell_planner
-- Lets the planner believe that a table is as full as its file may be (PostgreSQL 18). $1 table $2 pages $3 rows
select pg_restore_relation_stats('schemaname', 'public', 'relname', $1::text, 'relpages', $2::int, 'reltuples', $3::real) as done;

-- name: try_to_be_the_one
-- For as long as the connection stands. $1 lock
select pg_try_advisory_lock($1::bigint) as is_ours;
