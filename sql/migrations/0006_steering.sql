-- Deleting, beginning again, changing.

-- What a join that is deleted has left.
create index feeder_of_join on feeder (ns, join_no);

-- Tasks that run or have failed though a parent of theirs begins again: they may end, but do not start anew before it has succeeded.
create table ahead (
  ns int not null,
  no bigint not null,
  primary key (ns, no)
);
