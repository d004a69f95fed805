-- Ringfence on SQLite, version 1. Money is a bigint of micro-units, time a bigint of microseconds since 1970 UTC, an identity
-- a UUIDv7 of 16 bytes. A blob named like personal data is sealed (version, nonce, AES-256-GCM); its key lives in another
-- database. `…_index` is a keyed hash of a sealed value, by which it can be found; it goes when the key is destroyed.

create table counters (
    name text primary key,
    value integer not null
) strict, without rowid;
insert into counters (name, value) values ('account_key', 0);

create table brands (
    id blob primary key check (length(id) = 16),
    domain text not null,
    realm text not null
) strict, without rowid;

create table users (
    id blob primary key check (length(id) = 16),
    brand blob not null references brands (id),
    email blob not null,
    email_index blob unique,
    username blob not null,
    password blob,
    created_at integer not null
) strict, without rowid;

create table operator_roles (
    user_id blob not null references users (id),
    role text not null,
    primary key (user_id, role)
) strict, without rowid;

create table decks (
    id blob primary key check (length(id) = 16),
    name text not null unique,
    currency text not null check (length(currency) = 3),
    tax_included integer not null check (tax_included in (0, 1)),
    version blob not null,
    unique (id, currency)
) strict, without rowid;

create table deck_versions (
    id blob primary key check (length(id) = 16),
    deck blob not null references decks (id),
    content_sha256 blob not null,
    created_at integer not null
) strict, without rowid;

create table rates (
    version blob not null references deck_versions (id),
    line integer not null,
    prefix text not null,
    destination text not null,
    per_minute integer not null check (per_minute >= 0),
    connect_fee integer not null check (connect_fee >= 0),
    minimum_s integer not null check (minimum_s >= 0),
    increment_s integer not null check (increment_s >= 1),
    grace_s integer not null check (grace_s >= 0),
    effective_from integer,
    effective_until integer,
    primary key (version, line)
) strict, without rowid;

create table trunks (
    id blob primary key check (length(id) = 16),
    name text not null unique,
    gateway text not null,
    currency text not null check (length(currency) = 3),
    deck blob not null references decks (id),
    max_channels integer not null,
    max_cps integer not null,
    priority integer not null,
    large_over_tcp integer not null check (large_over_tcp in (0, 1)),
    trusted integer not null check (trusted in (0, 1))
) strict, without rowid;

-- How we show a carrier who we are; a trunk without a row is trusted by its address.
create table trunk_logins (
    trunk blob primary key references trunks (id),
    username text not null,
    password blob not null,
    realm text,
    register_s integer check (register_s > 0)
) strict, without rowid;

create table accounts (
    key integer primary key,
    id blob not null unique check (length(id) = 16),
    brand blob not null references brands (id),
    parent integer references accounts (key),
    country text not null,
    time_zone text not null,
    currency text not null,
    deck blob not null,
    max_live_calls integer not null,
    calls_per_minute integer not null,
    call_seconds integer not null,
    max_rate_per_minute integer,
    created_at integer not null,
    -- The first entry whose events are kept; those before were purged.
    events_from integer not null default 1 check (events_from >= 1),
    foreign key (deck, currency) references decks (id, currency)
) strict;

create table memberships (
    user_id blob not null references users (id),
    account_key integer not null references accounts (key),
    role text not null,
    primary key (user_id, account_key)
) strict, without rowid;

create table credentials (
    id blob primary key check (length(id) = 16),
    account_key integer not null references accounts (key),
    username text not null unique check (length(username) between 1 and 64),
    label blob not null,
    secret blob not null,
    created_at integer not null,
    last_registered_at integer
) strict, without rowid;
create index credentials_account on credentials (account_key);

create table caller_ids (
    id blob primary key check (length(id) = 16),
    account_key integer not null references accounts (key),
    number blob not null,
    number_index blob,
    label blob,
    status text not null,
    evidence text,
    is_default integer not null check (is_default in (0, 1)),
    verified_at integer,
    expires_at integer,
    unique (number_index, account_key)
) strict, without rowid;
create index caller_ids_account on caller_ids (account_key);

