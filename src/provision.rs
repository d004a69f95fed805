//! Creates what a world file describes and is not there yet. Running it twice changes nothing the second time.

use crate::world::{self, World};
use anyhow::{Context as _, bail};
use schema::account::{AccountStatus, CallbackPhone, CallerIdStatus};
use schema::carrier::Trunk;
use schema::entropy::Entropy;
use schema::id::{
    AccountId, AccountKey, BrandId, CallbackNumberId, CallerIdId, CredentialId, DeckId, DeckVersionId, TransferId,
    TrunkId, UserId,
};
use schema::ledger::{IdempotencyKey, LedgerAccount, LedgerKind, Transfer};
use schema::money::{Currency, Micros};
use schema::pii::Pii;
use schema::time::{Clock, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use storage::{
    Brand, CreatedAccount, Deck, MemberRole, NewAccount, NewCredential, OperatorRole, Store, User, canonical_email,
};

/// Bulk accounts are made and stored in portions of this size.
const PORTION: u32 = 5_000;
/// How long a proof of a caller ID holds: numbers change hands, so a year.
const PROOF_HOLDS: Duration = Duration::from_secs(365 * 24 * 3600);
/// Most accounts whose differences are told one by one.
const DIFFERING_TOLD: usize = 100;
/// The key under which `opening_credit` is posted, once.
const OPENING_KEY: &str = "opening_credit";

/// Rate decks by their names.
type Decks = BTreeMap<String, (DeckId, Currency)>;

/// What provisioning works on.
pub struct Provisioning<'a> {
    /// The store written to.
    pub store: &'a Store,
    /// The brand everything belongs to.
    pub brand: &'a Brand,
    /// For creation times.
    pub clock: &'a Clock,
    /// For identities and salts.
    pub entropy: Entropy,
}

/// What was created, and what was there already.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "counts of what each name says")]
pub struct Provisioned {
    /// The SIP domain that all of it belongs to.
    pub domain: String,
    pub operators: u64,
    pub carriers: u64,
    pub rate_decks: u64,
    pub accounts: u64,
    pub accounts_existed: u64,
    /// One line for each of `accounts_existed` that is not as the file says, as far as that is looked at.
    pub differing: Vec<String>,
}

