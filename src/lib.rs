//! The wiring of Ringfence: configuration, command line, and the parts put together. No rules.

pub mod admin;
mod admin_server;
pub mod certificate;
pub mod cli;
pub mod clock;
pub mod commands;
pub mod config;
pub mod credit;
pub mod data;
pub mod demo;
pub mod development;
mod dns;
mod failures;
mod listener;
mod logs;
mod metrics;
mod names;
pub mod provision;
mod receipt;
mod resolvers;
pub mod server;
pub mod world;
