//! An account for tests, with rows that are written from its entries alone.

use crate::account::authorize::{Authorized, CallRequest};
use crate::account::caller_id::CallerChoice;
use crate::account::core::{AccountCore, Draft, Market};
use crate::account::ledger::{Credit, CreditRefused};
use crate::account::settle::{AnswerRequest, CallEnd, Renewed, Settled};
use crate::rating::Tariffs;
use crate::rating::tests::{deck, line};
use crate::routing::TrunkStatus;
use crate::routing::tests::{UP, trunk};
use schema::account::{AccountFigures, AccountProfile, AccountStatus, CallerId, CallerIdStatus, Evidence, Limits};
use schema::call::{CallMode, Cdr, Hangup, HangupSide, LiveCall, RefusalCode};
use schema::event::EventCursor;
use schema::id::{AccountId, AccountKey, CallId, CallNo, CallerIdId, DeckId, Seq, TransferId, TrunkId};
use schema::journal::{Change, Entry};
use schema::ledger::{IdempotencyKey, LedgerKind, Transfer};
use schema::leg::{AttemptIds, Checkpoint, Dialogs};
use schema::money::{Currency, Micros};
use schema::number::E164;
use schema::pii::Pii;
use schema::time::{BootId, Mono, Now, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

const BOOT: BootId = BootId(7);

/// The account as its rows say; built from entries alone, so that it checks what the core keeps in memory.
#[derive(Clone)]
pub(super) struct Rows {
    pub(super) profile: AccountProfile,
    pub(super) figures: AccountFigures,
    pub(super) caller_ids: Vec<CallerId>,
    pub(super) live: BTreeMap<CallNo, LiveCall>,
    pub(super) dialogs: BTreeMap<CallNo, Dialogs>,
    pub(super) cursor: EventCursor,
    pub(super) transfers: Vec<Transfer>,
    pub(super) cdrs: Vec<Cdr>,
    pub(super) holds: BTreeSet<(CallNo, u32)>,
    pub(super) row_writes: usize,
}

impl Rows {
    pub(super) fn write(&mut self, entry: &Entry) {
        assert_eq!(entry.figures.seq, self.figures.seq.next());
        self.figures = entry.figures;
        assert!(entry.events.len() <= 16);
        self.row_writes += entry.row_writes();
        self.cursor = crate::account::core::last_cursor(entry.figures.seq, entry.events.len());
        for change in &entry.changes {
            match change {
                Change::CallStarted(live) => assert!(self.live.insert(live.no, (**live).clone()).is_none()),
                Change::CallUpdated(live) => assert!(self.live.insert(live.no, (**live).clone()).is_some()),
                Change::CallRenewed(live) => self.live.get_mut(&live.no).expect("a live call").renew(live),
                Change::DialogsChanged(call, dialogs) => {
                    assert!(self.live.contains_key(call), "the dialogs are a live call's");
                    self.dialogs.entry(*call).or_default().take((**dialogs).clone());
                }
                Change::HoldPlaced(hold) => {
                    assert!(self.holds.insert((hold.call, hold.step)), "l3: a hold is placed once")
                }
                Change::CallEnded(cdr) => {
                    assert!(self.live.remove(&cdr.no).is_some(), "l3: a call is settled once");
                    self.dialogs.remove(&cdr.no);
                    self.cdrs.push((**cdr).clone());
                }
                Change::CallRefused(cdr) => self.cdrs.push((**cdr).clone()),
                Change::Posted(transfer) => self.transfers.push((**transfer).clone()),
                Change::AttemptEnded(_) | Change::CallerIdChanged(_) => {}
            }
        }
    }

    pub(super) fn load(&self) -> AccountCore {
        self.load_in(BOOT)
    }

    pub(super) fn load_in(&self, boot: BootId) -> AccountCore {
        let loaded = storage::LoadedAccount {
            profile: self.profile.clone(),
            figures: self.figures,
            caller_ids: self.caller_ids.clone(),
            callback_phones: Vec::new(),
            live_calls: self.live.values().cloned().collect(),
            last_event: self.cursor,
        };
        AccountCore::load(loaded, boot)
    }
}

pub(super) struct World {
    pub(super) rows: Rows,
    pub(super) core: AccountCore,
    pub(super) tariffs: Tariffs,
    pub(super) trunks: BTreeMap<TrunkId, TrunkStatus>,
    pub(super) now: Now,
    pub(super) transfers: u128,
}

pub(super) fn euro() -> Currency {
    Currency::parse("EUR").expect("a currency")
}

pub(super) fn call_id(n: u32) -> CallId {
    CallId(Uuid::from_u128(u128::from(n) + 1))
}

pub(super) fn checkpoint() -> Checkpoint {
    Checkpoint { state: Pii::new("dialog".into()) }
}

pub(super) fn ids() -> AttemptIds {
    AttemptIds { call_id: "c".into(), from_tag: "t".into(), branch: "z9hG4bKb".into(), cseq: 1 }
}

/// A customer in Britain with a verified number, whose calls to British mobiles cost 0.01 a second, by the second; two
/// carriers, the second dearer.
pub(super) fn world(total: i64) -> World {
    let number = |n: u128, number: &str, status| CallerId {
        id: CallerIdId(Uuid::from_u128(n)),
        number: E164::parse(number).expect("valid"),
        label: None,
        status,
        evidence: (status == CallerIdStatus::Verified).then_some(Evidence::CallCode),
        is_default: n == 1,
        verified_at: None,
        expires_at: None,
    };
    let rows = Rows {
        profile: AccountProfile {
            id: AccountId(Uuid::from_u128(5)),
            key: AccountKey(1),
            currency: euro(),
            country: "GB".into(),
            time_zone: "Europe/London".into(),
            deck: DeckId(Uuid::from_u128(1)),
            limits: Limits { live_calls: 5, calls_per_minute: 20, call_seconds: 7_200, rate_per_minute: None },
        },
        figures: AccountFigures {
            seq: Seq(1),
            status: AccountStatus::Active,
            total: Micros(total),
            held: Micros(0),
            receivable: Micros(0),
            last_call: CallNo(0),
        },
        caller_ids: vec![
            number(1, "+447700900001", CallerIdStatus::Verified),
            number(2, "+447700900002", CallerIdStatus::Unverified),
        ],
        live: BTreeMap::new(),
        dialogs: BTreeMap::new(),
        cursor: EventCursor::default(),
        transfers: Vec::new(),
        cdrs: Vec::new(),
        holds: BTreeSet::new(),
        row_writes: 0,
    };
    let decks = [
        deck(1, vec![line("447", 600_000_000), line("49", 2_000_000_000), line("33", 0)]),
        deck(2, vec![line("44", 300_000_000), line("33", 0)]),
        deck(3, vec![line("44", 400_000_000)]),
    ];
    let trunks = vec![trunk(1, 2), trunk(2, 3)];
    let status = trunks.iter().map(|t| (t.id, UP.clone())).collect();
    let now = Now { mono: Mono(1_000_000_000), wall: Timestamp(1_700_000_000_000_000) };
    World { core: rows.load(), rows, tariffs: Tariffs::build(&decks, trunks), trunks: status, now, transfers: 0 }
}

impl World {
    pub(super) fn request(&self, call: u32, dialled: &str) -> CallRequest {
        CallRequest {
            call: call_id(call),
            mode: CallMode::Softphone,
            credential: None,
            dialled: Pii::new(dialled.to_owned()),
            caller_id: CallerChoice::Default,
            withhold: false,
            needs_tls: false,
            a_leg: Some(checkpoint()),
            at: self.now,
        }
    }

    pub(super) fn write(&mut self, draft: Option<Draft>) {
        if let Some(draft) = draft {
            self.rows.write(&draft.entry);
            self.core.apply(draft.patch);
        }
    }

    pub(super) fn authorize(&mut self, request: &CallRequest) -> Result<crate::account::authorize::Grant, RefusalCode> {
        let market = Market { tariffs: &self.tariffs, trunks: &self.trunks };
        let (authorized, draft) = self.core.authorize(request, ids(), &market, self.now);
        self.write(draft);
        match authorized {
            Authorized::Granted(grant) => Ok(*grant),
            Authorized::Refused(refusal) => Err(refusal.code),
        }
    }

    pub(super) fn answer(&mut self, call: u32) -> bool {
        let attempt = self.core.live_call(call_id(call)).and_then(|live| live.attempt.clone());
        let request = AnswerRequest {
            call: call_id(call),
            attempt: attempt.map(std::sync::Arc::new),
            at: self.now,
            b_leg: checkpoint(),
            answer_sdp: None,
            post_dial_delay_ms: 100,
        };
        let (funding, draft) = self.core.answer(&request, self.now);
        self.write(draft);
        funding.is_some()
    }

    pub(super) fn renew(&mut self, call: u32) -> Renewed {
        let step = self.core.live_call(call_id(call)).map_or(1, |live| live.hold_step + 1);
        let (renewed, draft) = self.core.renew(call_id(call), step, Some(self.now), self.now);
        self.write(draft);
        renewed
    }

    pub(super) fn settle(&mut self, call: u32, end: &CallEnd) -> Option<schema::call::Call> {
        self.transfers += 1;
        let transfer = TransferId(Uuid::from_u128(self.transfers));
        let (settled, draft) = self.core.settle(call_id(call), end, transfer, self.now);
        self.write(draft);
        match settled {
            Settled::Done(call) => Some(*call),
            Settled::NotLive => None,
        }
    }

    pub(super) fn credit(&mut self, amount: i64, key: &str, request: u8) -> Result<bool, CreditRefused> {
        // As the shell does: what was posted under the key before is looked up in the rows first.
        if let Some(key) = self.rows.transfers.iter().filter_map(|t| t.key.as_ref()).find(|k| k.key == key) {
            return if key.request == [request; 32] { Ok(true) } else { Err(CreditRefused::Conflict) };
        }
        self.transfers += 1;
        let credit = Credit {
            kind: LedgerKind::Adjustment,
            amount: Micros(amount),
            key: IdempotencyKey { key: key.to_owned(), request: [request; 32] },
            reason: "test".to_owned(),
        };
        let (credited, draft) = self.core.credit(&credit, TransferId(Uuid::from_u128(self.transfers)), self.now);
        self.write(draft);
        credited.map(|c| c.replayed)
    }

    pub(super) fn pass(&mut self, ms: u64) {
        self.now = self.now.after(std::time::Duration::from_millis(ms));
    }
}

pub(super) fn hung_up(at: Now) -> CallEnd {
    CallEnd {
        at: Some(at),
        hangup: Hangup {
            side: HangupSide::Caller,
            sip_code: None,
            q850: Some(16),
            reason: "hung up".into(),
            redress: None,
        },
        failed: None,
        late_answer: false,
        cut: false,
        post_dial_delay_ms: None,
    }
}
