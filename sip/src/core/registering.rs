//! REGISTER to carriers (RFC 3261 §10.2): written, sent, read. When, `registration.rs` decides. A Service-Route in the answer is
//! not followed: calls go to the gateway that the operator configured.

use super::Core;
use super::challenge::Carrier;
use super::exchange::Owner;
use super::peers::Way;
use super::probe::{host_of, target_uri};
use super::timers::{Timer, Timers};
use crate::flow::{Destination, Flow};
use crate::message::{Malformed, Message, Method, NameAddr, RequestBuilder};
use crate::registration::{Input, Registration, Step};
use schema::carrier::{Gateway, TrunkDown, TrunkLogin};
use schema::edge::TrunkAddress;
use schema::id::TrunkId;
use schema::target::TrunkGateway;
use schema::time::{Mono, Now};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// One registration. Its number is used once, so that a trunk whose login was changed leaves by the one it had.
struct Registering {
    trunk: TrunkId,
    address: TrunkGateway,
    /// Where the last REGISTER went.
    target: Option<Gateway>,
    /// Targets of its name that did not take one since the last that did.
    failed: BTreeSet<Gateway>,
    login: Arc<TrunkLogin>,
    machine: Registration,
    carrier: Carrier,
    call_id: Box<str>,
    cseq: u32,
    /// Why the challenge that came last was not answered.
    refused: Option<TrunkDown>,
    armed: Option<Mono>,
}

/// All registrations, also those that end.
#[derive(Default)]
pub(super) struct Registrations {
    all: BTreeMap<u64, Registering>,
    last: u64,
    /// The server ends: none begins any more.
    is_over: bool,
}

impl Registrations {
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn carrier(&mut self, number: u64) -> Option<&mut Carrier> {
        self.all.get_mut(&number).map(|registering| &mut registering.carrier)
    }

    pub(super) fn login(&self, number: u64) -> Option<Arc<TrunkLogin>> {
        self.all.get(&number).map(|registering| Arc::clone(&registering.login))
    }

    pub(super) fn cseq(&mut self, number: u64) -> Option<&mut u32> {
        self.all.get_mut(&number).map(|registering| &mut registering.cseq)
    }

    pub(super) fn refused(&mut self, number: u64, down: TrunkDown) {
        if let Some(registering) = self.all.get_mut(&number) {
            registering.refused = Some(down);
        }
    }

    /// Why a trunk cannot be used; `None`: it is registered, or need not be.
    pub(super) fn down(&self, number: u64) -> Option<TrunkDown> {
        self.all.get(&number).and_then(|registering| registering.machine.down())
    }

    fn at(&self, flow: Flow) -> Vec<u64> {
        let is_there = |registering: &Registering| {
            registering
                .target
                .is_some_and(|target| Destination::from(target) == Destination::new(flow.protocol, flow.peer))
        };
        self.all.iter().filter(|(_, registering)| is_there(registering)).map(|(number, _)| *number).collect()
    }
}

impl Core {
    /// Begins to register a trunk, if it wants that; gives the registration's number.
    pub(super) fn begin_registering(&mut self, address: &TrunkAddress, now: Now) -> Option<u64> {
        let login = address.login.clone().filter(|_| !self.registrations.is_over)?;
        let expires_s = login.register_s?;
        self.registrations.last += 1;
        let number = self.registrations.last;
        let registering = Registering {
            trunk: address.trunk,
            address: address.gateway.clone(),
            target: None,
            failed: BTreeSet::new(),
            login,
            machine: Registration::new(expires_s, now.mono),
            carrier: Carrier::of(address.trunk),
            call_id: self.entropy.hex::<16>().into(),
            cseq: 0,
            refused: None,
            armed: None,
        };
        self.registrations.all.insert(number, registering);
        self.arm_registering(number);
        Some(number)
    }

    /// The trunk is not used any more, or in another way.
    pub(super) fn leave_registrar(&mut self, number: u64, now: Now) {
        self.registering_takes(number, Input::Leave, now);
    }

    /// The server ends.
    pub(super) fn leave_registrars(&mut self, now: Now) {
        self.registrations.is_over = true;
        for number in self.registrations.all.keys().copied().collect::<Vec<_>>() {
            self.leave_registrar(number, now);
        }
    }

    /// Something shows that the carrier may have forgotten us.
    pub(super) fn doubt_registration(&mut self, number: u64, now: Now) {
        self.registering_takes(number, Input::Doubted, now);
    }

    /// A connection that we opened is over; the carrier may have ended. One of a peer's says nothing of it.
    pub(super) fn doubt_registrations_at(&mut self, flow: Flow, now: Now) {
        for number in self.registrations.at(flow) {
            self.doubt_registration(number, now);
        }
    }

    pub(super) fn registering_time(&mut self, number: u64, now: Now) {
        let registering = self.registrations.all.get_mut(&number);
        if registering.is_some_and(|registering| Timers::fires(&mut registering.armed, now.mono)) {
            self.registrar_located(number, now);
        }
    }

    /// Goes on if its carrier is found; else when it is.
    pub(super) fn registrar_located(&mut self, number: u64, now: Now) {
        if self.registrar(number).is_some() {
            self.registering_takes(number, Input::Time, now);
        }
    }