create table caller_id_history (
    account_key integer not null,
    seq integer not null,
    caller_id blob not null,
    at integer not null,
    status text not null,
    evidence text,
    primary key (account_key, seq, caller_id)
) strict, without rowid;

create table callback_numbers (
    id blob primary key check (length(id) = 16),
    account_key integer not null references accounts (key),
    number blob not null,
    label blob,
    status text not null
) strict, without rowid;
create index callback_numbers_account on callback_numbers (account_key);

-- The hot tables. They have no foreign keys: an entry follows the one before it, the first is written with its account, and
-- `ringfence audit` looks for orphans.

-- Live calls only: a row goes when its call is settled. A hold is open while its call has a row here.
create table calls (
    account_key integer not null,
    no integer not null check (no > 0),
    id blob not null unique check (length(id) = 16),
    held integer not null check (held >= 0),
    hold_step integer not null check (hold_step >= 0), -- of its newest hold: each step is held for once
    paid_s integer not null check (paid_s >= 0),
    -- The last moment at which it was known to be up, by all clocks.
    proof_at integer,
    proof_mono integer,
    proof_boot blob check (length(proof_boot) = 16),
    -- What no renewal changes.
    state blob not null,
    -- Its dialogs, as their SIP side left them, and the answer's session description: written when they change, read after a restart.
    a_leg blob,
    b_leg blob,
    answer_sdp blob,
    primary key (account_key, no)
) strict;

-- One row for each journal entry, in the order in which they came; found by one small index. A page that a row changes costs more
-- than the row, and rows in the order of accounts would change a page each.
--
-- An entry says what the account's figures are after it: its newest entry has those of now. A row moves one thing at most: money
-- set aside for a call (`leg`, `step`, `amount`), or a transfer; `call_no` alone is a call that ended without a charge. An entry that
-- moves more has further rows, which repeat all else.
create table entries (
    id integer primary key,
    account_key integer not null,
    seq integer not null check (seq >= 0),
    position integer not null check (position >= 0),
    at integer not null,
    status text not null,
    total integer not null,
    held integer not null check (held >= 0),
    receivable integer not null check (receivable >= 0),
    last_call integer not null check (last_call >= 0),
    event_count integer not null check (event_count >= 0), -- what it told of; kept for a while in `events`
    call_no integer check (call_no > 0),
    amount integer check (amount >= 0),
    leg integer check (leg in (0, 1)),
    step integer check (step >= 0),
    -- `amount` leaves `debit` and arrives at `credit`: a transfer is balanced by its form. A call's carries a second pair, carrier cost
    -- to carrier payable, in the carrier's currency.
    transfer blob check (length(transfer) = 16),
    kind text,
    debit text,
    credit text,
    cost_trunk blob,
    cost_micros integer check (cost_micros >= 0),
    cost_currency text,
    loss integer check (loss >= 0),
    key text check (length(key) between 1 and 128),
    request blob,
    balance_after integer, -- null: `total`
    description text,
    constraint entries_key unique (account_key, seq, position),
    constraint l1_available check (total >= held),
    constraint l2_two_ends check (debit <> credit),
    constraint hold_whole check ((leg is null) = (step is null) and (leg is null or call_no is not null)),
    constraint transfer_whole check ((transfer is null) = (kind is null) and (transfer is null) = (debit is null)
        and (transfer is null) = (credit is null) and (transfer is null) = (loss is null) and (transfer is null) = (description is null)),
    constraint one_movement check ((amount is null) = (leg is null and transfer is null) and (leg is null or transfer is null)),
    constraint cost_whole check ((cost_trunk is null) = (cost_micros is null) and (cost_trunk is null) = (cost_currency is null)),
    constraint key_whole check ((key is null) = (request is null)),
    constraint of_a_transfer check (transfer is not null or (cost_trunk is null and key is null and balance_after is null))
) strict;
create unique index entries_transfer on entries (transfer) where transfer is not null;
create unique index l4_transfer_keys on entries (account_key, key) where key is not null;

