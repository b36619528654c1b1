-- Whether a task was made with links to parents, adopted ones too: a claim need not look for results where there are none.
-- Tasks made before this may have some.
alter table task add column has_parents boolean not null default true;
