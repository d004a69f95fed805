//! Calls in SQL.

use super::account::count;
use super::{Row, SqlStore, Tx, values};
use crate::call::{CallFilter, StoredCall};
use crate::error::StoreError;
use crate::keyring::{Class, KeyringError, Subject};
use crate::seal::{parse_word, word};
use schema::call::{AttemptRecord, Call, Cdr, Explanation, LegSide, LiveCall};
use schema::id::{AccountKey, CallId, CallNo, CredentialId, TrunkId};
use schema::ledger::{CarrierCost, Hold};
use schema::leg::{Checkpoint, Dialogs};
use schema::money::{Currency, Micros};
use schema::pii::Pii;
use schema::time::{BootId, ClockReading, Mono, Timestamp};

macro_rules! select_cdr {
    ($rest:literal) => {
        concat!(
            "select account_key, record, no, id, credential, mode, state, withheld, started_at, answered_at, ended_at, currency, ",
            "talk_ms, billed_s, charged, loss, cost_trunk, cost_micros, cost_currency, attempts from cdrs ",
            $rest
        )
    };
}

/// Live calls, with further columns behind.
macro_rules! select_live {
    ($more:literal, $rest:literal) => {
        concat!(
            "select account_key, no, id, held, hold_step, paid_s, proof_at, proof_mono, proof_boot, state",
            $more,
            " from calls ",
            $rest
        )
    };
}

/// Three columns that are null together.
pub(crate) fn carrier_cost(row: &mut Row) -> Result<Option<CarrierCost>, StoreError> {
    let (trunk, amount, currency) = (row.opt_id()?, row.opt_int()?, row.opt_text()?);
    let (Some(trunk), Some(amount), Some(currency)) = (trunk, amount, currency) else { return Ok(None) };
    let currency =
        Currency::parse(&currency).map_err(|_| StoreError::unreadable("carrier cost", "a currency that is none"))?;
    Ok(Some(CarrierCost { trunk: TrunkId(trunk), amount: Micros(amount), currency }))
}

/// What the plain columns tell of a call whose record cannot be opened any more.
fn read_plain(row: &mut Row) -> Result<Cdr, StoreError> {
    let no = CallNo(row.int()?);
    let id = CallId(row.id()?);
    let credential = row.opt_id()?.map(CredentialId);
    let (mode, state) = (row.word("cdrs", parse_word)?, row.word("cdrs", parse_word)?);
    let withheld = row.bool()?;
    let started_at = Timestamp(row.int()?);
    let (answered_at, ended_at) = (row.opt_int()?.map(Timestamp), row.opt_int()?.map(Timestamp));
    let currency = row.word("cdrs", |c| Currency::parse(c).ok())?;
    let (talk_ms, billed_seconds) = (row.small("cdrs")?, row.small("cdrs")?);
    let (charged, loss) = (Micros(row.int()?), Micros(row.int()?));
    let carrier_cost = carrier_cost(row)?;
    let attempts = row.small("cdrs")?;
    let call = Call {
        id,
        state,
        mode,
        dialled: None,
        destination: None,
        presented_number: None,
        withheld,
        attestation: None,
        started_at,
        answered_at,
        ended_at,
        currency,
        cost: charged,
        billed_seconds,
        legs: Vec::new(),
        funded_until: None,
        route: None,
        post_dial_delay_ms: None,
        hangup: None,
        explanation: Explanation::default(),
    };
    Ok(Cdr { no, credential, call, withheld_number: None, talk_ms, charged, loss, carrier_cost, attempts })
}

impl SqlStore {
    fn read_cdr(&self, row: &mut Row) -> Result<(AccountKey, Cdr), StoreError> {
        let (account, record) = (AccountKey(row.int()?), row.bytes()?);
        let opened = self.keys.unseal_json(Subject::Account(account), Class::Calls, "cdrs.record", &record)?;
        match opened {
            Some(cdr) => Ok((account, cdr)),
            None => Ok((account, read_plain(row)?)),
        }
    }

    /// From behind the identity of `select_live`; `None` when its key was destroyed.
    fn read_live(&self, account: AccountKey, row: &mut Row) -> Result<Option<LiveCall>, StoreError> {
        let (held, hold_step, paid_s) = (Micros(row.int()?), row.small("calls")?, row.small("calls")?);
        let proof = (row.opt_int()?, row.opt_int()?, row.opt_id()?);
        let state = row.bytes()?;
        let opened = self.keys.unseal_json(Subject::Account(account), Class::Calls, "calls.state", &state)?;
        let Some(call): Option<LiveCall> = opened else { return Ok(None) };
        let proof_of_life = match proof {
            (Some(at), Some(mono), Some(boot)) => Some(ClockReading {
                wall: Timestamp(at),
                mono: Mono(mono.unsigned_abs()),
                boot: BootId(boot.as_u128()),
            }),
            _ => None,
        };
        Ok(Some(LiveCall { held, hold_step, paid_s, proof_of_life, ..call }))
    }

