-- The servers on this database, and the hints between them.

-- name: announce
-- This server is there; how many others have been heard of lately; and keys_mark, which is asked for so often. $1 ns $2 id $3 name
-- $4 version $5 seconds of silence after which one is taken for gone $6 whether this one follows the event log
with mine as (
  insert into server (ns, id, name, version, reads) values ($1, $2, $3, $4, $6)
  on conflict (ns, id) do update set seen_at = now(), reads = excluded.reads),
gone as (delete from server where ns = $1 and id <> $2 and seen_at < now() - interval '1 hour')
select count(*)::int as count, coalesce(bool_or(reads), false) as read,
  (select coalesce(md5(string_agg(id::text || coalesce(revoked_at::text, ''), ',' order by id)), '') from api_key) as keys
from server where ns = $1 and id <> $2 and seen_at > now() - $5::float8 * interval '1 s';

-- name: withdraw
-- $1 ns $2 id
delete from server where ns = $1 and id = $2;

-- name: hint
-- Reaches every listener of the channel. Never in a transaction that writes: NOTIFY takes a lock at commit that all share.
-- $1 channel $2 at most 7999 bytes
select pg_notify($1, $2);
