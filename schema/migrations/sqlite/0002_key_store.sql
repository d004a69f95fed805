-- Version 2: a keyed hash of the key store that this data was sealed with, written when the two are opened together first.
create table key_store (
    id integer primary key check (id = 1),
    mark blob not null check (length(mark) = 32)
) strict;
