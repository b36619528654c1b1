-- What all migrations make, as pg_dump shows it. Written by `make schema`; a test compares it.

CREATE SCHEMA crew;

CREATE FUNCTION crew.create_tasks(call jsonb) RETURNS jsonb
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'public', 'pg_temp'
    AS $$
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

COMMENT ON FUNCTION crew.create_tasks(call jsonb) IS 'Creates tasks when the transaction that calls it commits: what createTaskGroup takes, or createTasks. Answers their ids.';

CREATE FUNCTION crew.new_id() RETURNS uuid
    LANGUAGE sql
    SET search_path TO 'public', 'pg_temp'
    AS $$
  select (lpad(to_hex((extract(epoch from clock_timestamp()) * 1000)::bigint), 12, '0') || '7'
    || substr(replace(gen_random_uuid()::text, '-', ''), 14))::uuid
$$;

CREATE FUNCTION crew.wrong_with(call jsonb, OUT path text, OUT problem text, OUT remedy text) RETURNS record
    LANGUAGE plpgsql STABLE
    SET search_path TO 'public', 'pg_temp'
    AS $_$
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
$_$;

CREATE TABLE public.inbox_refused (
    ns integer NOT NULL,
    seq bigint NOT NULL,
    call jsonb NOT NULL,
    code text NOT NULL,
    message text NOT NULL,
    path text NOT NULL,
    sent_at timestamp with time zone NOT NULL,
    at timestamp with time zone DEFAULT now() NOT NULL
);

CREATE TABLE public.namespace (
    ns integer NOT NULL,
    name text NOT NULL,
    alive_at timestamp with time zone DEFAULT now() NOT NULL,
    log_system bigint
);

CREATE VIEW crew.refused AS
 SELECT n.name AS namespace,
    r.sent_at,
    r.at AS refused_at,
    (COALESCE((r.call ->> 'groupId'::text), (r.call ->> 'id'::text)))::uuid AS group_id,
    r.code,
    r.message,
    r.path,
    r.call
   FROM (public.inbox_refused r
     JOIN public.namespace n ON ((n.ns = r.ns)));

CREATE TABLE public.ahead (
    ns integer NOT NULL,
    no bigint NOT NULL
);

CREATE TABLE public.api_key (
    id uuid NOT NULL,
    ns integer,
    name text NOT NULL,
    hash bytea NOT NULL,
    role smallint NOT NULL,
    channels text[],
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    expires_at timestamp with time zone,
    last_used_at timestamp with time zone,
    revoked_at timestamp with time zone,
    CONSTRAINT role_is_known CHECK (((role >= 1) AND (role <= 3)))
);

CREATE TABLE public.cap (
    ns integer NOT NULL,
    kind smallint NOT NULL,
    ref integer NOT NULL,
    max_running integer,
    starts integer,
    seconds double precision
);

CREATE TABLE public.lease (
    ns integer NOT NULL,
    lease_no bigint NOT NULL,
    part bigint DEFAULT 0 NOT NULL,
    worker integer NOT NULL,
    until timestamp with time zone NOT NULL,
    started_at timestamp with time zone DEFAULT now() NOT NULL,
    grown xid8,
    nos bigint[] NOT NULL,
    groups bigint[] NOT NULL,
    channels integer[] NOT NULL,
    workgroups integer[] NOT NULL,
    attempts integer[] NOT NULL,
    remainings integer[] NOT NULL,
    failures integer[] NOT NULL,
    keys text[] DEFAULT '{}'::text[] NOT NULL,
    deadline timestamp with time zone,
    runner bigint,
    offer real,
    CONSTRAINT lease_holds_something CHECK ((cardinality(nos) > 0))
)
WITH (fillfactor='80', autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='1000', autovacuum_vacuum_cost_delay='0');
ALTER TABLE ONLY public.lease ALTER COLUMN nos SET STORAGE EXTERNAL;
ALTER TABLE ONLY public.lease ALTER COLUMN groups SET STORAGE EXTERNAL;
ALTER TABLE ONLY public.lease ALTER COLUMN channels SET STORAGE EXTERNAL;
ALTER TABLE ONLY public.lease ALTER COLUMN workgroups SET STORAGE EXTERNAL;
ALTER TABLE ONLY public.lease ALTER COLUMN attempts SET STORAGE EXTERNAL;
ALTER TABLE ONLY public.lease ALTER COLUMN remainings SET STORAGE EXTERNAL;
ALTER TABLE ONLY public.lease ALTER COLUMN failures SET STORAGE EXTERNAL;
ALTER TABLE ONLY public.lease ALTER COLUMN keys SET STORAGE EXTERNAL;

CREATE TABLE public.start (
    ns integer NOT NULL,
    workgroup integer NOT NULL,
    at timestamp with time zone NOT NULL,
    n integer NOT NULL
);

CREATE VIEW public.at_limit AS
 SELECT ns,
    kind,
    ref
   FROM public.cap p
  WHERE ((kind > 0) AND ((max_running <= ( SELECT count(*) AS count
           FROM (public.lease l
             CROSS JOIN LATERAL UNNEST(l.channels, l.workgroups) u(channel, workgroup))
          WHERE ((l.ns = p.ns) AND (
                CASE p.kind
                    WHEN 1 THEN u.channel
                    ELSE u.workgroup
                END = p.ref)))) OR (starts <= ( SELECT sum(x.n) AS sum
           FROM public.start x
          WHERE ((x.ns = p.ns) AND (x.workgroup = p.ref) AND (x.at > (clock_timestamp() - (p.seconds * '00:00:01'::interval))))))));

