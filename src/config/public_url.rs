//! `http.public_url`, the address that customers type: pages of no other address may sign in, so one that cannot be right is found at
//! the start and not by customers.

use super::{Config, ConfigError, is_host, wrong};
use std::net::Ipv6Addr;

const KEY: &str = "http.public_url";

impl Config {
    /// Has it as browsers write it: scheme and host in lower case.
    ///
    /// # Errors
    /// It is no such address.
    pub(super) fn read_public_url(&mut self) -> Result<(), ConfigError> {
        let Some(url) = &mut self.http.public_url else { return Ok(()) };
        match normal(url) {
            Some(normal) => *url = normal,
            None => return wrong(KEY, url, "must be http:// or https:// and a host, such as https://calls.example"),
        }
        Ok(())
    }

    /// # Errors
    /// It does not fit the other keys.
    pub(super) fn check_public_url(&self) -> Result<(), ConfigError> {
        let http = &self.http;
        match &http.public_url {
            Some(url) if http.tls.is_some() && !url.starts_with("https://") => {
                wrong(KEY, url, "must begin with https://, since http.tls is set")
            }
            None if !self.development && http.listen.ip().is_unspecified() => wrong(
                KEY,
                "(none)",
                "must say what customers type, such as https://calls.example, since http.listen names no address",
            ),
            None if !self.development && !http.trusted_proxies.is_empty() => wrong(
                KEY,
                "(none)",
                "must say what customers type, such as https://calls.example, since there are http.trusted_proxies",
            ),
            _ => Ok(()),
        }
    }
}

fn normal(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let scheme = scheme.to_ascii_lowercase();
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let authority = authority.to_ascii_lowercase();
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority.as_str(), None),
    };
    let is_port =
        |text: &str| text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u16>().is_ok_and(|port| port > 0);
    let fits = ["http", "https"].contains(&scheme.as_str()) && is_host(host) && port.is_none_or(is_port);
    let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => format!("[{}]", address.parse::<Ipv6Addr>().ok()?),
        None => host.to_owned(),
    };
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    fits.then(|| format!("{scheme}://{host}{port}{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_browsers_write_it() {
        for (url, read) in [
            ("https://calls.example", Some("https://calls.example")),
            ("HTTPS://Calls.Example:8443/App", Some("https://calls.example:8443/App")),
            ("http://192.0.2.1", Some("http://192.0.2.1")),
            ("http://[2001:DB8::1]:80", Some("http://[2001:db8::1]:80")),
            ("http://[2001:db8::1]", Some("http://[2001:db8::1]")),
            ("http://[2001:db8:0:0:0:0:0:1]", Some("http://[2001:db8::1]")),
            ("calls.example", None),
            ("ftp://calls.example", None),
            ("https://", None),
            ("https:///app", None),
            ("https://calls.example:", None),
            ("https://calls.example:+80", None),
            ("https://calls.example:65536", None),
            ("https://me@calls.example", None),
            (" https://calls.example", None),
            ("", None),
        ] {
            assert_eq!(normal(url).as_deref(), read, "{url}");
        }
    }

    #[test]
    fn it_fits_the_other_keys() {
        let config = |listen: &str, url: Option<&str>| {
            let mut config = Config::default();
            config.http.listen = listen.parse().expect("an address");
            config.http.public_url = url.map(str::to_owned);
            config
        };
        let says = |config: &Config| config.check_public_url().err().map(|error| error.to_string()).unwrap_or_default();
        assert_eq!(says(&config("192.0.2.1:443", None)), "");
        for listen in ["0.0.0.0:443", "[::]:443"] {
            assert!(says(&config(listen, None)).ends_with("since http.listen names no address"));
            assert_eq!(says(&config(listen, Some("http://calls.example"))), "");
        }
        let mut behind = config("127.0.0.1:8080", None);
        behind.http.trusted_proxies = vec!["127.0.0.1".parse().expect("an address")];
        assert!(says(&behind).starts_with("http.public_url = (none): ") && says(&behind).contains("trusted_proxies"));
        behind.development = true;
        assert_eq!(says(&behind), "");
        let mut encrypted = config("0.0.0.0:443", Some("http://calls.example"));
        encrypted.http.tls = Some(super::super::TlsFiles { cert: "c".into(), key: "k".into() });
        assert_eq!(
            says(&encrypted),
            "http.public_url = http://calls.example: must begin with https://, since http.tls is set"
        );
        encrypted.http.public_url = Some(String::from("https://calls.example"));
        assert_eq!(says(&encrypted), "");
    }
}
