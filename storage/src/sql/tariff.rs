//! Decks and trunks in SQL.

use super::account::count;
use super::{Row, SqlStore, Tx, Value, values};
use crate::error::StoreError;
use crate::keyring::{Class, Subject};
use crate::tariff::{Deck, Rate};
use ring::digest::{SHA256, digest};
use schema::carrier::{Trunk, TrunkLogin};
use schema::id::{DeckId, DeckVersionId, TrunkId};
use schema::money::{Currency, Micros, NanosPerMinute};
use schema::pii::Pii;
use schema::rate::RateTerms;
use schema::time::Timestamp;
use std::collections::BTreeMap;
use uuid::Uuid;

/// Where a trunk's password is sealed for.
const PASSWORD: &str = "trunk_logins.password";

const INSERT_RATE: &str = "rates (version, line, prefix, destination, per_minute, connect_fee, minimum_s, increment_s, grace_s, \
     effective_from, effective_until)";

/// Lines of one transaction: some 16 ms, in which the journal waits.
const LINES: usize = 2_000;

fn rate_row(version: DeckVersionId, line: usize, rate: &Rate) -> Vec<Value> {
    let terms = &rate.terms;
    values![
        version.0,
        count(line),
        rate.prefix.as_str(),
        rate.destination.as_str(),
        terms.per_minute.0,
        terms.connect_fee.0,
        terms.minimum_s,
        terms.increment_s,
        terms.grace_s,
        rate.effective_from.map(|t| t.0),
        rate.effective_until.map(|t| t.0),
    ]
}

fn read_rate(row: &mut Row) -> Result<Rate, StoreError> {
    Ok(Rate {
        prefix: row.text()?,
        destination: row.text()?,
        terms: RateTerms {
            per_minute: NanosPerMinute(row.int()?),
            connect_fee: Micros(row.int()?),
            minimum_s: row.small("rates")?,
            increment_s: row.small("rates")?,
            grace_s: row.small("rates")?,
        },
        effective_from: row.opt_int()?.map(Timestamp),
        effective_until: row.opt_int()?.map(Timestamp),
    })
}

/// Equal for decks that differ in nothing but identity.
fn content_sha256(deck: &Deck) -> Vec<u8> {
    let mut text = format!("{}\n{}\n", deck.currency, deck.tax_included);
    for rate in &deck.rates {
        text.push_str(&format!("{rate:?}\n"));
    }
    digest(&SHA256, text.as_bytes()).as_ref().to_vec()
}

async fn read_decks(tx: &mut Tx) -> Result<Vec<Deck>, StoreError> {
    let mut decks = Vec::new();
    // Without those whose first import is under way.
    let text = "select id, name, currency, tax_included, version from decks where version <> $1 order by name";
    for mut row in tx.fetch(text, values![Uuid::nil()]).await? {
        decks.push(Deck {
            id: DeckId(row.id()?),
            name: row.text()?,
            currency: row.word("decks", |c| Currency::parse(c).ok())?,
            tax_included: row.bool()?,
            version: DeckVersionId(row.id()?),
            rates: Vec::new(),
        });
    }
    let text = "select prefix, destination, per_minute, connect_fee, minimum_s, increment_s, grace_s, effective_from, \
                effective_until from rates where version = $1 order by line";
    for deck in &mut decks {
        let rates = &mut deck.rates;
        tx.each(text, values![deck.version.0], |mut row| {
            rates.push(read_rate(&mut row)?);
            Ok(())
        })
        .await?;
    }
    Ok(decks)
}

impl SqlStore {
    pub(crate) async fn decks(&self) -> Result<Vec<Deck>, StoreError> {
        self.db.in_snapshot(read_decks).await
    }