CREATE TABLE public.blocked (
    ns integer NOT NULL,
    no bigint NOT NULL,
    open integer NOT NULL,
    run_at timestamp with time zone,
    channel integer NOT NULL,
    rank integer NOT NULL,
    workgroup integer NOT NULL,
    group_no bigint NOT NULL,
    attempt integer NOT NULL,
    remaining integer NOT NULL,
    failures integer NOT NULL,
    key text,
    policy smallint DEFAULT 0 NOT NULL,
    CONSTRAINT blocked_waits_for_someone CHECK ((open > 0))
)
WITH (fillfactor='70', autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='5000', autovacuum_vacuum_cost_delay='0');

CREATE SEQUENCE public.name_no
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

CREATE TABLE public.channel (
    ns integer NOT NULL,
    channel integer DEFAULT nextval('public.name_no'::regclass) NOT NULL,
    name text NOT NULL COLLATE pg_catalog."C"
);

CREATE TABLE public.claim (
    ns integer NOT NULL,
    claim_id uuid NOT NULL,
    lease_no bigint NOT NULL,
    asked text NOT NULL,
    ended_at timestamp with time zone
);

CREATE TABLE public.delivery (
    ns integer NOT NULL,
    channel integer NOT NULL,
    server uuid NOT NULL,
    until timestamp with time zone NOT NULL
)
WITH (fillfactor='50');

CREATE TABLE public.done (
    ns integer NOT NULL,
    no bigint NOT NULL,
    lease_no bigint,
    outcome smallint NOT NULL,
    attempt integer NOT NULL,
    remaining integer NOT NULL,
    worker integer,
    started_at timestamp with time zone,
    at timestamp with time zone DEFAULT now() NOT NULL,
    output json,
    merged_into bigint
);

CREATE TABLE public.edge (
    ns integer NOT NULL,
    parent bigint NOT NULL,
    child bigint NOT NULL,
    place integer NOT NULL,
    subtree boolean DEFAULT false NOT NULL,
    adopted boolean DEFAULT false NOT NULL
);

CREATE TABLE public.error (
    ns integer NOT NULL,
    no bigint NOT NULL,
    seq bigint NOT NULL,
    attempt integer NOT NULL,
    lease_no bigint,
    worker integer NOT NULL,
    started_at timestamp with time zone,
    at timestamp with time zone DEFAULT now() NOT NULL,
    error json NOT NULL
);

ALTER TABLE public.error ALTER COLUMN seq ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.error_seq_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.event (
    ns integer NOT NULL,
    xid xid8 DEFAULT pg_current_xact_id() NOT NULL,
    seq bigint NOT NULL,
    at timestamp with time zone DEFAULT now() NOT NULL,
    kind smallint NOT NULL,
    was smallint,
    state smallint,
    worker integer,
    until timestamp with time zone,
    nos bigint[] DEFAULT '{}'::bigint[] NOT NULL,
    groups bigint[] DEFAULT '{}'::bigint[] NOT NULL,
    channels integer[] DEFAULT '{}'::integer[] NOT NULL,
    workgroups integer[] DEFAULT '{}'::integer[] NOT NULL,
    attempts integer[] DEFAULT '{}'::integer[] NOT NULL,
    progress double precision[],
    waits real[]
);
ALTER TABLE ONLY public.event ALTER COLUMN nos SET STORAGE EXTERNAL;
ALTER TABLE ONLY public.event ALTER COLUMN groups SET STORAGE EXTERNAL;
ALTER TABLE ONLY public.event ALTER COLUMN channels SET STORAGE EXTERNAL;
ALTER TABLE ONLY public.event ALTER COLUMN workgroups SET STORAGE EXTERNAL;
ALTER TABLE ONLY public.event ALTER COLUMN attempts SET STORAGE EXTERNAL;
ALTER TABLE ONLY public.event ALTER COLUMN waits SET STORAGE EXTERNAL;

ALTER TABLE public.event ALTER COLUMN seq ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.event_seq_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.failed (
    ns integer NOT NULL,
    no bigint NOT NULL,
    channel integer NOT NULL,
    rank integer NOT NULL,
    workgroup integer NOT NULL,
    group_no bigint NOT NULL,
    attempt integer NOT NULL,
    remaining integer NOT NULL,
    worker integer,
    started_at timestamp with time zone,
    at timestamp with time zone DEFAULT now() NOT NULL,
    key text
);

CREATE TABLE public.feeder (
    ns integer NOT NULL,
    no bigint NOT NULL,
    join_no bigint NOT NULL
);

CREATE TABLE public.fold (
    ns integer NOT NULL,
    upto pg_snapshot NOT NULL
);

CREATE TABLE public.gone (
    ns integer NOT NULL,
    kind smallint NOT NULL,
    ref bigint NOT NULL,
    id uuid NOT NULL,
    at timestamp with time zone DEFAULT now() NOT NULL
);

CREATE TABLE public.group_fold (
    ns integer NOT NULL,
    upto pg_snapshot NOT NULL
);

CREATE SEQUENCE public.group_no
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

