//! Rate decks and trunks, read whole for the in-memory tries.

use crate::error::StoreError;
use crate::store::{Backend, Store};
use schema::carrier::{Trunk, TrunkLogin};
use schema::id::{DeckId, DeckVersionId, TrunkId};
use schema::money::Currency;
use schema::rate::RateTerms;
use schema::time::Timestamp;
use std::collections::BTreeMap;

/// A rate deck in its current version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deck {
    /// Identity.
    pub id: DeckId,
    /// Its name, unique.
    pub name: String,
    /// Of its prices.
    pub currency: Currency,
    /// Whether its prices include tax.
    pub tax_included: bool,
    /// The version these rates are.
    pub version: DeckVersionId,
    /// Its lines, by prefix and begin.
    pub rates: Vec<Rate>,
}

/// One line of a deck.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rate {
    /// Digits without plus, at most 15.
    pub prefix: String,
    /// The destination's name.
    pub destination: String,
    /// How it is charged.
    pub terms: RateTerms,
    /// Not before; `None`: always.
    pub effective_from: Option<Timestamp>,
    /// Not from then on; `None`: always.
    pub effective_until: Option<Timestamp>,
}

impl Store {
    /// All decks in their current version, by name.
    ///
    /// # Errors
    /// The store failed.
    pub async fn decks(&self) -> Result<Vec<Deck>, StoreError> {
        match &self.backend {
            Backend::Sql(sql) => sql.decks().await,
            Backend::Memory(disk) => disk.read(|t| {
                let mut decks: Vec<_> = t.decks.values().cloned().collect();
                decks.sort_by(|a, b| a.name.cmp(&b.name));
                decks
            }),
        }
    }

    /// Stores a deck, or a new version of the one with its id. The same lines again change nothing. Returns the current version.
    ///
    /// # Errors
    /// [`StoreError::Taken`] when another deck has the name, or the store failed; then the version before stays in force.
    pub async fn put_deck(&self, deck: &Deck, at: Timestamp) -> Result<DeckVersionId, StoreError> {
        let mut deck = deck.clone();
        deck.rates.sort_by(|a, b| (&a.prefix, a.effective_from).cmp(&(&b.prefix, b.effective_from)));
        match &self.backend {
            Backend::Sql(sql) => sql.put_deck(&deck, at).await,
            Backend::Memory(disk) => disk.write(|t| t.put_deck(deck)),
        }
    }

    /// All trunks, by name.
    ///
    /// # Errors
    /// The store failed.
    pub async fn trunks(&self) -> Result<Vec<Trunk>, StoreError> {
        match &self.backend {
            Backend::Sql(sql) => sql.trunks().await,
            Backend::Memory(disk) => disk.read(|t| {
                let mut trunks: Vec<_> = t.trunks.values().cloned().collect();
                trunks.sort_by(|a, b| a.name.cmp(&b.name));
                trunks
            }),
        }
    }

    /// Stores a trunk, or changes the one with its id.
    ///
    /// # Errors
    /// [`StoreError::Taken`] when another trunk has the name; or the store failed.
    pub async fn put_trunk(&self, trunk: &Trunk) -> Result<(), StoreError> {
        match &self.backend {
            Backend::Sql(sql) => sql.put_trunk(trunk).await,
            Backend::Memory(disk) => disk.write(|t| {
                if t.trunks.values().any(|other| other.name == trunk.name && other.id != trunk.id) {
                    return Err(StoreError::Taken("trunk name"));
                }
                t.trunks.insert(trunk.id, trunk.clone());
                Ok(())
            }),
        }
    }

    /// How we show each carrier who we are; trunks that know our address are left out.
    ///
    /// # Errors
    /// The store failed.
    pub async fn trunk_logins(&self) -> Result<BTreeMap<TrunkId, TrunkLogin>, StoreError> {
        match &self.backend {
            Backend::Sql(sql) => sql.trunk_logins().await,
            Backend::Memory(disk) => disk.read(|t| t.trunk_logins.clone()),
        }
    }

    /// Stores how we show a trunk's carrier who we are, or that it knows our address. The password is sealed under a key of
    /// the trunk's own.
    ///
    /// # Errors
    /// There is no such trunk, or the store failed.
    pub async fn put_trunk_login(&self, trunk: TrunkId, login: Option<&TrunkLogin>) -> Result<(), StoreError> {
        match &self.backend {
            Backend::Sql(sql) => sql.put_trunk_login(trunk, login).await,
            Backend::Memory(disk) => disk.write(|t| {
                if !t.trunks.contains_key(&trunk) {
                    return Err(StoreError::NotFound("trunk"));
                }
                match login {
                    Some(login) => t.trunk_logins.insert(trunk, login.clone()),
                    None => t.trunk_logins.remove(&trunk),
                };
                Ok(())
            }),
        }
    }
}