    /// The keys of a row's account. What cannot be opened of them concerns this row alone, as far as anybody knows.
    ///
    /// # Errors
    /// The key store failed: another try may find the keys.
    pub(super) async fn row_keys(&self, account: AccountKey) -> Result<Result<(), StoreError>, StoreError> {
        match self.keys.load(&[Subject::Account(account)]).await {
            Err(error @ (StoreError::Keys(_) | StoreError::Unreadable { .. })) => Ok(Err(error)),
            loaded => loaded.map(Ok),
        }
    }

    pub(super) async fn account_calls(&self, tx: &mut Tx, account: AccountKey) -> Result<Vec<LiveCall>, StoreError> {
        let text = select_live!("", "where account_key = $1 order by no");
        let rows = tx.fetch(text, values![account.0]).await?;
        let mut calls = Vec::with_capacity(rows.len());
        for mut row in rows {
            let _known = (row.int()?, row.int()?, row.id()?);
            calls.extend(self.read_live(account, &mut row)?);
        }
        Ok(calls)
    }

    /// Rows that cannot be read are left out, and others read until the page is full.
    pub(crate) async fn live_calls(
        &self,
        mut after: (AccountKey, CallNo),
        limit: usize,
    ) -> Result<Vec<(AccountKey, LiveCall)>, StoreError> {
        let text = select_live!(
            "",
            "where account_key > $1 or (account_key = $1 and no > $2) order by account_key, no limit $3"
        );
        let mut calls = Vec::new();
        while calls.len() < limit {
            let wanted = limit - calls.len();
            let rows = self.db.fetch(text, values![after.0.0, after.1.0, count(wanted)]).await?;
            let more = rows.len() == wanted;
            for mut row in rows {
                let (account, no, _) = (AccountKey(row.int()?), CallNo(row.int()?), row.id()?);
                after = (account, no);
                match self.row_keys(account).await?.and_then(|()| self.read_live(account, &mut row)) {
                    Ok(call) => calls.extend(call.map(|call| (account, call))),
                    Err(error) => tracing::error!(%error, account = account.0, no = no.0, "a live call cannot be read"),
                }
            }
            if !more {
                break;
            }
        }
        Ok(calls)
    }

    pub(crate) async fn live_calls_with_dialogs(
        &self,
        after: (AccountKey, CallNo),
        limit: usize,
    ) -> Result<Vec<StoredCall>, StoreError> {
        let text = select_live!(
            ", a_leg, b_leg, answer_sdp",
            "where account_key > $1 or (account_key = $1 and no > $2) order by account_key, no limit $3"
        );
        let mut calls = Vec::new();
        for mut row in self.db.fetch(text, values![after.0.0, after.1.0, count(limit)]).await? {
            let (account, no, id) = (AccountKey(row.int()?), CallNo(row.int()?), CallId(row.id()?));
            // The key of a live call's data is never destroyed on purpose.
            let call = self.row_keys(account).await?.and_then(|()| self.read_live(account, &mut row));
            let call = call.and_then(|call| call.ok_or_else(|| KeyringError::Missing.into()));
            // Behind a state that cannot be read the columns of the dialogs are not reached.
            let dialogs = if call.is_ok() { self.read_dialogs(account, &mut row) } else { Ok(Dialogs::default()) };
            calls.push(StoredCall { account, no, id, call, dialogs });
        }
        Ok(calls)
    }

    /// From `a_leg, b_leg, answer_sdp`.
    fn read_dialogs(&self, account: AccountKey, row: &mut Row) -> Result<Dialogs, StoreError> {
        let subject = Subject::Account(account);
        let mut next = |place| match row.opt_bytes()? {
            Some(sealed) => {
                let text = self.keys.unseal_text(subject, Class::Calls, place, &sealed)?;
                Ok::<_, StoreError>(text.map(|text| Pii::new(text.into())))
            }
            None => Ok(None),
        };
        let (a_leg, b_leg) = (next("calls.a_leg")?, next("calls.b_leg")?);
        let checkpoint = |state| Checkpoint { state };
        Ok(Dialogs {
            a_leg: a_leg.map(checkpoint),
            b_leg: b_leg.map(checkpoint),
            answer_sdp: next("calls.answer_sdp")?,
        })
    }