CREATE TABLE public.task (
    ns integer NOT NULL,
    no bigint NOT NULL,
    id uuid NOT NULL,
    group_no bigint NOT NULL,
    channel integer NOT NULL,
    workgroup integer DEFAULT 0 NOT NULL,
    rank integer DEFAULT 0 NOT NULL,
    name text NOT NULL,
    input json,
    metadata json,
    run_after timestamp with time zone,
    max_attempts integer NOT NULL,
    retry_delay double precision NOT NULL,
    backoff double precision NOT NULL,
    max_delay double precision NOT NULL,
    weight integer DEFAULT 1 NOT NULL,
    is_seed boolean DEFAULT false NOT NULL,
    spawned_by bigint,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    key text,
    on_duplicate smallint DEFAULT 0 NOT NULL,
    timeout double precision,
    on_parent_failure smallint DEFAULT 0 NOT NULL,
    has_parents boolean DEFAULT true NOT NULL,
    CONSTRAINT attempts_are_positive CHECK ((max_attempts > 0))
);

CREATE VIEW public.group_tail AS
 SELECT ns,
    group_no,
    (COALESCE(sum(
        CASE
            WHEN (was IS NULL) THEN n
            WHEN (state IS NULL) THEN (- n)
            ELSE NULL::bigint
        END), (0)::numeric))::integer AS total,
    (COALESCE(sum(
        CASE
            WHEN ((state <> ALL (ARRAY[5, 7])) AND ((was IS NULL) OR (was = ANY (ARRAY[5, 7])))) THEN n
            WHEN ((was <> ALL (ARRAY[5, 7])) AND ((state IS NULL) OR (state = ANY (ARRAY[5, 7])))) THEN (- n)
            ELSE NULL::bigint
        END), (0)::numeric))::integer AS unsettled,
    (COALESCE(sum(
        CASE 6
            WHEN state THEN n
            WHEN was THEN (- n)
            ELSE NULL::bigint
        END), (0)::numeric))::integer AS failing,
    ARRAY[(COALESCE(sum(
        CASE 0
            WHEN state THEN n
            WHEN was THEN (- n)
            ELSE NULL::bigint
        END), (0)::numeric))::integer, (COALESCE(sum(
        CASE 1
            WHEN state THEN n
            WHEN was THEN (- n)
            ELSE NULL::bigint
        END), (0)::numeric))::integer, (COALESCE(sum(
        CASE 2
            WHEN state THEN n
            WHEN was THEN (- n)
            ELSE NULL::bigint
        END), (0)::numeric))::integer, (COALESCE(sum(
        CASE 3
            WHEN state THEN n
            WHEN was THEN (- n)
            ELSE NULL::bigint
        END), (0)::numeric))::integer, (COALESCE(sum(
        CASE 4
            WHEN state THEN n
            WHEN was THEN (- n)
            ELSE NULL::bigint
        END), (0)::numeric))::integer, (COALESCE(sum(
        CASE 5
            WHEN state THEN n
            WHEN was THEN (- n)
            ELSE NULL::bigint
        END), (0)::numeric))::integer, (COALESCE(sum(
        CASE 6
            WHEN state THEN n
            WHEN was THEN (- n)
            ELSE NULL::bigint
        END), (0)::numeric))::integer, (COALESCE(sum(
        CASE 7
            WHEN state THEN n
            WHEN was THEN (- n)
            ELSE NULL::bigint
        END), (0)::numeric))::integer] AS counts,
    (COALESCE(sum(
        CASE
            WHEN (was IS NULL) THEN (n + more)
            WHEN (state IS NULL) THEN (- n)
            ELSE NULL::bigint
        END), (0)::numeric))::bigint AS weight,
    (COALESCE(sum(
        CASE
            WHEN ((state = ANY (ARRAY[5, 7])) AND ((was IS NULL) OR (was <> ALL (ARRAY[5, 7])))) THEN (n + more)
            WHEN ((was = ANY (ARRAY[5, 7])) AND ((state IS NULL) OR (state <> ALL (ARRAY[5, 7])))) THEN ((- n) - more)
            ELSE NULL::bigint
        END), (0)::numeric))::bigint AS settled_weight,
    max(at) FILTER (WHERE (state = ANY (ARRAY[5, 7]))) AS settled_at
   FROM ( SELECT e.ns,
            x.group_no,
            e.was,
            e.state,
            x.n,
            e.at,
            x.more
           FROM ((public.group_fold f
             JOIN public.event e ON (((e.ns = f.ns) AND (e.xid >= pg_snapshot_xmin(f.upto)) AND (NOT pg_visible_in_snapshot(e.xid, f.upto)))))
             CROSS JOIN LATERAL ( SELECT u.group_no,
                    count(u.no) AS n,
                    COALESCE(sum(( SELECT (t.weight - 1)
                           FROM public.task t
                          WHERE ((t.ns = e.ns) AND (t.no = u.no) AND (t.weight <> 1)))) FILTER (WHERE ((e.was IS NULL) OR ((e.was = ANY (ARRAY[5, 7])) <> (e.state = ANY (ARRAY[5, 7]))))), (0)::bigint) AS more
                   FROM UNNEST(e.nos, e.groups) u(no, group_no)
                  GROUP BY u.group_no) x)
          WHERE (((e.kind = 18) OR ((e.state IS DISTINCT FROM e.was) AND (cardinality(e.nos) > 0))) AND (e.xid IS DISTINCT FROM pg_current_xact_id_if_assigned()))) i
  GROUP BY ns, group_no;

CREATE TABLE public.group_tally (
    ns integer NOT NULL,
    group_no bigint NOT NULL,
    total integer NOT NULL,
    unsettled integer NOT NULL,
    failing integer NOT NULL,
    counts integer[] NOT NULL,
    weight bigint NOT NULL,
    settled_weight bigint NOT NULL,
    settled_at timestamp with time zone,
    finished_at timestamp with time zone GENERATED ALWAYS AS (
CASE
    WHEN ((total > 0) AND (unsettled = 0)) THEN settled_at
    ELSE NULL::timestamp with time zone
END) STORED
)
WITH (fillfactor='70', autovacuum_vacuum_scale_factor='0.05');