impl Provisioning<'_> {
    /// Creates what is missing; `progress` is told accounts done and accounts in all. A world that names what cannot be, such
    /// as a deck with a bad line, changes nothing.
    ///
    /// # Errors
    /// One line for each thing that is wrong. When the store fails, what was created before stays.
    pub async fn apply(
        &mut self,
        world: &World,
        progress: &mut (dyn FnMut(u64, u64) + Send),
    ) -> anyhow::Result<Provisioned> {
        let mut done = Provisioned { domain: self.brand.realm.clone(), ..Provisioned::default() };
        let (new_decks, decks) = self.read_decks(world, &mut done).await?;
        check(world, &decks)?;
        self.check_people(world).await?;
        let at = self.now();
        for deck in &new_decks {
            self.store.put_deck(deck, at).await?;
        }
        self.carriers(world, &decks, &mut done).await?;
        self.operators(world, &mut done).await?;
        let total = world.accounts.len() as u64 + world.accounts_bulk.iter().map(|b| u64::from(b.count)).sum::<u64>();
        for account in &world.accounts {
            self.account(account, &decks, &mut done).await?;
            progress(done.accounts + done.accounts_existed, total);
        }
        for bulk in &world.accounts_bulk {
            let mut first = 0;
            while first < bulk.count {
                let portion = first..(first + PORTION).min(bulk.count);
                first = portion.end;
                let accounts =
                    portion.map(|n| self.bulk_account(bulk, n, &decks)).collect::<anyhow::Result<Vec<_>>>()?;
                self.create(&accounts, &mut done).await?;
                progress(done.accounts + done.accounts_existed, total);
            }
        }
        Ok(done)
    }

    fn now(&self) -> Timestamp {
        (self.clock)().wall
    }

    /// A person is one user: whoever is to own an account must be new, and is named once. Operators known already are left as
    /// they are.
    async fn check_people(&self, world: &World) -> anyhow::Result<()> {
        let mut seen = BTreeSet::new();
        for (n, operator) in (1..).zip(&world.operators) {
            if !seen.insert(canonical_email(&operator.email)) {
                bail!("operator.email of operator {n}: this person is named twice");
            }
        }
        for account in &world.accounts {
            let is_named = !seen.insert(canonical_email(&account.email));
            let needs_owner = match self.store.credential(&account.sip_username).await? {
                Some(credential) => !self.has_owner(credential.account, &account.email).await?,
                None => true,
            };
            if needs_owner && (is_named || self.store.user_by_email(&account.email).await?.is_some()) {
                bail!("{}: this person is known already", account.key("email"));
            }
        }
        Ok(())
    }

    /// Whether this person belongs to an account, or else anybody does: its first owner may have become another one.
    async fn has_owner(&self, account: AccountKey, email: &str) -> anyhow::Result<bool> {
        if let Some(user) = self.store.user_by_email(email).await?
            && self.store.memberships(user.id).await?.iter().any(|membership| membership.account == account)
        {
            return Ok(true);
        }
        Ok(self.store.has_member(account).await?)
    }

    /// The world's decks, read and not yet stored, and every deck by its name.
    async fn read_decks(&mut self, world: &World, done: &mut Provisioned) -> anyhow::Result<(Vec<Deck>, Decks)> {
        let mut known: Decks = self.store.decks().await?.into_iter().map(|d| (d.name, (d.id, d.currency))).collect();
        let (at, mut decks, mut wrong) = (self.now(), Vec::new(), Vec::new());
        for deck in &world.rate_decks {
            let rates = actors::deck_file::read(&deck.csv).unwrap_or_else(|errors| {
                wrong.extend(errors.iter().map(|e| format!("{}: {e}", deck.file)));
                Vec::new()
            });
            let id = match known.get(&deck.name) {
                Some((_, currency)) if *currency != deck.currency => {
                    bail!("rate_deck {} is in {currency}, not in {}", deck.name, deck.currency)
                }
                Some((id, _)) => *id,
                None => {
                    done.rate_decks += 1;
                    DeckId::generate(&mut self.entropy, at)
                }
            };
            let version = DeckVersionId::generate(&mut self.entropy, at);
            let (name, currency, tax_included) = (deck.name.clone(), deck.currency, deck.tax_included);
            decks.push(Deck { id, name, currency, tax_included, version, rates });
            known.insert(deck.name.clone(), (id, deck.currency));
        }
        if !wrong.is_empty() {
            bail!("{}", wrong.join("\n"));
        }
        Ok((decks, known))
    }

    async fn carriers(&mut self, world: &World, decks: &Decks, done: &mut Provisioned) -> anyhow::Result<()> {
        let known: BTreeMap<_, _> = self.store.trunks().await?.into_iter().map(|t| (t.name, t.id)).collect();
        for carrier in &world.carriers {
            let deck = deck_of(decks, &carrier.key("deck"), &carrier.deck, carrier.currency)?;
            let at = self.now();
            let id = known.get(&carrier.name).copied().unwrap_or_else(|| {
                done.carriers += 1;
                TrunkId::generate(&mut self.entropy, at)
            });
            let trunk = Trunk {
                id,
                name: carrier.name.clone(),
                gateway: carrier.gateway.clone(),
                currency: carrier.currency,
                deck,
                max_channels: carrier.max_channels,
                max_cps: carrier.max_cps,
                priority: carrier.priority,
                large_over_tcp: carrier.large_over_tcp,
                trusted: carrier.trusted,
            };
            self.store.put_trunk(&trunk).await?;
            self.store.put_trunk_login(id, carrier.login()?.as_ref()).await?;
        }
        Ok(())
    }

    async fn operators(&mut self, world: &World, done: &mut Provisioned) -> anyhow::Result<()> {
        for (n, operator) in (1..).zip(&world.operators) {
            if self.store.user_by_email(&operator.email).await?.is_some() {
                continue;
            }
            let roles = roles_of(n, operator)?;
            let user = self.user(&operator.email, &operator.email, &operator.password)?;
            self.store.create_user(&user, &[], &roles).await?;
            done.operators += 1;
        }
        Ok(())
    }

    fn user(&mut self, email: &str, username: &str, password: &str) -> anyhow::Result<User> {
        let at = self.now();
        let hash = graphql::password::hash_password(password, self.entropy.bytes())?;
        Ok(User {
            id: UserId::generate(&mut self.entropy, at),
            brand: self.brand.id,
            email: Pii::new(email.to_owned()),
            username: Pii::new(username.to_owned()),
            password: Some(hash),
            created_at: at,
        })
    }

    async fn account(&mut self, account: &world::Account, decks: &Decks, done: &mut Provisioned) -> anyhow::Result<()> {
        let deck = deck_of(decks, &account.key("rate_deck"), &account.rate_deck, account.currency)?;
        let mut new =
            self.new_account(&account.country, &account.time_zone, account.currency, deck, account.opening_credit);
        new.limits = account.limits.limits();
        new.credentials = vec![self.credential(&account.sip_username, &account.sip_password)];
        new.caller_ids = self.caller_ids(&account.caller_ids);
        new.callback_phones = account
            .callback_numbers
            .iter()
            .map(|number| CallbackPhone {
                id: CallbackNumberId::generate(&mut self.entropy, new.created_at),
                number: number.clone(),
                label: None,
                status: CallerIdStatus::Verified,
            })
            .collect();
        let created = self.create(std::slice::from_ref(&new), done).await?;
        for CreatedAccount { key, existed } in created {
            // One that exists has its owner, unless the process was killed between the two.
            if !existed || !self.has_owner(key, &account.email).await? {
                let user = self.user(&account.email, &account.username, &account.password)?;
                self.store.create_user(&user, &[(key, MemberRole::Owner)], &[]).await?;
            }
            if existed {
                self.compare(account, &new, key, done).await?;
            }
        }
        Ok(())
    }

    /// Tells in what an account that was there before is not as the file says: nothing of it is changed.
    async fn compare(
        &self,
        account: &world::Account,
        wanted: &NewAccount,
        key: AccountKey,
        done: &mut Provisioned,
    ) -> anyhow::Result<()> {
        let Some(found) = self.store.account(key).await? else { return Ok(()) };
        let credential = self.store.credential(&account.sip_username).await?;
        let secret = credential.as_ref().zip(wanted.credentials.first());
        let profile = &found.profile;
        let is_missing = |id: &schema::account::CallerId| !found.caller_ids.iter().any(|has| has.number == id.number);
        let is_unknown = |phone: &CallbackPhone| !found.callback_phones.iter().any(|has| has.number == phone.number);
        let differs = [
            ("country", profile.country != wanted.country),
            ("time_zone", profile.time_zone != wanted.time_zone),
            ("currency", profile.currency != wanted.currency),
            ("rate_deck", profile.deck != wanted.deck),
            ("sip_password", secret.is_some_and(|(has, wanted)| has.secret != wanted.secret)),
            ("caller_ids", wanted.caller_ids.iter().any(is_missing)),
            ("callback_numbers", wanted.callback_phones.iter().any(is_unknown)),
            ("limits", profile.limits != wanted.limits),
        ];
        let keys: Vec<_> = differs.into_iter().filter_map(|(key, differs)| differs.then_some(key)).collect();
        if !keys.is_empty() && done.differing.len() < DIFFERING_TOLD {
            let (name, keys) = (&account.sip_username, keys.join(", "));
            done.differing.push(format!("account of sip_username {name}: was not changed, and differs in {keys}"));
        } else if !keys.is_empty() && done.differing.len() == DIFFERING_TOLD {
            done.differing.push(String::from("more accounts differ and were not changed"));
        }
        Ok(())
    }

    fn bulk_account(&mut self, bulk: &world::AccountsBulk, n: u32, decks: &Decks) -> anyhow::Result<NewAccount> {
        let deck = deck_of(decks, &bulk.key("rate_deck"), &bulk.rate_deck, bulk.currency)?;
        let mut new = self.new_account(&bulk.country, &bulk.time_zone, bulk.currency, deck, bulk.opening_credit);
        let (username, password) = bulk.sip_credential(n);
        new.limits = bulk.limits.limits();
        new.credentials = vec![self.credential(&username, &password)];
        new.caller_ids = self.caller_ids(&bulk.caller_ids);
        Ok(new)
    }

    async fn create(&self, accounts: &[NewAccount], done: &mut Provisioned) -> anyhow::Result<Vec<CreatedAccount>> {
        let created = self.store.create_accounts(accounts, |_| ()).await?;
        let existed = created.iter().filter(|c| c.existed).count() as u64;
        done.accounts_existed += existed;
        done.accounts += created.len() as u64 - existed;
        Ok(created)
    }

    fn new_account(
        &mut self,
        country: &str,
        time_zone: &str,
        currency: Currency,
        deck: DeckId,
        credit: Micros,
    ) -> NewAccount {
        let at = self.now();
        NewAccount {
            id: AccountId::generate(&mut self.entropy, at),
            brand: self.brand.id,
            parent: None,
            country: country.into(),
            time_zone: time_zone.into(),
            currency,
            deck,
            limits: schema::account::Limits::default(),
            status: AccountStatus::Active,
            created_at: at,
            opening: credit.is_positive().then(|| self.opening(credit, at)),
            credentials: Vec::new(),
            caller_ids: Vec::new(),
            callback_phones: Vec::new(),
        }
    }

    fn opening(&mut self, amount: Micros, at: Timestamp) -> Transfer {
        let description = String::from("Opening credit");
        let request = actors::credit_request_hash(LedgerKind::TopUp, amount, &description);
        Transfer {
            id: TransferId::generate(&mut self.entropy, at),
            kind: LedgerKind::TopUp,
            debit: LedgerAccount::PaymentClearing,
            credit: LedgerAccount::Customer,
            amount,
            call: None,
            carrier_cost: None,
            loss: Micros::ZERO,
            key: Some(IdempotencyKey { key: OPENING_KEY.to_owned(), request }),
            balance_after: amount,
            description,
        }
    }

    fn credential(&mut self, username: &str, password: &str) -> NewCredential {
        let at = self.now();
        NewCredential {
            id: CredentialId::generate(&mut self.entropy, at),
            username: username.into(),
            label: Pii::new(String::from("Softphone")),
            secret: Pii::new(sip::digest::ha1(username, &self.brand.realm, password)),
        }
    }

    fn caller_ids(&mut self, wanted: &[world::CallerId]) -> Vec<schema::account::CallerId> {
        let at = self.now();
        let one = |(n, wanted): (usize, &world::CallerId)| schema::account::CallerId {
            id: CallerIdId::generate(&mut self.entropy, at),
            number: wanted.number.clone(),
            label: None,
            status: CallerIdStatus::Verified,
            evidence: Some(wanted.evidence),
            is_default: n == 0,
            verified_at: Some(at),
            expires_at: Some(at + PROOF_HOLDS),
        };
        wanted.iter().enumerate().map(one).collect()
    }
}

