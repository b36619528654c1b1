-- In the user's own transaction: crew.create_tasks(jsonb) writes a row here, and a server makes of it what the API would (ADR 15).

create table inbox (
  ns int not null,
  seq bigint generated always as identity,
  -- What createTaskGroup takes, or createTasks; every task has an id.
  call jsonb not null,
  -- Its tasks: how many calls one transaction takes.
  size int not null,
  at timestamptz not null default now(),
  primary key (ns, seq)
);

-- What a server refused: nothing was made of it.
create table inbox_refused (
  ns int not null,
  seq bigint not null,
  call jsonb not null,
  code text not null,
  message text not null,
  -- The bad field, from the call down: tasks[0].channel.
  path text not null,
  sent_at timestamptz not null,
  at timestamptz not null default now(),
  primary key (ns, seq)
);
create index inbox_refused_at on inbox_refused (ns, at);

-- What an application sees of Crew. Nobody may enter it until it is granted: `usage` on the schema, and what is wanted in it.
create schema if not exists crew;

create view crew.refused as
select
  n.name as namespace,
  r.sent_at,
  r.at as refused_at,
  coalesce(r.call ->> 'groupId', r.call ->> 'id')::uuid as group_id,
  r.code,
  r.message,
  r.path,
  r.call
from inbox_refused r join namespace n on n.ns = r.ns;

-- What is wrong with a call, or null: (path, what is wrong, what to do). Shapes and refs alone; a server looks at the rest.
create function crew.wrong_with(call jsonb, out path text, out problem text, out remedy text)
language plpgsql stable
set search_path from current
as $$
declare
  uuid constant text := '^[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}$';
  instant constant text := '^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}(:[0-9]{2}([.][0-9]+)?)?([Zz]|[+-][0-9]{2}:[0-9]{2})$';
