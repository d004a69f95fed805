//! The web edge: HTTP, GraphQL, subscriptions, sessions and the embedded dashboard.
//!
//! | path | what |
//! |---|---|
//! | `POST /graphql` | queries and mutations, `application/json` |
//! | `/graphql/ws` | subscriptions, graphql-transport-ws |
//! | `/` | the dashboard |
//! | `/healthz` | this process runs |
//! | `/readyz` | it takes work: the store answers, calls do not fail in numbers, and no drain has begun |
//!
//! A request passes, in this order: its form and size (`http`), its document's limits (`limits`), whose page and whose
//! credential it is (`origin`, `session`), and in each resolver the one policy (`policy`). What a resolver shows are thin
//! views (`types`) of `schema`'s types; what it does, an actor or the store does.

mod app;
mod assets;
mod config;
mod cursor;
mod error;
mod graph;
mod http;
mod limits;
mod mutation;
mod origin;
pub mod password;
mod policy;
mod query;
mod router;
mod session;
mod sign_in;
mod subscription;
mod throttle;
mod types;
mod ws;

pub use config::WebConfig;
pub use graph::schema_sdl;
pub use origin::network;
pub use router::{Api, router};
