-- Names of channels, workgroups and workers, each kept once as a number.

-- name: channel_numbers
-- Makes those that are not there. $1 ns $2 names
with made as (
  insert into channel (ns, name)
  select $1, n from unnest($2::text[]) n where not exists (select from channel c where c.ns = $1 and c.name = n)
  order by n
  on conflict (ns, name) do nothing
  returning channel as number, name)
select number, name from made
union all
select channel, name from channel where ns = $1 and name = any ($2::text[]);

-- name: workgroup_numbers
-- Makes those that are not there. $1 ns $2 names
with made as (
  insert into workgroup (ns, name)
  select $1, n from unnest($2::text[]) n where not exists (select from workgroup c where c.ns = $1 and c.name = n)
  order by n
  on conflict (ns, name) do nothing
  returning workgroup as number, name)
select number, name from made
union all
select workgroup, name from workgroup where ns = $1 and name = any ($2::text[]);

-- name: worker_numbers
-- Makes those that are not there. $1 ns $2 names
with made as (
  insert into worker (ns, name)
  select $1, n from unnest($2::text[]) n where not exists (select from worker c where c.ns = $1 and c.name = n)
  order by n
  on conflict (ns, name) do nothing
  returning worker as number, name)
select number, name from made
union all
select worker, name from worker where ns = $1 and name = any ($2::text[]);

-- name: known_channels
-- $1 ns $2 names
select channel as number, name from channel where ns = $1 and name = any ($2::text[]);

-- name: known_workgroups
-- $1 ns $2 names
select workgroup as number, name from workgroup where ns = $1 and name = any ($2::text[]);