CREATE TABLE public.hold (
    ns integer NOT NULL,
    workgroup integer NOT NULL,
    until timestamp with time zone NOT NULL,
    reason text
);

CREATE TABLE public.inbox (
    ns integer NOT NULL,
    seq bigint NOT NULL,
    call jsonb NOT NULL,
    size integer NOT NULL,
    at timestamp with time zone DEFAULT now() NOT NULL
);

ALTER TABLE public.inbox ALTER COLUMN seq ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.inbox_seq_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.keyed (
    ns integer NOT NULL,
    channel integer NOT NULL,
    key text NOT NULL COLLATE pg_catalog."C",
    no bigint NOT NULL
);

CREATE SEQUENCE public.lease_no
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

CREATE TABLE public.merged (
    ns integer NOT NULL,
    no bigint NOT NULL,
    into_no bigint NOT NULL,
    channel integer NOT NULL,
    rank integer NOT NULL,
    workgroup integer NOT NULL,
    group_no bigint NOT NULL,
    attempt integer NOT NULL,
    remaining integer NOT NULL,
    failures integer NOT NULL,
    key text NOT NULL,
    ready_at timestamp with time zone NOT NULL
);

CREATE TABLE public.migration (
    number integer NOT NULL,
    name text NOT NULL,
    applied_at timestamp with time zone DEFAULT now() NOT NULL
);

CREATE TABLE public.operator (
    ns integer NOT NULL,
    id uuid NOT NULL,
    channel integer NOT NULL,
    url text NOT NULL,
    headers bytea,
    header_names text[] DEFAULT '{}'::text[] NOT NULL,
    is_paused boolean NOT NULL,
    max_running integer NOT NULL,
    timeout double precision NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT operator_runs_something CHECK ((max_running > 0))
);

CREATE TABLE public.pace (
    ns integer NOT NULL,
    channel integer NOT NULL,
    at timestamp with time zone NOT NULL,
    what smallint NOT NULL,
    n bigint NOT NULL
)
WITH (fillfactor='70');

CREATE TABLE public.parked (
    ns integer NOT NULL,
    workgroup integer NOT NULL,
    rank integer NOT NULL,
    no bigint NOT NULL,
    channel integer NOT NULL,
    group_no bigint NOT NULL,
    attempt integer NOT NULL,
    remaining integer NOT NULL,
    failures integer NOT NULL,
    ready_at timestamp with time zone NOT NULL,
    key text COLLATE pg_catalog."C",
    paused boolean DEFAULT false NOT NULL
);

CREATE TABLE public.pause (
    ns integer NOT NULL,
    kind smallint NOT NULL,
    ref bigint NOT NULL
);

CREATE TABLE public.plucked (
    ns integer NOT NULL,
    no bigint NOT NULL,
    place integer NOT NULL,
    id uuid NOT NULL,
    name text NOT NULL,
    channel text NOT NULL,
    state smallint NOT NULL,
    input json,
    output json
);

CREATE TABLE public.progress (
    ns integer NOT NULL,
    no bigint NOT NULL,
    fraction double precision,
    message text
);

CREATE TABLE public.ready (
    ns integer NOT NULL,
    channel integer NOT NULL,
    rank integer NOT NULL,
    workgroup integer NOT NULL,
    no bigint NOT NULL,
    group_no bigint NOT NULL,
    attempt integer NOT NULL,
    remaining integer NOT NULL,
    failures integer NOT NULL,
    ready_at timestamp with time zone DEFAULT now() NOT NULL,
    key text COLLATE pg_catalog."C",
    admitted boolean DEFAULT false NOT NULL
)
WITH (autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='5000', autovacuum_vacuum_cost_delay='0', autovacuum_analyze_scale_factor='0', autovacuum_analyze_threshold='50000');

CREATE TABLE public.runner (
    ns integer NOT NULL,
    channel integer NOT NULL,
    key text NOT NULL COLLATE pg_catalog."C",
    no bigint
)
WITH (fillfactor='70');

CREATE TABLE public.schedule (
    ns integer NOT NULL,
    id uuid NOT NULL,
    name text NOT NULL,
    cron text NOT NULL,
    time_zone text NOT NULL,
    is_paused boolean NOT NULL,
    catch_up smallint NOT NULL,
    overlap smallint NOT NULL,
    template json NOT NULL,
    size integer NOT NULL,
    last_run_at timestamp with time zone,
    next_run_at timestamp with time zone,
    last_group bigint,
    last_error text,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT paused_is_not_due CHECK (((NOT is_paused) OR (next_run_at IS NULL)))
)
WITH (fillfactor='70');

CREATE TABLE public.scheduled (
    ns integer NOT NULL,
    run_at timestamp with time zone NOT NULL,
    no bigint NOT NULL,
    channel integer NOT NULL,
    rank integer NOT NULL,
    workgroup integer NOT NULL,
    group_no bigint NOT NULL,
    attempt integer NOT NULL,
    remaining integer NOT NULL,
    failures integer NOT NULL,
    key text
)
WITH (autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='5000', autovacuum_vacuum_cost_delay='0');

CREATE TABLE public.secret (
    name text NOT NULL,
    value bytea NOT NULL
);

