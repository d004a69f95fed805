-- Version 2: a keyed hash of the key store that this data was sealed with, written when the two are opened together first.
create table key_store (
    id bigint primary key check (id = 1),
    mark bytea not null check (length(mark) = 32)
);
