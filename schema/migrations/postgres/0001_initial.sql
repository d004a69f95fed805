-- Ringfence on PostgreSQL, version 1. Money is a bigint of micro-units, time a bigint of microseconds since 1970 UTC, an identity
-- a UUIDv7. A bytea named like personal data is sealed (version, nonce, AES-256-GCM); its key lives in another
-- database. `…_index` is a keyed hash of a sealed value, by which it can be found; it goes when the key is destroyed.

create table counters (
    name text primary key,
    value bigint not null
);
insert into counters (name, value) values ('account_key', 0);

create table brands (
    id uuid primary key,
    domain text not null,
    realm text not null
);

create table users (
    id uuid primary key,
    brand uuid not null references brands (id),
    email bytea not null,
    email_index bytea unique,
    username bytea not null,
    password bytea,
    created_at bigint not null
);

create table operator_roles (
    user_id uuid not null references users (id),
    role text not null,
    primary key (user_id, role)
);

create table decks (
    id uuid primary key,
    name text not null unique,
    currency text not null check (length(currency) = 3),
    tax_included boolean not null,
    version uuid not null,
    unique (id, currency)
);

create table deck_versions (
    id uuid primary key,
    deck uuid not null references decks (id),
    content_sha256 bytea not null,
    created_at bigint not null
);

create table rates (
    version uuid not null references deck_versions (id),
    line bigint not null,
    prefix text not null,
    destination text not null,
    per_minute bigint not null check (per_minute >= 0),
    connect_fee bigint not null check (connect_fee >= 0),
    minimum_s bigint not null check (minimum_s >= 0),
    increment_s bigint not null check (increment_s >= 1),
    grace_s bigint not null check (grace_s >= 0),
    effective_from bigint,
    effective_until bigint,
    primary key (version, line)
);

create table trunks (
    id uuid primary key,
    name text not null unique,
    gateway text not null,
    currency text not null check (length(currency) = 3),
    deck uuid not null references decks (id),
    max_channels bigint not null,
    max_cps bigint not null,
    priority bigint not null,
    large_over_tcp boolean not null,
    trusted boolean not null
);

-- How we show a carrier who we are; a trunk without a row is trusted by its address.
create table trunk_logins (
    trunk uuid primary key references trunks (id),
    username text not null,
    password bytea not null,
    realm text,
    register_s bigint check (register_s > 0)
);

create table accounts (
    key bigint primary key,
    id uuid not null unique,
    brand uuid not null references brands (id),
    parent bigint references accounts (key),
    country text not null,
    time_zone text not null,
    currency text not null,
    deck uuid not null,
    max_live_calls bigint not null,
    calls_per_minute bigint not null,
    call_seconds bigint not null,
    max_rate_per_minute bigint,
    created_at bigint not null,
    -- The first entry whose events are kept; those before were purged.
    events_from bigint not null default 1 check (events_from >= 1),
    foreign key (deck, currency) references decks (id, currency)
);

create table memberships (
    user_id uuid not null references users (id),
    account_key bigint not null references accounts (key),
    role text not null,
    primary key (user_id, account_key)
);

create table credentials (
    id uuid primary key,
    account_key bigint not null references accounts (key),
    username text not null unique check (length(username) between 1 and 64),
    label bytea not null,
    secret bytea not null,
    created_at bigint not null,
    last_registered_at bigint
);
create index credentials_account on credentials (account_key);

create table caller_ids (
    id uuid primary key,
    account_key bigint not null references accounts (key),
    number bytea not null,
    number_index bytea,
    label bytea,
    status text not null,
    evidence text,
    is_default boolean not null,
    verified_at bigint,
    expires_at bigint,
    unique (number_index, account_key)
);
create index caller_ids_account on caller_ids (account_key);

create table caller_id_history (
    account_key bigint not null,
    seq bigint not null,
    caller_id uuid not null,
    at bigint not null,
    status text not null,
    evidence text,
    primary key (account_key, seq, caller_id)
);

