-- Schedules: a group made from a template at each due time.

-- `template` is what createTaskGroup takes. A paused schedule has no next run. catch_up: 0 SKIP 1 ONE 2 ALL; overlap: 0 ALLOW 1 SKIP.
create table schedule (
  ns int not null,
  id uuid not null,
  name text not null,
  cron text not null,
  time_zone text not null,
  is_paused boolean not null,
  catch_up smallint not null,
  overlap smallint not null,
  template json not null,
  -- Tasks in the template: how many runs one transaction takes.
  size int not null,
  -- The due time of the last run, or when it was triggered.
  last_run_at timestamptz,
  next_run_at timestamptz,
  -- The number of the group of the last run.
  last_group bigint,
  -- Why the last due time made nothing.
  last_error text,
  created_at timestamptz not null default now(),
  primary key (ns, id),
  constraint paused_is_not_due check (not is_paused or next_run_at is null)
) with (fillfactor = 70);
create index schedule_by_due on schedule (ns, next_run_at) where next_run_at is not null;