    /// Where the next REGISTER goes: where the last one went, as long as that target is there, and answers; else to the next one
    /// (RFC 3263 §4.3).
    fn registrar(&mut self, number: u64) -> Option<Gateway> {
        let registering = self.registrations.all.get(&number)?;
        let name = match &registering.address {
            TrunkGateway::At(gateway) => return Some(*gateway),
            TrunkGateway::Named(name) => name.clone(),
        };
        let targets = self.answering_targets(registering.trunk, &name);
        let registering = self.registrations.all.get_mut(&number)?;
        let may_take = |target: &Gateway| !registering.failed.contains(target);
        let last = registering.target.filter(|target| targets.contains(target) && may_take(target));
        let next = last.or_else(|| targets.iter().copied().find(may_take));
        if next.is_none() {
            registering.failed.clear();
        }
        next.or_else(|| targets.first().copied())
    }

    /// The target did not take a REGISTER: the next one goes to another.
    fn registrar_failed(&mut self, number: u64) {
        if let Some(registering) = self.registrations.all.get_mut(&number) {
            registering.failed.extend(registering.target);
        }
    }

    /// A final answer to our REGISTER.
    pub(super) fn on_register_answer(&mut self, number: u64, response: &Message, now: Now) {
        let Some(registering) = self.registrations.all.get_mut(&number) else { return };
        let refused = registering.refused.take();
        let input = match response.status().unwrap_or(0) {
            ..200 => return,
            200..=299 => {
                registering.failed.clear();
                Input::Accepted { expires_s: self.granted(number, response) }
            }
            423 => Input::TooBrief { min_s: response.min_expires().unwrap_or(0) },
            status => {
                if status == 503 {
                    self.registrar_failed(number);
                }
                let down = refused.unwrap_or(TrunkDown::RegistrationRefused);
                Input::Failed { down, retry_after_s: response.retry_after() }
            }
        };
        self.registering_takes(number, input, now);
    }

    pub(super) fn on_register_unanswered(&mut self, number: u64, now: Now) {
        self.registrar_failed(number);
        self.registering_takes(number, Input::Failed { down: TrunkDown::Silent, retry_after_s: None }, now);
    }

    /// For how long the carrier has us registered: as our Contact in its answer says (RFC 3261 §10.2.4). A carrier between
    /// us and a NAT writes another address there.
    fn granted(&self, number: u64, response: &Message) -> u32 {
        let Some(registering) = self.registrations.all.get(&number) else { return 0 };
        let contacts = response.contacts();
        let ours = registering.target.and_then(|target| self.trunk_contact(registering, target));
        let ours = contacts.iter().find(|theirs| ours.as_ref().is_some_and(|ours| theirs.uri.is_equivalent(&ours.uri)));
        let theirs = match (ours, &contacts[..]) {
            (Some(ours), _) => Some(ours),
            (None, [only]) => Some(only),
            (None, _) => None,
        };
        let expires = theirs.and_then(NameAddr::expires_s).or_else(|| response.expires());
        expires.or(registering.login.register_s).unwrap_or(0)
    }

    /// Our address at the carrier.
    fn trunk_contact(&self, registering: &Registering, target: Gateway) -> Option<NameAddr> {
        self.contact(Way::To(target.into()), &registering.login.username)
    }

    fn registering_takes(&mut self, number: u64, input: Input, now: Now) {
        let Some(registering) = self.registrations.all.get_mut(&number) else { return };
        let trunk = registering.trunk;
        match registering.machine.on(input, now.mono, &mut self.entropy) {
            Some(Step::Register { expires_s }) => self.send_register(number, expires_s, now),
            Some(Step::Unregister) => self.send_register(number, 0, now),
            Some(Step::Gone) => {
                self.registrations.all.remove(&number);
            }
            None => {}
        }
        self.arm_registering(number);
        self.tell_change(trunk, now);
    }

    fn send_register(&mut self, number: u64, expires_s: u32, now: Now) {
        if self.try_register(number, expires_s, now).is_err() {
            tracing::warn!("a REGISTER could not be written");
            self.on_register_unanswered(number, now);
        }
    }

    /// # Errors
    /// Something in it cannot be written in SIP, or the table of transactions is full.
    fn try_register(&mut self, number: u64, expires_s: u32, now: Now) -> Result<(), Malformed> {
        // It ends where it was made, whatever its name leads to now.
        let last = self.registrations.all.get(&number).and_then(|registering| registering.target);
        let next = if expires_s == 0 { last } else { None };
        let target = next.or_else(|| self.registrar(number)).or(last).ok_or(Malformed)?;
        let registering = self.registrations.all.get_mut(&number).ok_or(Malformed)?;
        registering.target = Some(target);
        let (address, call_id) = (registering.address.clone(), registering.call_id.clone());
        let registering = self.registrations.all.get(&number).ok_or(Malformed)?;
        let contact = self.trunk_contact(registering, target).ok_or(Malformed)?;
        let us = NameAddr::new(target_uri(Some(&registering.login.username), &address, target)?);
        let way = Way::To(self.destination(target, host_of(&address)));
        let from = us.clone().with_tag(&self.entropy.hex::<8>())?;
        let owner = Owner::Register(number);
        let cseq = self.registrations.cseq(number).ok_or(Malformed)?;
        *cseq += 1;
        let register = RequestBuilder::new(Method::Register, target_uri(None, &address, target)?)
            .from(&from)
            .to(&us)
            .call_id(&call_id)
            .cseq(*cseq)
            .contact(&contact)
            .expires(expires_s);
        let is_kept = self.request(way, register, owner, now);
        if is_kept { Ok(()) } else { Err(Malformed) }
    }

    fn arm_registering(&mut self, number: u64) {
        if let Some(registering) = self.registrations.all.get_mut(&number) {
            let next = registering.machine.next_time();
            self.timers.arm(&mut registering.armed, next, || Timer::Register(number));
        }
    }
}