/// The brand of the configured domain, made at the first start.
///
/// # Errors
/// The store failed, or it holds another domain: SIP passwords are bound to it.
pub async fn brand(store: &Store, domain: &str, entropy: &mut Entropy, at: Timestamp) -> anyhow::Result<Brand> {
    let stored = store.brand().await?;
    if let Some(brand) = &stored
        && brand.realm != domain
    {
        bail!("sip.domain = {domain}: this data folder belongs to {}; SIP passwords are bound to it", brand.realm);
    }
    let wanted = Brand {
        id: stored.as_ref().map_or_else(|| BrandId::generate(entropy, at), |brand| brand.id),
        domain: domain.to_owned(),
        realm: domain.to_owned(),
    };
    if stored.as_ref() != Some(&wanted) {
        store.put_brand(&wanted).await?;
    }
    Ok(wanted)
}

/// Whether everything that a world refers to exists, before any of it is stored.
fn check(world: &World, decks: &Decks) -> anyhow::Result<()> {
    for carrier in &world.carriers {
        deck_of(decks, &carrier.key("deck"), &carrier.deck, carrier.currency)?;
    }
    for (n, operator) in (1..).zip(&world.operators) {
        roles_of(n, operator)?;
    }
    for account in &world.accounts {
        deck_of(decks, &account.key("rate_deck"), &account.rate_deck, account.currency)?;
    }
    for bulk in &world.accounts_bulk {
        deck_of(decks, &bulk.key("rate_deck"), &bulk.rate_deck, bulk.currency)?;
    }
    Ok(())
}