CREATE TABLE public.server (
    ns integer NOT NULL,
    id uuid NOT NULL,
    name text NOT NULL,
    version text NOT NULL,
    started_at timestamp with time zone DEFAULT now() NOT NULL,
    seen_at timestamp with time zone DEFAULT now() NOT NULL,
    reads boolean DEFAULT false NOT NULL
)
WITH (fillfactor='50');

CREATE TABLE public.stream (
    ns integer NOT NULL,
    worker integer NOT NULL,
    id uuid NOT NULL
)
WITH (fillfactor='50');

CREATE TABLE public.tally (
    ns integer NOT NULL,
    ref integer NOT NULL,
    state smallint NOT NULL,
    n bigint NOT NULL
)
WITH (fillfactor='50');

CREATE TABLE public.task_group (
    ns integer NOT NULL,
    group_no bigint NOT NULL,
    id uuid NOT NULL,
    name text NOT NULL,
    metadata json,
    made_upto bigint NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL
);

CREATE SEQUENCE public.task_no
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

CREATE VIEW public.task_place AS
 SELECT t.ns,
    t.no,
    t.id,
    t.group_no,
    t.channel,
    t.workgroup,
    t.rank,
    t.name,
    t.input,
    t.metadata,
    t.run_after,
    t.max_attempts,
    t.retry_delay,
    t.backoff,
    t.max_delay,
    t.weight,
    t.is_seed,
    t.spawned_by,
    t.created_at,
    t.key,
    t.on_duplicate,
    t.timeout,
    t.on_parent_failure,
    (
        CASE
            WHEN (d.no IS NOT NULL) THEN (d.outcome)::integer
            WHEN ((r.no IS NOT NULL) OR (p.no IS NOT NULL)) THEN 2
            WHEN (b.no IS NOT NULL) THEN 0
            WHEN (s.no IS NOT NULL) THEN 1
            WHEN (f.no IS NOT NULL) THEN 6
            WHEN (m.no IS NOT NULL) THEN 4
            ELSE 3
        END)::smallint AS state,
    COALESCE(s.run_at, b.run_at) AS run_at,
    COALESCE(r.ready_at, p.ready_at, m.ready_at) AS ready_at,
    COALESCE(d.attempt, r.attempt, p.attempt, b.attempt, s.attempt, f.attempt, m.attempt) AS attempt,
    COALESCE(d.remaining, r.remaining, p.remaining, b.remaining, s.remaining, f.remaining, m.remaining) AS remaining,
    COALESCE(d.worker, f.worker) AS worker,
    COALESCE(d.started_at, f.started_at) AS started_at,
    COALESCE(d.at, f.at) AS finished_at,
    COALESCE(d.merged_into, m.into_no) AS merged_into,
    d.output
   FROM (((((((public.task t
     LEFT JOIN public.done d ON (((d.ns = t.ns) AND (d.no = t.no))))
     LEFT JOIN public.ready r ON (((r.ns = t.ns) AND (r.channel = t.channel) AND (r.rank = t.rank) AND (r.no = t.no))))
     LEFT JOIN public.parked p ON (((p.ns = t.ns) AND (p.no = t.no))))
     LEFT JOIN public.blocked b ON (((b.ns = t.ns) AND (b.no = t.no))))
     LEFT JOIN public.scheduled s ON (((s.ns = t.ns) AND (s.no = t.no))))
     LEFT JOIN public.failed f ON (((f.ns = t.ns) AND (f.no = t.no))))
     LEFT JOIN public.merged m ON (((m.ns = t.ns) AND (m.no = t.no))));

CREATE TABLE public.worker (
    ns integer NOT NULL,
    worker integer DEFAULT nextval('public.name_no'::regclass) NOT NULL,
    name text NOT NULL COLLATE pg_catalog."C",
    channels text[] DEFAULT '{}'::text[] NOT NULL,
    transport text,
    last_seen_at timestamp with time zone DEFAULT now() NOT NULL
);

CREATE TABLE public.workgroup (
    ns integer NOT NULL,
    workgroup integer DEFAULT nextval('public.name_no'::regclass) NOT NULL,
    name text NOT NULL COLLATE pg_catalog."C"
);