    pub(crate) async fn live_call(&self, id: CallId) -> Result<Option<(AccountKey, LiveCall)>, StoreError> {
        let row = self.db.fetch_one(select_live!("", "where id = $1"), values![id.0]).await?;
        let Some(mut row) = row else { return Ok(None) };
        let (account, _) = (AccountKey(row.int()?), (row.int()?, row.id()?));
        self.keys.load(&[Subject::Account(account)]).await?;
        Ok(self.read_live(account, &mut row)?.map(|call| (account, call)))
    }

    pub(crate) async fn call(&self, id: CallId) -> Result<Option<(AccountKey, Cdr)>, StoreError> {
        let text = "select account_key from cdrs where id = $1";
        let Some(mut row) = self.db.fetch_one(text, values![id.0]).await? else { return Ok(None) };
        self.keys.load(&[Subject::Account(AccountKey(row.int()?))]).await?;
        let row = self.db.fetch_one(select_cdr!("where id = $1"), values![id.0]).await?;
        row.map(|mut row| self.read_cdr(&mut row)).transpose()
    }

    pub(crate) async fn cdr(&self, account: AccountKey, no: CallNo) -> Result<Option<Cdr>, StoreError> {
        self.keys.load(&[Subject::Account(account)]).await?;
        let row =
            self.db.fetch_one(select_cdr!("where account_key = $1 and no = $2"), values![account.0, no.0]).await?;
        row.map(|mut row| self.read_cdr(&mut row).map(|(_, cdr)| cdr)).transpose()
    }

    /// Numbers are sealed: a destination's prefix is compared here, reading on until the page is full.
    pub(crate) async fn calls_page(
        &self,
        account: AccountKey,
        mut before: CallNo,
        limit: usize,
        filter: &CallFilter,
    ) -> Result<Vec<Cdr>, StoreError> {
        self.keys.load(&[Subject::Account(account)]).await?;
        let text = select_cdr!(
            "where account_key = $1 and no < $2 and started_at >= $3 and started_at < $4 and ($5 = '' or state = $5) \
             order by no desc limit $6"
        );
        let state = filter.state.map(|s| word(&s)).unwrap_or_default();
        let (from, to) = (filter.from.map_or(i64::MIN, |t| t.0), filter.to.map_or(i64::MAX, |t| t.0));
        let step = if filter.destination_prefix.is_some() { 1_000 } else { limit };
        let mut page = Vec::new();
        loop {
            let values = values![account.0, before.0, from, to, state.as_str(), count(step)];
            let rows = self.db.fetch(text, values).await?;
            let more = rows.len() == step;
            for mut row in rows {
                let (_, cdr) = self.read_cdr(&mut row)?;
                before = cdr.no;
                if filter.admits_destination(&cdr) {
                    page.push(cdr);
                }
                if page.len() == limit {
                    return Ok(page);
                }
            }
            if !more {
                return Ok(page);
            }
        }
    }

    pub(crate) async fn attempts(&self, account: AccountKey, call: CallNo) -> Result<Vec<AttemptRecord>, StoreError> {
        let text = "select number, trunk, started_at, ended_at, sip_code from attempts \
                    where account_key = $1 and call_no = $2 order by number";
        let rows = self.db.fetch(text, values![account.0, call.0]).await?;
        rows.into_iter()
            .map(|mut row| {
                Ok(AttemptRecord {
                    call,
                    number: row.small("attempts")?,
                    trunk: TrunkId(row.id()?),
                    started_at: Timestamp(row.int()?),
                    ended_at: Timestamp(row.int()?),
                    sip_code: row.small("attempts")?,
                })
            })
            .collect()
    }

    pub(crate) async fn open_holds(&self) -> Result<u64, StoreError> {
        // A call's holds have the steps from 0 to that of the newest.
        let text = "select cast(coalesce(sum(hold_step + 1), 0) as bigint) from calls";
        // A figure for those who watch, above all while the disk is slow.
        let row = self.db.look_up_one(text, values![]).await?;
        Ok(row.map(|mut row| row.int()).transpose()?.unwrap_or(0).unsigned_abs())
    }

    pub(crate) async fn holds(&self, account: AccountKey, call: CallNo) -> Result<Vec<Hold>, StoreError> {
        let text = "select leg, step, amount from holds where account_key = $1 and call_no = $2 order by leg, step";
        let rows = self.db.fetch(text, values![account.0, call.0]).await?;
        rows.into_iter()
            .map(|mut row| {
                let leg = if row.int()? == 0 { LegSide::A } else { LegSide::B };
                Ok(Hold { call, leg, step: row.small("holds")?, amount: Micros(row.int()?) })
            })
            .collect()
    }
}
