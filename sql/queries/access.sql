-- API keys. Each server reads them all every few seconds, and looks a secret up in what it has read.

-- name: api_keys
-- Those that are not revoked, oldest first; also those that have expired.
select k.id, k.name, k.hash, k.role, k.channels, n.name as namespace, k.created_at, k.expires_at,
  extract(epoch from k.expires_at - now())::float8 as expires_in, k.last_used_at
from api_key k left join namespace n on n.ns = k.ns
where k.revoked_at is null
order by k.created_at, k.id;

-- name: keys_mark
-- Another one whenever a key was made or revoked; empty as long as there has never been one.
select coalesce(md5(string_agg(id::text || coalesce(revoked_at::text, ''), ',' order by id)), '') as mark from api_key;

-- name: make_api_key
-- $1 id $2 number of its namespace or null $3 name $4 hash $5 role $6 channels or null $7 expires_at or null
insert into api_key (id, ns, name, hash, role, channels, expires_at) values ($1, $2, $3, $4, $5, $6, $7);

-- name: revoke_api_key
-- $1 id $2 only if it is bound to this namespace; null for whatever it is bound to
update api_key set revoked_at = now()
where id = $1 and revoked_at is null and ($2::text is null or ns = (select ns from namespace where name = $2))
returning id;

-- name: note_key_uses
-- Exact to a minute. $1 ids
update api_key k set last_used_at = now()
from (
  select id from api_key
  where id = any($1::uuid[]) and (last_used_at is null or last_used_at < now() - interval '1 minute')
  order by id
  for update skip locked
) due
where k.id = due.id;

-- name: channels_of_tasks
-- $1 ns $2 task numbers
select t.no, c.name as channel
from task t join channel c on c.ns = t.ns and c.channel = t.channel
where t.ns = $1 and t.no = any($2::bigint[])
order by t.no;
