//! Where a request comes from: whether its page is ours (`Origin`), whether it carries the mark that only a page's own script
//! can set, and which address counts for limits. Pure.

use axum::http::{HeaderMap, header};
use std::net::{IpAddr, Ipv6Addr};

/// The origins whose pages may use the API with a cookie.
#[derive(Debug, Clone)]
pub(crate) struct Origins(Vec<String>);

impl Origins {
    /// The origin of `public_url` and those named beside it. A loopback name stands for all of them: people type either.
    pub(crate) fn new(public_url: &str, others: &[String]) -> Self {
        let mut all = Vec::new();
        for url in std::iter::once(public_url).chain(others.iter().map(String::as_str)) {
            let Some((scheme, host, port)) = parts(url) else { continue };
            if is_loopback(host) {
                all.extend(["localhost", "127.0.0.1", "[::1]"].map(|name| format!("{scheme}://{name}{port}")));
            } else {
                all.push(format!("{scheme}://{host}{port}"));
            }
        }
        Self(all)
    }

    /// Whether the page behind these headers is ours; `None` when no browser page is behind them.
    pub(crate) fn admit(&self, headers: &HeaderMap) -> Option<bool> {
        let Some(origin) = headers.get(header::ORIGIN) else {
            return headers.contains_key("sec-fetch-site").then_some(false);
        };
        Some(origin.to_str().is_ok_and(|origin| self.0.iter().any(|ours| ours.eq_ignore_ascii_case(origin))))
    }
}

/// Scheme, host and `:port` (empty when none is written) of a URL.
fn parts(url: &str) -> Option<(&str, &str, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let end = if authority.starts_with('[') {
        authority.find(']')? + 1
    } else {
        authority.find(':').unwrap_or(authority.len())
    };
    let port = match (scheme, &authority[end..]) {
        ("https", ":443") | ("http", ":80") => "", // as browsers write an origin
        (_, port) => port,
    };
    Some((scheme, &authority[..end], port))
}

fn is_loopback(host: &str) -> bool {
    matches!(host, "localhost" | "127.0.0.1" | "[::1]")
}

/// Whether browsers keep a `Secure` cookie of this URL: over HTTPS, and from loopback names, which they trust as much.
pub(crate) fn keeps_secure_cookies(public_url: &str) -> bool {
    parts(public_url).is_some_and(|(scheme, host, _)| scheme == "https" || is_loopback(host))
}

/// Whether the URL is spoken over TLS.
pub(crate) fn is_https(public_url: &str) -> bool {
    public_url.starts_with("https://")
}

/// The address that counts for limits: the peer's, or what a trusted proxy says. The last address in `X-Forwarded-For` that
/// is no trusted proxy: everything before it could have been written by the client.
pub(crate) fn client_address(peer: Option<IpAddr>, headers: &HeaderMap, trusted: &[IpAddr]) -> Option<IpAddr> {
    let peer = peer?.to_canonical();
    if !trusted.contains(&peer) {
        return Some(peer);
    }
    let lines = headers.get_all("x-forwarded-for").iter().filter_map(|line| line.to_str().ok());
    let hops: Vec<&str> = lines.flat_map(|line| line.split(',')).collect();
    for hop in hops.iter().rev() {
        match hop.trim().parse::<IpAddr>() {
            Ok(address) if trusted.contains(&address.to_canonical()) => {}
            Ok(address) => return Some(address.to_canonical()),
            Err(_) => break,
        }
    }
    Some(peer)
}

/// The network that one party has: an IPv4 address, or an IPv6 /64.
#[must_use]
pub fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value"))).collect()
    }

    #[test]
    fn only_our_own_pages_are_admitted() {
        let origins = Origins::new("https://calls.example:443/app", &["https://other.example:8443".to_owned()]);
        for (origin, ours) in [
            ("https://calls.example", true),
            ("https://CALLS.example", true),
            ("https://other.example:8443", true),
            ("http://calls.example", false),
            ("https://calls.example:444", false),
            ("https://calls.example.evil.example", false),
            ("https://evil.example", false),
            ("null", false),
        ] {
            assert_eq!(origins.admit(&headers(&[("origin", origin)])), Some(ours), "{origin}");
        }
        assert_eq!(origins.admit(&headers(&[])), None, "no page");
        assert_eq!(origins.admit(&headers(&[("sec-fetch-site", "cross-site")])), Some(false));
    }

    #[test]
    fn loopback_names_are_one_place() {
        let origins = Origins::new("http://127.0.0.1:8080", &[]);
        for origin in ["http://localhost:8080", "http://127.0.0.1:8080", "http://[::1]:8080"] {
            assert_eq!(origins.admit(&headers(&[("origin", origin)])), Some(true), "{origin}");
        }
        assert_eq!(origins.admit(&headers(&[("origin", "http://localhost:8081")])), Some(false));
        assert!(keeps_secure_cookies("http://[::1]:8080") && keeps_secure_cookies("https://a.example"));
        assert!(!keeps_secure_cookies("http://a.example"));
    }

    #[test]
    fn only_a_trusted_proxy_names_the_client() {
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        let trusted = [address("10.0.0.1"), address("10.0.0.2")];
        let forwarded = headers(&[("x-forwarded-for", "6.6.6.6, 1.2.3.4, 10.0.0.2")]);
        assert_eq!(client_address(Some(address("10.0.0.1")), &forwarded, &trusted), Some(address("1.2.3.4")));
        assert_eq!(client_address(Some(address("::ffff:10.0.0.1")), &forwarded, &trusted), Some(address("1.2.3.4")));
        assert_eq!(client_address(Some(address("9.9.9.9")), &forwarded, &trusted), Some(address("9.9.9.9")));
        let nonsense = headers(&[("x-forwarded-for", "1.2.3.4, unknown")]);
        assert_eq!(client_address(Some(address("10.0.0.1")), &nonsense, &trusted), Some(address("10.0.0.1")));
        assert_eq!(network(address("2001:db8:1:2:3::4")), address("2001:db8:1:2::"));
    }
}
