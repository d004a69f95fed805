-- The key store on PostgreSQL, version 1: data keys wrapped by the master key (nonce, AES-256-GCM). A null key was destroyed.
create table subject_keys (
    subject bytea primary key,
    identity bytea,
    calls bytea,
    billing bytea,
    tech bytea
);

-- The key of the blind indexes.
create table index_key (
    id bigint primary key check (id = 1),
    key bytea not null
);
