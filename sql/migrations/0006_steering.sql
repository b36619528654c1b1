-- Deleting, beginning again, changing.

-- What a join that is deleted has left.
create index feeder_of_join on feeder (ns, join_no);
