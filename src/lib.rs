//! The wiring of Ringfence: configuration, command line, and the parts put together. No rules.

pub mod certificate;
pub mod cli;
pub mod clock;
pub mod config;
pub mod world;
