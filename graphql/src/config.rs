//! What the web edge is told.

use std::net::IpAddr;

/// What the web edge is told.
#[derive(Debug, Clone)]
pub struct WebConfig {
    /// The address customers type, with `http://` or `https://`. Decides cookies, allowed origins and HSTS.
    pub public_url: String,
    /// Further origins whose pages may use the API with a cookie, e.g. `https://calls.example`.
    pub origins: Vec<String>,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpAddr>,
    /// SIP domain and digest realm, shown beside SIP usernames.
    pub sip_domain: String,
    /// Development mode: introspection and suggestions are answered.
    pub development: bool,
}
