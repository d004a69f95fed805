//! The vocabulary of Ringfence: domain types that cannot be wrong. Imports none of our crates.
//!
//! A noun and its arithmetic live here; a decision lives in `actors` or `sip`. Nothing in this crate is async, reads a
//! clock or draws a random number: time comes in as [`time::Now`], randomness from a seeded [`entropy::Entropy`].

pub mod account;
pub mod call;
pub mod carrier;
pub mod edge;
pub mod entropy;
pub mod event;
pub mod id;
pub mod journal;
pub mod ledger;
pub mod leg;
pub mod money;
pub mod number;
pub mod pii;
pub mod rate;
pub mod target;
pub mod time;
pub mod wrong;