CREATE VIEW public.task_now AS
 SELECT t.ns,
    t.no,
    t.id,
    t.group_no,
    g.id AS group_id,
    t.name,
    c.name AS channel,
    w.name AS workgroup,
    t.key,
    t.state,
    (- t.rank) AS priority,
    t.input,
    t.output,
    t.metadata,
    t.run_after,
        CASE
            WHEN (t.state = ANY (ARRAY[0, 1, 2])) THEN GREATEST(
            CASE
                WHEN (t.run_at > now()) THEN t.run_at
                ELSE NULL::timestamp with time zone
            END,
            CASE
                WHEN (h.until > now()) THEN h.until
                ELSE NULL::timestamp with time zone
            END)
            ELSE NULL::timestamp with time zone
        END AS not_before,
        CASE
            WHEN (t.state = 2) THEN (((((
            CASE
                WHEN (EXISTS ( SELECT
                   FROM public.pause x
                  WHERE ((x.ns = t.ns) AND (x.kind = 1) AND (x.ref = t.no)))) THEN 1
                ELSE 0
            END +
            CASE
                WHEN (EXISTS ( SELECT
                   FROM public.pause x
                  WHERE ((x.ns = t.ns) AND (x.kind = 2) AND (x.ref = t.group_no)))) THEN 2
                ELSE 0
            END) +
            CASE
                WHEN (EXISTS ( SELECT
                   FROM public.pause x
                  WHERE ((x.ns = t.ns) AND (x.kind = 3) AND (x.ref = t.channel)))) THEN 4
                ELSE 0
            END) +
            CASE
                WHEN (h.until > now()) THEN 8
                ELSE 0
            END) +
            CASE
                WHEN (EXISTS ( SELECT
                   FROM public.at_limit x
                  WHERE ((x.ns = t.ns) AND (x.kind = 1) AND (x.ref = t.channel)))) THEN 16
                ELSE 0
            END) +
            CASE
                WHEN (EXISTS ( SELECT
                   FROM public.at_limit x
                  WHERE ((x.ns = t.ns) AND (x.kind = 2) AND (x.ref = t.workgroup)))) THEN 32
                ELSE 0
            END)
            ELSE 0
        END AS holds,
    COALESCE(t.attempt, l.attempt, 0) AS attempt,
    COALESCE(t.remaining, l.remaining, 0) AS remaining,
    t.max_attempts,
    t.retry_delay,
    t.backoff,
    t.max_delay,
    t.timeout,
    t.on_parent_failure,
    t.weight,
    t.is_seed,
    o.fraction AS progress,
    o.message AS progress_message,
    t.spawned_by,
    t.merged_into,
    k.name AS worker_id,
    l.until AS lease_expires_at,
    t.created_at,
    t.ready_at,
    COALESCE(l.started_at, t.started_at,
        CASE
            WHEN (t.attempt > 0) THEN ( SELECT max(e.started_at) AS max
               FROM public.error e
              WHERE ((e.ns = t.ns) AND (e.no = t.no)))
            ELSE NULL::timestamp with time zone
        END) AS started_at,
    t.finished_at
   FROM (((((((public.task_place t
     JOIN public.task_group g ON (((g.ns = t.ns) AND (g.group_no = t.group_no))))
     JOIN public.channel c ON (((c.ns = t.ns) AND (c.channel = t.channel))))
     LEFT JOIN public.workgroup w ON (((w.ns = t.ns) AND (w.workgroup = t.workgroup))))
     LEFT JOIN public.hold h ON (((h.ns = t.ns) AND (h.workgroup = t.workgroup))))
     LEFT JOIN public.progress o ON (((o.ns = t.ns) AND (o.no = t.no))))
     LEFT JOIN LATERAL ( SELECT x.worker,
            x.until,
            x.started_at,
            u.attempt,
            u.remaining
           FROM (public.lease x
             CROSS JOIN LATERAL UNNEST(x.nos, x.attempts, x.remainings) u(no, attempt, remaining))
          WHERE ((t.state = 3) AND (x.ns = t.ns) AND (x.nos @> ARRAY[t.no]) AND (u.no = t.no))
         LIMIT 1) l ON (true))
     LEFT JOIN public.worker k ON (((k.ns = t.ns) AND (k.worker = COALESCE(l.worker, t.worker)))));

CREATE VIEW public.task_seen AS
 SELECT t.ns,
    t.no,
    t.id,
    t.group_no,
    g.id AS group_id,
    t.name,
    c.name AS channel,
    w.name AS workgroup,
    t.key,
    t.state,
    (- t.rank) AS priority,
    t.input,
    t.output,
    t.metadata,
    t.run_after,
        CASE
            WHEN (t.state = ANY (ARRAY[0, 1, 2])) THEN GREATEST(
            CASE
                WHEN (t.run_at > now()) THEN t.run_at
                ELSE NULL::timestamp with time zone
            END,
            CASE
                WHEN (h.until > now()) THEN h.until
                ELSE NULL::timestamp with time zone
            END)
            ELSE NULL::timestamp with time zone
        END AS not_before,
        CASE
            WHEN (t.state = 2) THEN (((((
            CASE
                WHEN (EXISTS ( SELECT
                   FROM public.pause x
                  WHERE ((x.ns = t.ns) AND (x.kind = 1) AND (x.ref = t.no)))) THEN 1
                ELSE 0
            END +
            CASE
                WHEN (EXISTS ( SELECT
                   FROM public.pause x
                  WHERE ((x.ns = t.ns) AND (x.kind = 2) AND (x.ref = t.group_no)))) THEN 2
                ELSE 0
            END) +
            CASE
                WHEN (EXISTS ( SELECT
                   FROM public.pause x
                  WHERE ((x.ns = t.ns) AND (x.kind = 3) AND (x.ref = t.channel)))) THEN 4
                ELSE 0
            END) +
            CASE
                WHEN (h.until > now()) THEN 8
                ELSE 0
            END) +
            CASE
                WHEN (EXISTS ( SELECT
                   FROM public.at_limit x
                  WHERE ((x.ns = t.ns) AND (x.kind = 1) AND (x.ref = t.channel)))) THEN 16
                ELSE 0
            END) +
            CASE
                WHEN (EXISTS ( SELECT
                   FROM public.at_limit x
                  WHERE ((x.ns = t.ns) AND (x.kind = 2) AND (x.ref = t.workgroup)))) THEN 32
                ELSE 0
            END)
            ELSE 0
        END AS holds,
    t.attempt,
    t.remaining,
    t.max_attempts,
    t.retry_delay,
    t.backoff,
    t.max_delay,
    t.timeout,
    t.on_parent_failure,
    t.weight,
    t.is_seed,
    o.fraction AS progress,
    o.message AS progress_message,
    t.spawned_by,
    t.merged_into,
    t.worker,
    t.created_at,
    t.ready_at,
    t.started_at,
    t.finished_at
   FROM (((((public.task_place t
     JOIN public.task_group g ON (((g.ns = t.ns) AND (g.group_no = t.group_no))))
     JOIN public.channel c ON (((c.ns = t.ns) AND (c.channel = t.channel))))
     LEFT JOIN public.workgroup w ON (((w.ns = t.ns) AND (w.workgroup = t.workgroup))))
     LEFT JOIN public.hold h ON (((h.ns = t.ns) AND (h.workgroup = t.workgroup))))
     LEFT JOIN public.progress o ON (((o.ns = t.ns) AND (o.no = t.no))));

