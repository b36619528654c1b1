-- Copies of tasks, to be run again and again while debugging.

-- name: keep_results
-- Of a copy that this transaction has made: what it is a copy of, and what the parents of that have produced so far; and nobody finds
-- it by its key. Nothing is answered when the task is gone. $1 ns $2 number of the copy $3 of the task
with original as materialized (
  select t.id, t.name, c.name as channel, p.state
  from task t
  join task_place p on p.ns = $1 and p.no = t.no
  join channel c on c.ns = $1 and c.channel = t.channel
  where t.ns = $1 and t.no = $3::bigint),
kept as (
  insert into plucked (ns, no, place, id, name, channel, state, input, output)
  select $1, $2::bigint, 0, id, name, channel, state, null, null from original
  union all
  select $1, $2, row_number() over (order by e.place, e.parent), t.id, t.name, c.name, p.state, t.input, p.output
  from edge e
  join task t on t.ns = $1 and t.no = e.parent
  join task_place p on p.ns = $1 and p.no = e.parent
  join channel c on c.ns = $1 and c.channel = t.channel
  where e.ns = $1 and e.child = $3
  union all
  select $1, $2, place, id, name, channel, state, input, output from plucked where ns = $1 and no = $3 and place > 0),
-- It was made without links.
shown as (update task set has_parents = true where ns = $1 and no = $2),
unknown as (
  delete from keyed k using task t
  where t.ns = $1 and t.no = $2 and k.ns = $1 and k.channel = t.channel and k.key = t.key and k.no = t.no)
select id from original;