-- What an entry told of, sealed; by the entry's first row. Kept 24 hours and for the last 10,000 entries of an account. Apart from
-- the entries, so that the room of those that were purged is used again.
create table events (
    id integer primary key,
    payload blob not null
) strict;

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
    account_key integer not null,
    call_no integer not null,
    number integer not null,
    trunk blob not null,
    started_at integer not null,
    ended_at integer not null,
    sip_code integer not null,
    primary key (account_key, call_no, number)
) strict, without rowid;

-- `record` is the whole CDR, sealed; the plain columns are what billing keeps after the key of the call data is destroyed.
create table cdrs (
    account_key integer not null,
    no integer not null check (no > 0),
    id blob not null unique check (length(id) = 16),
    at integer not null,
    credential blob,
    mode text not null,
    state text not null check (state in ('ENDED', 'REFUSED')),
    withheld integer not null check (withheld in (0, 1)),
    started_at integer not null,
    answered_at integer,
    ended_at integer,
    currency text not null,
    talk_ms integer not null check (talk_ms >= 0),
    billed_s integer not null check (billed_s >= 0),
    charged integer not null check (charged >= 0),
    loss integer not null check (loss >= 0),
    cost_trunk blob,
    cost_micros integer check (cost_micros >= 0),
    cost_currency text,
    attempts integer not null,
    destination_index blob,
    record blob not null,
    primary key (account_key, no)
) strict;

create table sessions (
    token_sha256 blob primary key check (length(token_sha256) = 32),
    id blob not null unique check (length(id) = 16),
    user_id blob not null references users (id),
    created_at integer not null,
    last_used_at integer not null,
    expires_at integer not null
) strict, without rowid;
create index sessions_user on sessions (user_id);

create table device_tokens (
    token_sha256 blob primary key check (length(token_sha256) = 32),
    id blob not null unique check (length(id) = 16),
    user_id blob not null references users (id),
    label blob not null,
    scopes integer not null,
    created_at integer not null,
    last_used_at integer
) strict, without rowid;
create index device_tokens_user on device_tokens (user_id);

create table bindings (
    credential blob not null references credentials (id),
    identity_index blob not null,
    account_key integer not null,
    binding blob not null,
    expires_at integer not null,
    primary key (credential, identity_index)
) strict, without rowid;

-- Append-only tables. A purge at the end of a retention class (a later issue) drops and makes these triggers again in the
-- transaction that removes the rows, so that nothing else ever can.
create trigger entries_update before update on entries begin select raise(abort, 'entries are append-only'); end;
create trigger entries_delete before delete on entries begin select raise(abort, 'entries are append-only'); end;
create trigger attempts_update before update on attempts begin select raise(abort, 'attempts are append-only'); end;
create trigger attempts_delete before delete on attempts begin select raise(abort, 'attempts are append-only'); end;
create trigger caller_id_history_update before update on caller_id_history
    begin select raise(abort, 'caller_id_history is append-only'); end;
create trigger caller_id_history_delete before delete on caller_id_history
    begin select raise(abort, 'caller_id_history is append-only'); end;
-- One thing may change in a CDR: its blind index is erased when the key of its call data is destroyed.
create trigger cdrs_update before update of account_key, no, id, at, credential, mode, state, withheld, started_at, answered_at,
    ended_at, currency, talk_ms, billed_s, charged, loss, cost_trunk, cost_micros, cost_currency, attempts, record on cdrs
    begin select raise(abort, 'cdrs are append-only'); end;
create trigger cdrs_index before update of destination_index on cdrs when new.destination_index is not null
    begin select raise(abort, 'cdrs are append-only'); end;
create trigger cdrs_delete before delete on cdrs begin select raise(abort, 'cdrs are append-only'); end;
