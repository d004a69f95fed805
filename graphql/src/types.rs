//! The GraphQL types: thin views of `schema`'s types, which know nothing of GraphQL.

pub(crate) mod account;
pub(crate) mod call;
pub(crate) mod caller_id;
pub(crate) mod event;
pub(crate) mod ledger;
pub(crate) mod money;
pub(crate) mod node;
pub(crate) mod operator;
pub(crate) mod page;
pub(crate) mod quote;
pub(crate) mod scalar;
pub(crate) mod sip_credential;
pub(crate) mod viewer;