begin
  if jsonb_typeof(call) is distinct from 'object' then
    select '', 'it is ' || coalesce('a JSON ' || jsonb_typeof(call), 'null'),
      'Give it an object: {"name": …, "tasks": […]} for a new group, {"groupId": …, "tasks": […]} for one that is there.'
    into path, problem, remedy;
    return;
  end if;
  if jsonb_typeof(call -> 'tasks') in ('null', 'array') is false then
    select 'tasks', 'it is a JSON ' || jsonb_typeof(call -> 'tasks'), 'Give it an array of tasks.' into path, problem, remedy;
    return;
  end if;
  if call ? 'groupId' and (coalesce(jsonb_typeof(call -> 'tasks'), 'null') = 'null' or call ?| array['id', 'name']) then
    select 'groupId', 'a group that is there is given with ' || case
        when call ?| array['id', 'name'] then 'the id or name of a new one' else 'no tasks' end,
      'Give a name for a new group, or groupId and tasks for one that is there.'
    into path, problem, remedy;
    return;
  end if;
  if jsonb_array_length(case jsonb_typeof(call -> 'tasks') when 'array' then call -> 'tasks' else '[]' end) > 10000 then
    select 'tasks', jsonb_array_length(call -> 'tasks') || ' tasks in one call', 'Give at most 10000: use several calls.'
    into path, problem, remedy;
    return;
  end if;

  with thing (kind, at, value) as materialized (
    select case when call ? 'groupId' then 'call' else 'group' end, '', call
    union all
    select 'task', format('tasks[%s]', t.n - 1), t.value
    from jsonb_array_elements(nullif(call -> 'tasks', 'null')) with ordinality as t(value, n)
    union all
    select 'parent', format('tasks[%s].parents[%s]', t.n - 1, p.n - 1), p.value
    from jsonb_array_elements(nullif(call -> 'tasks', 'null')) with ordinality as t(value, n)
    cross join lateral jsonb_array_elements(
      case jsonb_typeof(t.value -> 'parents') when 'array' then t.value -> 'parents' end) with ordinality as p(value, n)
    union all
    select 'retry', format('tasks[%s].retry', t.n - 1), t.value -> 'retry'
    from jsonb_array_elements(nullif(call -> 'tasks', 'null')) with ordinality as t(value, n)
    where t.value -> 'retry' <> 'null'),
  -- Types: uuid, name (text that is not empty), instant, whole, number, boolean, array, object, any, or the values of an enum.
  field (kind, name, type, needed) as (values
    ('group', 'id', 'uuid', false), ('group', 'name', 'name', true), ('group', 'isPaused', 'boolean', false),
    ('group', 'metadata', 'any', false), ('group', 'tasks', 'array', false),
    ('call', 'groupId', 'uuid', true), ('call', 'tasks', 'array', true),
    ('task', 'id', 'uuid', false), ('task', 'ref', 'name', false), ('task', 'name', 'name', true),
    ('task', 'channel', 'name', true), ('task', 'parents', 'array', false), ('task', 'workgroup', 'name', false),
    ('task', 'key', 'name', false), ('task', 'onDuplicate', 'MERGE RETURN_EXISTING REJECT ALLOW', false),
    ('task', 'input', 'any', false), ('task', 'priority', 'whole', false), ('task', 'runAfter', 'instant', false),
    ('task', 'delaySeconds', 'number', false), ('task', 'retry', 'object', false), ('task', 'timeoutSeconds', 'number', false),
    ('task', 'progressWeight', 'whole', false), ('task', 'isSeed', 'boolean', false),
    ('task', 'onParentFailure', 'BLOCK CANCEL RUN', false), ('task', 'metadata', 'any', false),
    ('parent', 'id', 'uuid', false), ('parent', 'ref', 'name', false), ('parent', 'waitFor', 'TASK SUBTREE', false),
    ('retry', 'maxAttempts', 'whole', false), ('retry', 'delaySeconds', 'number', false), ('retry', 'backoff', 'number', false),
    ('retry', 'maxDelaySeconds', 'number', false)),
  given (kind, at, name, value, type) as materialized (
    select t.kind, concat_ws('.', nullif(t.at, ''), e.key), e.key, e.value, f.type
    from thing t
    cross join lateral jsonb_each(case jsonb_typeof(t.value) when 'object' then t.value end) e
    left join field f on f.kind = t.kind and f.name = e.key),
  wrong (at, problem, remedy) as (
    select at, 'it is a JSON ' || jsonb_typeof(value), 'Give it an object.' from thing where jsonb_typeof(value) <> 'object'
    union all
    select concat_ws('.', nullif(t.at, ''), f.name), 'it is missing', case f.type
      when 'name' then 'Give it a text that is not empty.' else 'Give it ' || f.type || '.' end
    from thing t join field f using (kind)
    where f.needed and jsonb_typeof(t.value) = 'object' and coalesce(t.value -> f.name, 'null') = 'null'
    union all
    select g.at, 'there is no such field', 'Use one of: '
      || (select string_agg(f.name, ', ' order by f.name) from field f where f.kind = g.kind) || '.'
    from given g where g.type is null
    union all
    select at, 'it is ' || left(value::text, 80), case type
      when 'uuid' then 'Give it a UUID such as 018f5a3e-7c11-7a55-8d3c-0242ac120002.'
      when 'name' then 'Give it a text that is not empty.'
      when 'instant' then 'Give it an instant with a UTC offset, such as "2026-01-31T09:30:00Z".'
      when 'whole' then 'Give it a whole number.'
      when 'number' then 'Give it a number.'
      when 'boolean' then 'Give it true or false.'
      when 'array' then 'Give it an array.'
      when 'object' then 'Give it an object.'
      else 'Give it one of: ' || replace(type, ' ', ', ') || '.' end
    from given
    where type is not null and value <> 'null' and not case type
      when 'uuid' then jsonb_typeof(value) = 'string' and value #>> '{}' ~ uuid
      when 'name' then jsonb_typeof(value) = 'string' and value <> '""'
      when 'instant' then jsonb_typeof(value) = 'string' and value #>> '{}' ~ instant
      when 'whole' then jsonb_typeof(value) = 'number' and value::text ~ '^-?[0-9]{1,10}$'
      when 'array' then jsonb_typeof(value) = 'array'
      when 'object' then jsonb_typeof(value) = 'object'
      when 'number' then jsonb_typeof(value) = 'number'
      when 'boolean' then jsonb_typeof(value) = 'boolean'
      when 'any' then true
      else jsonb_typeof(value) = 'string' and value #>> '{}' = any (string_to_array(type, ' ')) end
    union all
    select at || '.' || name, value #>> '{}' || ' is given to two tasks of this call', 'Give each its own.'
    from (
      select left(at, strpos(at, '.') - 1) as at, name, value,
        count(*) over (partition by name, lower(value #>> '{}')) as n
      from given where kind = 'task' and name in ('id', 'ref') and jsonb_typeof(value) = 'string') twice
    where n > 1
    union all
    select at, 'a parent is named by ' || case when value ?& array['id', 'ref'] then 'both id and ref' else 'nothing' end,
      'Name it by id (a task that is there) or by ref (one of this call).'
    from thing
    where kind = 'parent' and jsonb_typeof(value) = 'object'
      and (coalesce(value -> 'id', 'null') = 'null') = (coalesce(value -> 'ref', 'null') = 'null')
    union all
    select p.at, 'no task of this call has the ref ' || left(p.value::text, 80), 'Name a task that is there by its id.'
    from given p
    -- not in, which is hashed: of `not exists` the planner makes a nested loop, for it takes these to be few.
    where p.kind = 'parent' and p.name = 'ref' and jsonb_typeof(p.value) = 'string'
      and p.value not in (select t.value from given t where t.kind = 'task' and t.name = 'ref'))
  select w.at, w.problem, w.remedy from wrong w order by w.at, w.problem limit 1 into path, problem, remedy;
end
$$;

-- A UUIDv7, put together from the time and a random one: PostgreSQL has uuidv7() from 18 on alone.
create function crew.new_id() returns uuid
language sql volatile
set search_path from current
as $$
  select (lpad(to_hex((extract(epoch from clock_timestamp()) * 1000)::bigint), 12, '0') || '7'
    || substr(replace(gen_random_uuid()::text, '-', ''), 14))::uuid
$$;

create function crew.create_tasks(call jsonb) returns jsonb
language plpgsql volatile security definer
set search_path from current
as $$
declare
  space constant text := coalesce(nullif(current_setting('crew.namespace', true), ''), 'default');
  number int;
  wrong record;
  made jsonb;
begin
  select n.ns from namespace n where n.name = space into number;
  if number is null then
    raise exception 'crew.create_tasks: there is no namespace %', quote_literal(space)
      using errcode = 'invalid_parameter_value', hint = 'Set crew.namespace to one that is there, or reset it.';
  end if;
  select w.path, w.problem, w.remedy from crew.wrong_with(call) w into wrong;
  if wrong.problem is not null then
    raise exception 'crew.create_tasks: %: %', coalesce(nullif(wrong.path, ''), 'the call'), wrong.problem
      using errcode = 'invalid_parameter_value', hint = wrong.remedy, detail = wrong.path;
  end if;

  select coalesce(jsonb_agg(
      case when coalesce(t.value -> 'id', 'null') = 'null' then t.value || jsonb_build_object('id', crew.new_id()) else t.value end
      order by t.n), '[]')
  from jsonb_array_elements(nullif(call -> 'tasks', 'null')) with ordinality as t(value, n)
  into made;
  call := call || jsonb_build_object('tasks', made);
  if not call ? 'groupId' and coalesce(call -> 'id', 'null') = 'null' then
    call := call || jsonb_build_object('id', crew.new_id());
  end if;

  insert into inbox (ns, call, size) values (number, call, jsonb_array_length(made));
  return jsonb_build_object(
    'groupId', coalesce(call -> 'groupId', call -> 'id'),
    'taskIds', (select coalesce(jsonb_agg(t.value -> 'id' order by t.n), '[]')
      from jsonb_array_elements(made) with ordinality as t(value, n)));
end
$$;
comment on function crew.create_tasks(jsonb) is
  'Creates tasks when the transaction that calls it commits: what createTaskGroup takes, or createTasks. Answers their ids.';

revoke all on function crew.wrong_with(jsonb) from public;
revoke all on function crew.new_id() from public;
revoke all on function crew.create_tasks(jsonb) from public;