/// `n`: the operator's place in the world, from 1.
fn roles_of(n: usize, operator: &world::Operator) -> anyhow::Result<Vec<OperatorRole>> {
    let read = |role: &String| {
        OperatorRole::parse(role).with_context(|| {
            format!("operator.roles of operator {n} = {role}: must be admin, support, finance or compliance")
        })
    };
    operator.roles.iter().map(read).collect()
}

fn deck_of(decks: &Decks, key: &str, name: &str, currency: Currency) -> anyhow::Result<DeckId> {
    let Some((id, of)) = decks.get(name) else { bail!("{key}: no rate deck is named {name}") };
    if *of != currency {
        bail!("{key}: rate deck {name} is in {of}, not in {currency}");
    }
    Ok(*id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use storage::MemDisk;

    const DECK: &str = "[[rate_deck]]\nname = \"d\"\nfile = \"d.csv\"\ncurrency = \"EUR\"\n";

    fn account(email: &str, sip_username: &str) -> String {
        format!(
            "[[account]]\nemail = \"{email}\"\nusername = \"a\"\npassword = \"hunter22\"\ncountry = \"GB\"\n\
             currency = \"EUR\"\nrate_deck = \"d\"\nsip_username = \"{sip_username}\"\nsip_password = \"eightormore\"\n"
        )
    }

    fn operator(email: &str) -> String {
        format!("[[operator]]\nemail = \"{email}\"\npassword = \"hunter22\"\nroles = [\"admin\"]\n")
    }

    async fn apply(store: &Store, pieces: &[String]) -> Result<Provisioned, String> {
        let clock = crate::clock::system();
        let mut entropy = crate::server::system_entropy().expect("random bytes");
        let brand = brand(store, "localhost", &mut entropy, clock().wall).await.expect("a brand");
        let files = [(
            String::from("d.csv"),
            String::from(
                "prefix,destination,rate_per_minute,connect_fee,minimum_s,increment_s,grace_s,effective_from,effective_until\n44,UK,0.60,0,0,1,0,,\n",
            ),
        )];
        let world =
            World::of_texts(&(DECK.to_owned() + &pieces.concat()), &files.into()).map_err(|error| error.to_string())?;
        let mut provisioning = Provisioning { store, brand: &brand, clock: &clock, entropy };
        provisioning.apply(&world, &mut |_, _| ()).await.map_err(|error| error.to_string())
    }

    async fn owned(store: &Store, email: &str) -> Option<usize> {
        let user = store.user_by_email(email).await.expect("readable")?;
        Some(store.memberships(user.id).await.expect("readable").len())
    }

    #[tokio::test]
    async fn an_account_whose_owner_was_not_written_gets_one() {
        let store = Store::memory(&MemDisk::new());
        // As a kill between account and owner leaves it: accounts in bulk have no owner either.
        let bulk = "[[accounts_bulk]]\ncount = 1\nfirst_sip_username = \"u0\"\nsip_password = \"p\"\ncountry = \"GB\"\n\
                    currency = \"EUR\"\nrate_deck = \"d\"\n";
        apply(&store, &[bulk.to_owned()]).await.expect("created");
        let done = apply(&store, &[account("a@example.com", "u0")]).await.expect("completed");
        assert_eq!((done.accounts, done.accounts_existed), (0, 1));
        assert_eq!(owned(&store, "a@example.com").await, Some(1));
        // Once it has one, another name in the file makes no second one.
        apply(&store, &[account("a@example.com", "u0")]).await.expect("nothing to do");
        apply(&store, &[account("b@example.com", "u0")]).await.expect("nothing to do");
        assert_eq!(owned(&store, "b@example.com").await, None);
    }

    #[tokio::test]
    async fn who_was_there_already_and_differs_is_named() {
        let store = Store::memory(&MemDisk::new());
        let more = "[[rate_deck]]\nname = \"e\"\nfile = \"d.csv\"\ncurrency = \"EUR\"\n".to_owned();
        let ann =
            account("a@x.test", "ann") + "caller_ids = [{ number = \"+442079460001\", evidence = \"document\" }]\n";
        let bob = account("b@x.test", "bob");
        let first = apply(&store, &[more.clone(), ann.clone(), bob.clone()]).await.expect("created");
        assert_eq!((first.domain.as_str(), first.differing.len()), ("localhost", 0));
        let again = apply(&store, &[ann.clone(), bob.clone()]).await.expect("nothing to do");
        assert_eq!((again.accounts_existed, again.differing.len()), (2, 0));
        let said = |differs: &str| format!("account of sip_username ann: was not changed, and differs in {differs}");
        for (from, to, differs) in [
            ("rate_deck = \"d\"", "rate_deck = \"e\"", "rate_deck"),
            ("eightormore", "nineormore", "sip_password"),
            ("+442079460001", "+442079460002", "caller_ids"),
            ("country = \"GB\"", "country = \"US\"", "country"),
            (
                "caller_ids",
                "limits = { live_calls = 3 }\ntime_zone = \"Europe/London\"\ncaller_ids",
                "time_zone, limits",
            ),
            ("caller_ids", "callback_numbers = [\"+447700900999\"]\ncaller_ids", "callback_numbers"),
        ] {
            let done = apply(&store, &[more.clone(), bob.clone(), ann.replace(from, to)]).await.expect("nothing to do");
            assert_eq!(done.differing, [said(differs)]);
        }
    }

    #[tokio::test]
    async fn a_person_named_twice_changes_nothing() {
        for (pieces, says) in [
            ([operator("a@x.test"), account(" A@x.test", "u0")], "account.email of sip_username u0: "),
            ([account("a@x.test", "u0"), account("A@X.test", "u1")], "account.email of sip_username u1: "),
            ([operator("a@x.test"), operator("A@x.test")], "operator.email of operator 2: "),
        ] {
            let store = Store::memory(&MemDisk::new());
            let error = apply(&store, &pieces).await.expect_err("it cannot be");
            assert!(error.starts_with(says) && !error.to_lowercase().contains("a@x"), "{error}");
            assert!(store.accounts_page(None, 10).await.expect("readable").is_empty());
            assert!(store.decks().await.expect("readable").is_empty());
            assert_eq!(owned(&store, "a@x.test").await, None);
        }
    }

    #[tokio::test]
    async fn a_password_that_cannot_be_set_changes_nothing() {
        for (pieces, says) in [
            (
                [account("a@x.test", "u0"), operator("o@x.test").replace("hunter22", "short")],
                "operator.password of operator 1",
            ),
            (
                [operator("o@x.test"), account("a@x.test", "u0").replace("hunter22", "äääää")],
                "account.password of sip_username u0",
            ),
        ] {
            let store = Store::memory(&MemDisk::new());
            let error = apply(&store, &pieces).await.expect_err("it cannot be");
            assert!(error.starts_with(says), "{error}");
            assert!(store.accounts_page(None, 10).await.expect("readable").is_empty());
            assert!(store.decks().await.expect("readable").is_empty());
        }
    }

    #[tokio::test]
    async fn an_account_without_owner_needs_one_who_is_new() {
        let store = Store::memory(&MemDisk::new());
        apply(&store, &[operator("a@x.test")]).await.expect("created");
        let error = apply(&store, &[account("A@x.test", "u0")]).await.expect_err("known");
        assert!(error.starts_with("account.email of sip_username u0: "), "{error}");
        assert!(store.accounts_page(None, 10).await.expect("readable").is_empty());
    }
}