    /// Its lines are written in short transactions, so that no commit of the journal waits for all of them; nothing refers to them
    /// before the last, which makes them the deck's. A version without a hash is one whose lines are not all there.
    pub(crate) async fn put_deck(&self, deck: &Deck, at: Timestamp) -> Result<DeckVersionId, StoreError> {
        let _turn = self.importing.lock().await;
        let content = content_sha256(deck);
        if let Some(version) = self.same_deck(deck, &content).await? {
            return Ok(version);
        }
        self.remove_unfinished(deck).await?;
        self.begin_version(deck, at).await?;
        let mut lines = deck.rates.iter().enumerate().map(|(line, rate)| rate_row(deck.version, line, rate));
        loop {
            let part: Vec<_> = lines.by_ref().take(LINES).collect();
            if part.is_empty() {
                break;
            }
            let mut tx = self.db.write().await?;
            tx.insert(INSERT_RATE, part).await?;
            tx.commit().await?;
        }
        let mut tx = self.db.write().await?;
        let text = "update decks set name = $2, tax_included = $3, version = $4 where id = $1";
        let values = values![deck.id.0, deck.name.as_str(), deck.tax_included, deck.version.0];
        tx.execute(text, values).await.map_err(|e| e.named("deck name", "deck"))?;
        let text = "update deck_versions set content_sha256 = $2 where id = $1";
        tx.execute(text, values![deck.version.0, content]).await?;
        tx.commit().await?;
        Ok(deck.version)
    }

    /// The version that is stored when it says the same.
    async fn same_deck(&self, deck: &Deck, content: &[u8]) -> Result<Option<DeckVersionId>, StoreError> {
        let text = "select d.version, d.currency, v.content_sha256, d.name from decks d join deck_versions v on v.id = d.version \
                    where d.id = $1";
        let Some(mut row) = self.db.look_up_one(text, values![deck.id.0]).await? else { return Ok(None) };
        let (version, currency, stored) = (DeckVersionId(row.id()?), row.text()?, row.bytes()?);
        let name = row.text()?;
        if currency != deck.currency.as_str() {
            return Err(StoreError::Refused("a deck's currency cannot change"));
        }
        Ok((stored == content && name == deck.name).then_some(version))
    }

    /// Removes what imports of this deck left behind that were cut off.
    async fn remove_unfinished(&self, deck: &Deck) -> Result<(), StoreError> {
        let of_deck = || values![deck.id.0, deck.name.as_str()];
        let text = "select v.id from deck_versions v join decks d on d.id = v.deck \
                    where length(v.content_sha256) = 0 and (d.id = $1 or d.name = $2)";
        // As a writer: on SQLite the last step of the one that was cut off may still be under way.
        let mut tx = self.db.write().await?;
        let unfinished = tx.fetch(text, of_deck()).await?;
        tx.commit().await?;
        for mut row in unfinished {
            let version = row.id()?;
            let text = "delete from rates where version = $1 and line in \
                        (select line from rates where version = $1 order by line limit $2)";
            while self.db.execute(text, values![version, count(LINES)]).await? > 0 {}
            self.db.execute("delete from deck_versions where id = $1", values![version]).await?;
        }
        let without_version = "delete from decks where (id = $1 or name = $2) and not exists \
                               (select 1 from deck_versions v where v.deck = decks.id)";
        self.db.execute(without_version, of_deck()).await.map(drop)
    }

    /// A version without lines; a new deck has no other, and no prices yet.
    async fn begin_version(&self, deck: &Deck, at: Timestamp) -> Result<(), StoreError> {
        let mut tx = self.db.write().await?;
        let taken = "select 1 from decks where name = $1 and id <> $2";
        if tx.fetch_one(taken, values![deck.name.as_str(), deck.id.0]).await?.is_some() {
            return Err(StoreError::Taken("deck name"));
        }
        let new = values![deck.id.0, deck.name.as_str(), deck.currency.as_str(), deck.tax_included, Uuid::nil(),];
        let known = tx.fetch_one("select id from decks where id = $1", values![deck.id.0]).await?;
        if known.is_none() {
            let inserted = tx.insert("decks (id, name, currency, tax_included, version)", vec![new]).await;
            inserted.map_err(|e| e.named("deck name", "deck"))?;
        }
        let version = values![deck.version.0, deck.id.0, Vec::<u8>::new(), at.0];
        let inserted = tx.insert("deck_versions (id, deck, content_sha256, created_at)", vec![version]).await;
        inserted.map_err(|e| e.named("deck version", "deck"))?;
        tx.commit().await
    }