create table callback_numbers (
    id uuid primary key,
    account_key bigint not null references accounts (key),
    number bytea not null,
    label bytea,
    status text not null
);
create index callback_numbers_account on callback_numbers (account_key);

-- The hot tables. They have no foreign keys: an entry follows the one before it, the first is written with its account, and
-- `ringfence audit` looks for orphans.

-- Live calls only: a row goes when its call is settled. A hold is open while its call has a row here.
create table calls (
    account_key bigint not null,
    no bigint not null check (no > 0),
    id uuid not null unique,
    held bigint not null check (held >= 0),
    hold_step bigint not null check (hold_step >= 0), -- of its newest hold: each step is held for once
    paid_s bigint not null check (paid_s >= 0),
    -- The last moment at which it was known to be up, by all clocks.
    proof_at bigint,
    proof_mono bigint,
    proof_boot uuid,
    -- What no renewal changes.
    state bytea not null,
    -- Its dialogs, as their SIP side left them, and the answer's session description: written when they change, read after a restart.
    a_leg bytea,
    b_leg bytea,
    answer_sdp bytea,
    primary key (account_key, no)
);

-- One row for each journal entry, in the order in which they came.
--
-- An entry says what the account's figures are after it: its newest entry has those of now. A row moves one thing at most: money
-- set aside for a call (`leg`, `step`, `amount`), or a transfer; `call_no` alone is a call that ended without a charge. An entry that
-- moves more has further rows, which repeat all else.
create table entries (
    id bigint generated always as identity,
    account_key bigint not null,
    seq bigint not null check (seq >= 0),
    position bigint not null check (position >= 0),
    at bigint not null,
    status text not null,
    total bigint not null,
    held bigint not null check (held >= 0),
    receivable bigint not null check (receivable >= 0),
    last_call bigint not null check (last_call >= 0),
    event_count bigint not null check (event_count >= 0), -- what it told of; kept for a while in `events`
    call_no bigint check (call_no > 0),
    amount bigint check (amount >= 0),
    leg bigint check (leg in (0, 1)),
    step bigint check (step >= 0),
    -- `amount` leaves `debit` and arrives at `credit`: a transfer is balanced by its form. A call's carries a second pair, carrier cost
    -- to carrier payable, in the carrier's currency.
    transfer uuid,
    kind text,
    debit text,
    credit text,
    cost_trunk uuid,
    cost_micros bigint check (cost_micros >= 0),
    cost_currency text,
    loss bigint check (loss >= 0),
    key text check (length(key) between 1 and 128),
    request bytea,
    balance_after bigint, -- null: `total`
    description text,
    constraint entries_key primary key (account_key, seq, position),
    constraint l1_available check (total >= held),
    constraint l2_two_ends check (debit <> credit),
    constraint hold_whole check ((leg is null) = (step is null) and (leg is null or call_no is not null)),
    constraint transfer_whole check ((transfer is null) = (kind is null) and (transfer is null) = (debit is null)
        and (transfer is null) = (credit is null) and (transfer is null) = (loss is null) and (transfer is null) = (description is null)),
    constraint one_movement check ((amount is null) = (leg is null and transfer is null) and (leg is null or transfer is null)),
    constraint cost_whole check ((cost_trunk is null) = (cost_micros is null) and (cost_trunk is null) = (cost_currency is null)),
    constraint key_whole check ((key is null) = (request is null)),
    constraint of_a_transfer check (transfer is not null or (cost_trunk is null and key is null and balance_after is null))
);
create index entries_id on entries using brin (id) with (autosummarize = on); -- for `ringfence audit`
create unique index entries_transfer on entries (transfer) where transfer is not null;
create unique index l4_transfer_keys on entries (account_key, key) where key is not null;

-- What an entry told of, sealed; by the entry's first row. Kept 24 hours and for the last 10,000 entries of an account. Apart from
-- the entries, so that the room of those that were purged is used again.
create table events (
    id bigint primary key,
    payload bytea not null
);

