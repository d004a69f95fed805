-- The key store on SQLite, version 1: data keys wrapped by the master key (nonce, AES-256-GCM). A null key was destroyed.
create table subject_keys (
    subject blob primary key,
    identity blob,
    calls blob,
    billing blob,
    tech blob
) strict, without rowid;

-- The key of the blind indexes.
create table index_key (
    id integer primary key check (id = 1),
    key blob not null
) strict;