CREATE TABLE public.tick (
    ns integer NOT NULL,
    tick bigint NOT NULL,
    snapshot pg_snapshot NOT NULL,
    mark integer DEFAULT floor((random() * (2147483647)::double precision)) NOT NULL,
    at timestamp with time zone DEFAULT now() NOT NULL
);

ALTER TABLE ONLY public.ahead
    ADD CONSTRAINT ahead_pkey PRIMARY KEY (ns, no);

ALTER TABLE ONLY public.api_key
    ADD CONSTRAINT api_key_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.blocked
    ADD CONSTRAINT blocked_pkey PRIMARY KEY (ns, no);

ALTER TABLE ONLY public.cap
    ADD CONSTRAINT cap_pkey PRIMARY KEY (ns, kind, ref);

ALTER TABLE ONLY public.channel
    ADD CONSTRAINT channel_has_one_name UNIQUE (ns, name);

ALTER TABLE ONLY public.operator
    ADD CONSTRAINT channel_has_one_operator UNIQUE (ns, channel);

ALTER TABLE ONLY public.channel
    ADD CONSTRAINT channel_pkey PRIMARY KEY (ns, channel);

ALTER TABLE ONLY public.claim
    ADD CONSTRAINT claim_is_taken_once PRIMARY KEY (ns, claim_id);

ALTER TABLE ONLY public.delivery
    ADD CONSTRAINT delivery_pkey PRIMARY KEY (ns, channel);

ALTER TABLE ONLY public.edge
    ADD CONSTRAINT edge_pkey PRIMARY KEY (ns, parent, child);

ALTER TABLE ONLY public.error
    ADD CONSTRAINT error_pkey PRIMARY KEY (ns, no, seq);

ALTER TABLE ONLY public.failed
    ADD CONSTRAINT failed_pkey PRIMARY KEY (ns, no);

ALTER TABLE ONLY public.feeder
    ADD CONSTRAINT feeder_pkey PRIMARY KEY (ns, no, join_no);

ALTER TABLE ONLY public.fold
    ADD CONSTRAINT fold_pkey PRIMARY KEY (ns);

ALTER TABLE ONLY public.gone
    ADD CONSTRAINT gone_pkey PRIMARY KEY (ns, kind, ref);

ALTER TABLE ONLY public.group_fold
    ADD CONSTRAINT group_fold_pkey PRIMARY KEY (ns);

ALTER TABLE ONLY public.task_group
    ADD CONSTRAINT group_id_is_unique UNIQUE (ns, id);

ALTER TABLE ONLY public.group_tally
    ADD CONSTRAINT group_tally_pkey PRIMARY KEY (ns, group_no);

ALTER TABLE ONLY public.hold
    ADD CONSTRAINT hold_pkey PRIMARY KEY (ns, workgroup);

ALTER TABLE ONLY public.inbox
    ADD CONSTRAINT inbox_pkey PRIMARY KEY (ns, seq);

ALTER TABLE ONLY public.inbox_refused
    ADD CONSTRAINT inbox_refused_pkey PRIMARY KEY (ns, seq);

ALTER TABLE ONLY public.keyed
    ADD CONSTRAINT keyed_pkey PRIMARY KEY (ns, channel, key, no);

ALTER TABLE ONLY public.lease
    ADD CONSTRAINT lease_pkey PRIMARY KEY (ns, lease_no, part);

ALTER TABLE ONLY public.merged
    ADD CONSTRAINT merged_pkey PRIMARY KEY (ns, no);

ALTER TABLE ONLY public.migration
    ADD CONSTRAINT migration_pkey PRIMARY KEY (number);

ALTER TABLE ONLY public.namespace
    ADD CONSTRAINT namespace_has_one_name UNIQUE (name);

ALTER TABLE ONLY public.namespace
    ADD CONSTRAINT namespace_pkey PRIMARY KEY (ns);

ALTER TABLE ONLY public.operator
    ADD CONSTRAINT operator_pkey PRIMARY KEY (ns, id);

ALTER TABLE ONLY public.pace
    ADD CONSTRAINT pace_pkey PRIMARY KEY (ns, channel, at, what);

ALTER TABLE ONLY public.parked
    ADD CONSTRAINT parked_pkey PRIMARY KEY (ns, no);

ALTER TABLE ONLY public.pause
    ADD CONSTRAINT pause_pkey PRIMARY KEY (ns, kind, ref);

ALTER TABLE ONLY public.plucked
    ADD CONSTRAINT plucked_pkey PRIMARY KEY (ns, no, place);

ALTER TABLE ONLY public.progress
    ADD CONSTRAINT progress_pkey PRIMARY KEY (ns, no);

ALTER TABLE ONLY public.runner
    ADD CONSTRAINT runner_pkey PRIMARY KEY (ns, channel, key);

ALTER TABLE ONLY public.schedule
    ADD CONSTRAINT schedule_pkey PRIMARY KEY (ns, id);

ALTER TABLE ONLY public.scheduled
    ADD CONSTRAINT scheduled_pkey PRIMARY KEY (ns, no);

