-- Who may call. Few rows, read whole by each server every few seconds; not of one namespace, so `ns` is not in its key.

create table api_key (
  id uuid primary key,
  -- The only namespace that it may enter; null for any.
  ns int,
  name text not null,
  -- SHA-256 of the secret, which is random and long: nothing slower is needed.
  hash bytea not null,
  -- 1 VIEWER, 2 WORKER, 3 ADMIN.
  role smallint not null,
  -- The channels that a WORKER may claim from; null for all.
  channels text[],
  created_at timestamptz not null default now(),
  expires_at timestamptz,
  last_used_at timestamptz,
  -- Revoked keys are kept: where there was a key once, nobody gets in without one.
  revoked_at timestamptz,
  constraint secret_is_of_one_key unique (hash),
  constraint role_is_known check (role between 1 and 3)
);