create view holds as
    select account_key, call_no, leg, step, amount, seq from entries where leg is not null;
create view transfers as
    select account_key, seq, position, transfer as id, at, kind, debit, credit, amount, call_no, cost_trunk, cost_micros,
        cost_currency, loss, key, request, coalesce(balance_after, total) as balance_after, description
    from entries where transfer is not null;
create view account_figures as
    select accounts.key as account_key, seq, status, total, held, receivable, last_call, event_count
    from accounts join entries on entries.account_key = accounts.key and entries.seq =
        (select max(seq) from entries where account_key = accounts.key) and entries.position = 0;

create table attempts (
    account_key bigint not null,
    call_no bigint not null,
    number bigint not null,
    trunk uuid not null,
    started_at bigint not null,
    ended_at bigint not null,
    sip_code bigint not null,
    primary key (account_key, call_no, number)
);

-- `record` is the whole CDR, sealed; the plain columns are what billing keeps after the key of the call data is destroyed.
create table cdrs (
    account_key bigint not null,
    no bigint not null check (no > 0),
    id uuid not null unique,
    at bigint not null,
    credential uuid,
    mode text not null,
    state text not null check (state in ('ENDED', 'REFUSED')),
    withheld boolean not null,
    started_at bigint not null,
    answered_at bigint,
    ended_at bigint,
    currency text not null,
    talk_ms bigint not null check (talk_ms >= 0),
    billed_s bigint not null check (billed_s >= 0),
    charged bigint not null check (charged >= 0),
    loss bigint not null check (loss >= 0),
    cost_trunk uuid,
    cost_micros bigint check (cost_micros >= 0),
    cost_currency text,
    attempts bigint not null,
    destination_index bytea,
    record bytea not null,
    primary key (account_key, no)
);

create table sessions (
    token_sha256 bytea primary key check (length(token_sha256) = 32),
    id uuid not null unique,
    user_id uuid not null references users (id),
    created_at bigint not null,
    last_used_at bigint not null,
    expires_at bigint not null
);
create index sessions_user on sessions (user_id);

create table device_tokens (
    token_sha256 bytea primary key check (length(token_sha256) = 32),
    id uuid not null unique,
    user_id uuid not null references users (id),
    label bytea not null,
    scopes bigint not null,
    created_at bigint not null,
    last_used_at bigint
);
create index device_tokens_user on device_tokens (user_id);

create table bindings (
    credential uuid not null references credentials (id),
    identity_index bytea not null,
    account_key bigint not null,
    binding bytea not null,
    expires_at bigint not null,
    primary key (credential, identity_index)
);

-- Append-only tables. A purge at the end of a retention class (a later issue) disables these triggers in the transaction that
-- removes the rows, so that nothing else ever can.
create function refuse_change() returns trigger language plpgsql as $$
begin
    raise exception '% is append-only', tg_table_name;
end $$;
create trigger append_only before update or delete on entries for each row execute function refuse_change();
create trigger append_only before update or delete on attempts for each row execute function refuse_change();
create trigger append_only before update or delete on caller_id_history for each row execute function refuse_change();
create trigger no_truncate before truncate on entries for each statement execute function refuse_change();
create trigger no_truncate before truncate on attempts for each statement execute function refuse_change();
create trigger no_truncate before truncate on caller_id_history for each statement execute function refuse_change();
create trigger no_truncate before truncate on cdrs for each statement execute function refuse_change();

-- One thing may change in a CDR: its blind index is erased when the key of its call data is destroyed.
create function refuse_cdr_change() returns trigger language plpgsql as $$
begin
    if tg_op = 'UPDATE' and new.destination_index is null then
        new.destination_index := old.destination_index;
        if new is not distinct from old then
            new.destination_index := null;
            return new;
        end if;
    end if;
    raise exception 'cdrs is append-only';
end $$;
create trigger append_only before update or delete on cdrs for each row execute function refuse_cdr_change();