ALTER TABLE ONLY public.api_key
    ADD CONSTRAINT secret_is_of_one_key UNIQUE (hash);

ALTER TABLE ONLY public.secret
    ADD CONSTRAINT secret_pkey PRIMARY KEY (name);

ALTER TABLE ONLY public.server
    ADD CONSTRAINT server_pkey PRIMARY KEY (ns, id);

ALTER TABLE ONLY public.stream
    ADD CONSTRAINT stream_pkey PRIMARY KEY (ns, worker);

ALTER TABLE ONLY public.tally
    ADD CONSTRAINT tally_pkey PRIMARY KEY (ns, ref, state);

ALTER TABLE ONLY public.done
    ADD CONSTRAINT task_ends_once PRIMARY KEY (ns, no);

ALTER TABLE ONLY public.task_group
    ADD CONSTRAINT task_group_pkey PRIMARY KEY (ns, group_no);

ALTER TABLE ONLY public.task
    ADD CONSTRAINT task_id_is_unique UNIQUE (ns, id);

ALTER TABLE ONLY public.task
    ADD CONSTRAINT task_pkey PRIMARY KEY (ns, no);

ALTER TABLE ONLY public.tick
    ADD CONSTRAINT tick_pkey PRIMARY KEY (ns, tick);

ALTER TABLE ONLY public.worker
    ADD CONSTRAINT worker_has_one_name UNIQUE (ns, name);

ALTER TABLE ONLY public.worker
    ADD CONSTRAINT worker_pkey PRIMARY KEY (ns, worker);

ALTER TABLE ONLY public.workgroup
    ADD CONSTRAINT workgroup_has_one_name UNIQUE (ns, name);

ALTER TABLE ONLY public.workgroup
    ADD CONSTRAINT workgroup_pkey PRIMARY KEY (ns, workgroup);

CREATE INDEX cancelled_by_end ON public.done USING btree (ns, at, no) WHERE (outcome = 7);

CREATE INDEX cancelled_by_number ON public.done USING btree (ns, no) WHERE (outcome = 7);

CREATE INDEX done_by_end ON public.done USING btree (ns, at, no);

CREATE INDEX edge_of_child ON public.edge USING btree (ns, child, place);

CREATE INDEX event_by_xid ON public.event USING btree (ns, xid);

CREATE INDEX failed_by_end ON public.failed USING btree (ns, at, no);

CREATE INDEX feeder_of_join ON public.feeder USING btree (ns, join_no);

CREATE INDEX gone_at ON public.gone USING btree (ns, at);

CREATE INDEX group_by_end ON public.group_tally USING btree (ns, finished_at, group_no) WHERE (finished_at IS NOT NULL);

CREATE INDEX group_by_name ON public.task_group USING btree (ns, name COLLATE "C", group_no);

CREATE INDEX group_failing ON public.group_tally USING btree (ns, group_no) WHERE (failing > 0);

CREATE INDEX group_finished ON public.group_tally USING btree (ns, group_no) WHERE (finished_at IS NOT NULL);

CREATE INDEX group_open ON public.group_tally USING btree (ns, group_no) WHERE (finished_at IS NULL);

CREATE INDEX inbox_refused_at ON public.inbox_refused USING btree (ns, at);

CREATE INDEX lease_by_end ON public.lease USING btree (ns, until);

CREATE INDEX lease_offered ON public.lease USING btree (ns, worker) WHERE (offer IS NOT NULL);

CREATE INDEX merged_of_runner ON public.merged USING btree (ns, into_no);

CREATE INDEX parked_by_rank ON public.parked USING btree (ns, rank, no);

CREATE INDEX parked_lane ON public.parked USING btree (ns, workgroup, channel, rank, no) WHERE (NOT paused);

CREATE INDEX parked_of_group ON public.parked USING btree (ns, group_no) WHERE paused;

CREATE INDEX parked_of_key ON public.parked USING btree (ns, channel, key) WHERE (key IS NOT NULL);

CREATE INDEX parked_of_suspended ON public.parked USING btree (ns, workgroup, rank, no) WHERE (NOT paused);

CREATE UNIQUE INDEX ready_by_rank ON public.ready USING btree (ns, channel, rank, no);

CREATE INDEX ready_of_key ON public.ready USING btree (ns, channel, key) WHERE (key IS NOT NULL);

CREATE INDEX ready_of_workgroup ON public.ready USING btree (ns, workgroup, rank, no) WHERE (workgroup <> 0);

CREATE INDEX runner_without_task ON public.runner USING btree (ns) WHERE (no IS NULL);

CREATE INDEX schedule_by_due ON public.schedule USING btree (ns, next_run_at) WHERE (next_run_at IS NOT NULL);

CREATE INDEX scheduled_by_time ON public.scheduled USING btree (ns, run_at);

CREATE INDEX start_at ON public.start USING btree (ns, workgroup, at);

CREATE INDEX task_by_rank ON public.task USING btree (ns, rank, no) WHERE (rank <> 0);

CREATE INDEX task_of_group ON public.task USING btree (ns, group_no, no);

CREATE INDEX task_of_key ON public.task USING btree (ns, key, no) WHERE (key IS NOT NULL);

CREATE INDEX task_of_other_weight ON public.task USING btree (ns, no) INCLUDE (weight) WHERE (weight <> 1);

CREATE INDEX task_of_spawner ON public.task USING btree (ns, spawned_by) WHERE (spawned_by IS NOT NULL);

CREATE INDEX task_weighed ON public.task USING btree (ns, no) INCLUDE (weight) WHERE (weight <> 1);
