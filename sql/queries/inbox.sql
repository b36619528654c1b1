-- The inbox: what applications asked for in transactions of their own (crew.create_tasks).

-- name: inbox_waits
-- $1 ns
select exists (select from inbox where ns = $1) as waits;

-- name: read_inbox
-- The oldest calls, locked until the transaction ends, with at most $3 tasks in all (or one call). In the order in which they were
-- made, for a later one may need what an earlier one makes: nothing behind one that another server has. skip locked for the same
-- reason: we come again. $1 ns $2 at most so many $3 tasks
with first as materialized (
  select seq from inbox where ns = $1 order by seq limit $2),
ours as materialized (
  select seq, call, size from inbox
  where ns = $1 and seq = any (array(select seq from first))
  order by seq for update skip locked)
select o.seq, o.call::text as call
from (select ours.*, sum(size) over (order by seq) - size as before from ours) o
where o.before < $3::int
  and o.seq < coalesce((select min(f.seq) from first f where f.seq not in (select seq from ours)), o.seq + 1)
order by o.seq;

-- name: end_inbox
-- These calls are done: made, or refused, which is told (in groups that are there, where they name one).
-- $1 ns $2 seqs made, of those refused: $3 seqs $4 codes $5 messages $6 paths
with gone as (
  delete from inbox where ns = $1 and seq = any ($2::bigint[] || $3::bigint[]) returning seq, call, at),
refused as (
  insert into inbox_refused (ns, seq, call, code, message, path, sent_at)
  select $1, g.seq, g.call, u.code, u.message, u.path, g.at
  from gone g join unnest($3, $4::text[], $5::text[], $6::text[]) as u(seq, code, message, path) using (seq)
  returning call),
told as (
  insert into event (ns, kind, groups)
  select $1, 22, case when t.group_no is null then '{}' else array[t.group_no] end
  from refused r
  left join task_group t on t.ns = $1 and t.id = coalesce(r.call ->> 'groupId', r.call ->> 'id')::uuid)
select count(*)::int as gone from gone;

-- name: forget_refused
-- $1 ns $2 at most so many $3 seconds after which nobody asks
with old as materialized (
  select seq from inbox_refused where ns = $1 and at < now() - $3::float8 * interval '1 s' order by at limit $2
  for update skip locked),
gone as (delete from inbox_refused r using old o where r.ns = $1 and r.seq = o.seq returning 1)
select count(*)::int as gone from gone;
