-- Reading tasks, and what people do to them.

-- name: read_tasks
-- Whole rows, by number or by id. $1 ns $2 numbers $3 ids
select
  no,
  id,
  group_no,
  group_id,
  name,
  channel,
  workgroup,
  key,
  state,
  priority,
  input,
  output,
  metadata,
  run_after,
  not_before,
  holds,
  attempt,
  remaining,
  max_attempts,
  retry_delay,
  backoff,
  max_delay,
  timeout,
  on_parent_failure,
  weight,
  is_seed,
  progress,
  progress_message,
  spawned_by,
  merged_into,
  worker_id,
  lease_expires_at,
  created_at,
  ready_at,
  started_at,
  finished_at
from task_now
where ns = $1 and (no = any ($2::bigint[]) or id = any ($3::uuid[]));

-- name: page_by_created_asc
-- A page of numbers, oldest first. $1 ns $2 states $3 channels $4 workgroups $5 group id $6 worker $7 part of the name
-- $8 created after $9 created before $10 key; after: $11 number $12 (no meaning here) $13 how many
select no, null::text as sort_key
from task_now
where ns = $1
  and ($2::smallint[] is null or state = any ($2))
  and ($3::text[] is null or channel = any ($3))
  and ($4::text[] is null or workgroup = any ($4))
  and ($5::uuid is null or group_no = (select g.group_no from task_group g where g.ns = $1 and g.id = $5))
  and ($6::text is null or worker_id = $6)
  and ($7::text is null or strpos(lower(name), lower($7)) > 0)
  and ($8::timestamptz is null or created_at > $8)
  and ($9::timestamptz is null or created_at < $9)
  and ($10::text is null or key = $10)
  and ($11::bigint is null or no > $11)
  and $12::text is null
order by no
limit $13;

-- name: page_by_created_desc
-- As page_by_created_asc, newest first.
select no, null::text as sort_key
from task_now
where ns = $1
  and ($2::smallint[] is null or state = any ($2))
  and ($3::text[] is null or channel = any ($3))
  and ($4::text[] is null or workgroup = any ($4))
  and ($5::uuid is null or group_no = (select g.group_no from task_group g where g.ns = $1 and g.id = $5))
  and ($6::text is null or worker_id = $6)
  and ($7::text is null or strpos(lower(name), lower($7)) > 0)
  and ($8::timestamptz is null or created_at > $8)
  and ($9::timestamptz is null or created_at < $9)
  and ($10::text is null or key = $10)
  and ($11::bigint is null or no < $11)
  and $12::text is null
order by no desc
limit $13;

-- name: page_by_priority_desc
-- As page_by_created_asc, highest priority first, then oldest. $12 the priority to go on from
select no, priority::text as sort_key
from task_now
where ns = $1
  and ($2::smallint[] is null or state = any ($2))
  and ($3::text[] is null or channel = any ($3))
  and ($4::text[] is null or workgroup = any ($4))
  and ($5::uuid is null or group_no = (select g.group_no from task_group g where g.ns = $1 and g.id = $5))
  and ($6::text is null or worker_id = $6)
  and ($7::text is null or strpos(lower(name), lower($7)) > 0)
  and ($8::timestamptz is null or created_at > $8)
  and ($9::timestamptz is null or created_at < $9)
  and ($10::text is null or key = $10)
  and ($11::bigint is null or (-priority, no) > (-($12::text)::int, $11))
order by priority desc, no
limit $13;

-- name: page_by_finished_desc
-- As page_by_created_asc, latest end first, those that have not ended last. $12 microseconds of the end to go on from
select no, coalesce(extract(epoch from finished_at) * 1000000, -1)::bigint::text as sort_key
from task_now
where ns = $1
  and ($2::smallint[] is null or state = any ($2))
  and ($3::text[] is null or channel = any ($3))
  and ($4::text[] is null or workgroup = any ($4))
  and ($5::uuid is null or group_no = (select g.group_no from task_group g where g.ns = $1 and g.id = $5))
  and ($6::text is null or worker_id = $6)
  and ($7::text is null or strpos(lower(name), lower($7)) > 0)
  and ($8::timestamptz is null or created_at > $8)
  and ($9::timestamptz is null or created_at < $9)
  and ($10::text is null or key = $10)
  and ($11::bigint is null
    or (coalesce(extract(epoch from finished_at) * 1000000, -1)::bigint, no) < (($12::text)::bigint, $11))