    pub(crate) async fn trunks(&self) -> Result<Vec<Trunk>, StoreError> {
        let text = "select id, name, gateway, currency, deck, max_channels, max_cps, priority, large_over_tcp, trusted from trunks \
                    order by name";
        let rows = self.db.look_up(text, values![]).await?;
        rows.into_iter()
            .map(|mut row| {
                Ok(Trunk {
                    id: TrunkId(row.id()?),
                    name: row.text()?,
                    gateway: row.word("trunks", |gateway| gateway.parse().ok())?,
                    currency: row.word("trunks", |c| Currency::parse(c).ok())?,
                    deck: DeckId(row.id()?),
                    max_channels: row.small("trunks")?,
                    max_cps: row.small("trunks")?,
                    priority: row.small("trunks")?,
                    large_over_tcp: row.bool()?,
                    trusted: row.bool()?,
                })
            })
            .collect()
    }

    pub(crate) async fn put_trunk(&self, trunk: &Trunk) -> Result<(), StoreError> {
        let text = "insert into trunks (id, name, gateway, currency, deck, max_channels, max_cps, priority, large_over_tcp, \
                    trusted) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) on conflict (id) do update set name = excluded.name, \
                    gateway = excluded.gateway, currency = excluded.currency, \
                    deck = excluded.deck, max_channels = excluded.max_channels, max_cps = excluded.max_cps, \
                    priority = excluded.priority, \
                    large_over_tcp = excluded.large_over_tcp, trusted = excluded.trusted";
        let values = values![
            trunk.id.0,
            trunk.name.as_str(),
            trunk.gateway.to_string().as_str(),
            trunk.currency.as_str(),
            trunk.deck.0,
            trunk.max_channels,
            trunk.max_cps,
            i64::from(trunk.priority),
            trunk.large_over_tcp,
            trunk.trusted,
        ];
        self.db.execute(text, values).await.map(drop).map_err(|e| e.named("trunk name", "deck"))
    }

    pub(crate) async fn trunk_logins(&self) -> Result<BTreeMap<TrunkId, TrunkLogin>, StoreError> {
        let text = "select trunk, username, password, realm, register_s from trunk_logins";
        let mut logins = BTreeMap::new();
        for mut row in self.db.look_up(text, values![]).await? {
            let trunk = TrunkId(row.id()?);
            let (username, sealed, realm) = (row.text()?, row.bytes()?, row.opt_text()?);
            let bad = |_| StoreError::unreadable("trunk_logins", "a number out of range");
            let register_s = row.opt_int()?.map(|seconds| u32::try_from(seconds).map_err(bad)).transpose()?;
            let subject = Subject::Trunk(trunk);
            self.keys.load(&[subject]).await?;
            if let Some(password) = self.keys.unseal_text(subject, Class::Identity, PASSWORD, &sealed)? {
                logins.insert(trunk, TrunkLogin { username, password: Pii::new(password), realm, register_s });
            }
        }
        Ok(logins)
    }

    pub(crate) async fn put_trunk_login(&self, trunk: TrunkId, login: Option<&TrunkLogin>) -> Result<(), StoreError> {
        let Some(login) = login else {
            let text = "delete from trunk_logins where trunk = $1";
            return self.db.execute(text, values![trunk.0]).await.map(drop);
        };
        let subject = Subject::Trunk(trunk);
        self.keys.create(&[subject]).await?;
        let sealed = self.keys.seal_text(subject, Class::Identity, PASSWORD, login.password.expose())?;
        let text = "insert into trunk_logins (trunk, username, password, realm, register_s) values ($1, $2, $3, $4, $5) \
                    on conflict (trunk) do update set username = excluded.username, password = excluded.password, \
                    realm = excluded.realm, register_s = excluded.register_s";
        let register_s = login.register_s.map(i64::from);
        let values = values![trunk.0, login.username.as_str(), sealed, login.realm.as_deref(), register_s];
        self.db.execute(text, values).await.map(drop).map_err(|e| e.named("trunk", "trunk"))
    }
}
