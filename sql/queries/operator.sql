-- Operators: channels that are delivered by HTTP POST, and which server delivers which.

-- name: webhook_key
select value from secret where name = 'webhook';

-- name: read_operators
-- In order of creation. $1 ns $2 ids or null $3 channels or null
select o.id, o.channel, c.name, o.url, o.headers, o.header_names, o.is_paused, o.max_running, o.timeout, o.created_at
from operator o
join channel c on c.ns = $1 and c.channel = o.channel
where o.ns = $1 and ($2::uuid[] is null or o.id = any ($2)) and ($3::int[] is null or o.channel = any ($3))
order by o.created_at, o.id;

-- name: create_operator
-- Nothing when the channel has another; a repeat is answered as the first. $1 ns $2 id $3 channel $4 url $5 headers $6 their names
-- $7 paused $8 at most so many at once $9 time-out
insert into operator as o (ns, id, channel, url, headers, header_names, is_paused, max_running, timeout)
values ($1, $2::uuid, $3::int, $4, $5, $6::text[], $7, $8::int, $9)
on conflict (ns, channel) do update set url = o.url where o.id = excluded.id
returning id;

-- name: update_operator
-- Null keeps what is there. $1 ns $2 id $3 url $4 whether the headers change $5 to these $6 with these names $7 paused
-- $8 at most so many at once $9 time-out
update operator set
  url = coalesce($3, url),
  headers = case when $4 then $5 else headers end,
  header_names = case when $4 then $6::text[] else header_names end,
  is_paused = coalesce($7, is_paused),
  max_running = coalesce($8::int, max_running),
  timeout = coalesce($9, timeout)
where ns = $1 and id = $2::uuid
returning id;

-- name: delete_operator
-- $1 ns $2 id
delete from operator where ns = $1 and id = $2::uuid returning id;

-- name: seal_headers_again
-- Under another key, unless they were changed meanwhile. $1 ns $2 id $3 as they were $4 as they are
update operator set headers = $4 where ns = $1 and id = $2::uuid and headers = $3 returning id;

-- name: take_deliveries
-- Of these channels, those that this server delivers for so long from now: they were its own, nobody's, or those of a server that has
-- not been heard of. $1 ns $2 server $3 channels $4 seconds
insert into delivery as d (ns, channel, server, until)
select $1, c, $2::uuid, now() + $4::float8 * interval '1 s' from unnest($3::int[]) as c order by c
on conflict (ns, channel) do update set server = excluded.server, until = excluded.until
where d.server = excluded.server or d.until < now()
returning channel;

-- name: leave_deliveries
-- All of this server's but these; what is left of channels that nobody delivers any more goes too. $1 ns $2 server $3 channels
delete from delivery
where ns = $1 and ((server = $2::uuid and channel <> all ($3::int[])) or until < now() - interval '1 day')
returning channel;

-- name: runs_of_worker
-- What a worker runs. $1 ns $2 worker
select l.lease_no, u.no
from lease l
cross join lateral unnest(l.nos) as u(no)
where l.ns = $1 and l.worker = $2::int and l.runner is null;