order by coalesce(extract(epoch from finished_at) * 1000000, -1)::bigint desc, no desc
limit $13;

-- name: count_tasks
-- Counts up to $11 and stops. $1 … $10 as page_by_created_asc
select count(*)::int as n
from (
  select no from task_now
  where ns = $1
    and ($2::smallint[] is null or state = any ($2))
    and ($3::text[] is null or channel = any ($3))
    and ($4::text[] is null or workgroup = any ($4))
    and ($5::uuid is null or group_no = (select g.group_no from task_group g where g.ns = $1 and g.id = $5))
    and ($6::text is null or worker_id = $6)
    and ($7::text is null or strpos(lower(name), lower($7)) > 0)
    and ($8::timestamptz is null or created_at > $8)
    and ($9::timestamptz is null or created_at < $9)
    and ($10::text is null or key = $10)
  limit $11) x;

-- name: matching_tasks
-- All that match. $1 … $10 as page_by_created_asc
select no
from task_now
where ns = $1
  and ($2::smallint[] is null or state = any ($2))
  and ($3::text[] is null or channel = any ($3))
  and ($4::text[] is null or workgroup = any ($4))
  and ($5::uuid is null or group_no = (select g.group_no from task_group g where g.ns = $1 and g.id = $5))
  and ($6::text is null or worker_id = $6)
  and ($7::text is null or strpos(lower(name), lower($7)) > 0)
  and ($8::timestamptz is null or created_at > $8)
  and ($9::timestamptz is null or created_at < $9)
  and ($10::text is null or key = $10)
order by no;

-- name: numbers_of_tasks
-- Of those that exist. $1 ns $2 ids
select no from task where ns = $1 and id = any ($2::uuid[]) order by no;

-- name: errors_of_tasks
-- What failed attempts reported, oldest first: the first and the newest 99 of each. $1 ns $2 numbers
select e.no, e.attempt, e.error, w.name as worker_id, e.started_at, e.at
from (
  select x.*, row_number() over (partition by x.no order by x.seq) as nth,
    row_number() over (partition by x.no order by x.seq desc) as back
  from error x where x.ns = $1 and x.no = any ($2::bigint[])) e
left join worker w on w.ns = $1 and w.worker = e.worker
where e.nth = 1 or e.back <= 99
order by e.no, e.seq;

-- name: links_to_parents
-- In the order they were named, then the adopted ones. $1 ns $2 numbers of the children $3 at most so many of each
select l.child as no, l.parent as other
from unnest($2::bigint[]) as c(no)
cross join lateral (
  select e.child, e.parent, e.place from edge e where e.ns = $1 and e.child = c.no order by e.place, e.parent limit $3) l
order by l.child, l.place, l.parent;

-- name: links_to_children
-- Oldest first. $1 ns $2 numbers of the parents $3 at most so many of each
select l.parent as no, l.child as other
from unnest($2::bigint[]) as p(no)
cross join lateral (
  select e.parent, e.child from edge e where e.ns = $1 and e.parent = p.no order by e.child limit $3) l
order by l.parent, l.child;

-- name: count_links
-- $1 ns $2 numbers
select n.no,
  (select count(*)::int from edge e where e.ns = $1 and e.child = n.no) as parents,
  (select count(*)::int from edge e where e.ns = $1 and e.parent = n.no) as children
from unnest($2::bigint[]) as n(no);

-- name: parent_results
-- What the parents of leased tasks produced, in the order they were named. $1 ns $2 numbers of the children $3 at most so
-- many of each
select l.child as no, t.id as task_id, t.name, c.name as channel, p.state, t.input, d.output
from unnest($2::bigint[]) as k(no)
cross join lateral (
  select e.child, e.parent, e.place from edge e where e.ns = $1 and e.child = k.no order by e.place, e.parent limit $3) l
join task t on t.ns = $1 and t.no = l.parent
join task_place p on p.ns = $1 and p.no = l.parent
join channel c on c.ns = $1 and c.channel = t.channel
left join done d on d.ns = $1 and d.no = l.parent
order by l.child, l.place, l.parent;

-- name: links_among
-- Links whose child is one of these. $1 ns $2 numbers
select e.parent, e.child, p.id as parent_id, c.id as child_id, e.subtree, e.adopted
from edge e
join task p on p.ns = $1 and p.no = e.parent
join task c on c.ns = $1 and c.no = e.child
where e.ns = $1 and e.child = any ($2::bigint[]) and e.parent = any ($2::bigint[])
order by e.child, e.place, e.parent;

