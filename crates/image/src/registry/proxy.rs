//! Which proxy a request goes through: HTTPS_PROXY, HTTP_PROXY and NO_PROXY, as the engines read them (Go's httpproxy).
//!
//! The client's own reading of the environment takes one proxy for both schemes, and sends this machine's own addresses
//! through it.

use super::url::{Origin, is_loopback};
use crate::error::{Result, fail};
use std::net::IpAddr;

/// The proxies, as their variables say. Empty: none.
#[derive(Debug, Clone, Default)]
pub struct Proxies {
    /// For https.
    pub https: String,
    /// For http.
    pub http: String,
    /// Hosts that are asked directly.
    pub none: String,
}

impl Proxies {
    /// The environment's; capitals first.
    pub fn of_environment() -> Self {
        let var = |name: &str| {
            let read = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
            read(&name.to_uppercase()).or_else(|| read(name)).unwrap_or_default()
        };
        Self { https: var("https_proxy"), http: var("http_proxy"), none: var("no_proxy") }
    }

    /// The one for a server; `None`: it is asked directly. Errors: the variable holds no http or https URL.
    pub(super) fn of(&self, origin: &Origin) -> Result<Option<ureq::Proxy>> {
        let (name, value) = match origin.scheme.as_str() {
            "https" => ("HTTPS_PROXY", &self.https),
            _ => ("HTTP_PROXY", &self.http),
        };
        if value.is_empty() || is_loopback(&origin.host) || excepts(&self.none, origin) {
            return Ok(None);
        }
        // Not shown whole: it may hold a password.
        let proxy = ureq::Proxy::new(value).ok();
        // SOCKS is not built in: the client would ask the server directly.
        let proxy =
            proxy.filter(|p| matches!(p.protocol(), ureq::ProxyProtocol::Http | ureq::ProxyProtocol::Https));
        match proxy {
            Some(proxy) => Ok(Some(proxy)),
            None => fail!(Usage, "{name} is no http:// or https:// URL of a proxy"),
        }
    }
}

/// Whether a list of exceptions names a server: `*`; a domain with all below it, or with a dot in front only those
/// below; an address or a network of addresses; each perhaps with a port.
fn excepts(list: &str, origin: &Origin) -> bool {
    let host = origin.host.trim_start_matches('[').trim_end_matches(']');
    let ip = host.parse::<IpAddr>().ok();
    list.split([',', ' ']).map(|e| e.trim().to_ascii_lowercase()).filter(|e| !e.is_empty()).any(|entry| {
        if entry == "*" {
            return true;
        }
        if let (Some(ip), Some((network, bits))) = (ip, network(&entry)) {
            return is_within(ip, network, bits);
        }
        let (name, port) = match entry.rsplit_once(':') {
            Some((name, port)) if !name.contains(':') || name.ends_with(']') => (name, port.parse().ok()),
            _ => (entry.as_str(), None),
        };
        if port.is_some_and(|p: u16| p != origin.port) {
            return false;
        }
        let name = name.trim_start_matches('[').trim_end_matches(']').trim_start_matches('*');
        match name.strip_prefix('.') {
            Some(domain) => host.strip_suffix(domain).is_some_and(|sub| sub.ends_with('.')),
            None => {
                host == name || host.strip_suffix(name).is_some_and(|sub| ip.is_none() && sub.ends_with('.'))
            }
        }
    })
}

/// `10.0.0.0/8`
fn network(entry: &str) -> Option<(IpAddr, u32)> {
    let (address, bits) = entry.split_once('/')?;
    Some((address.parse().ok()?, bits.parse().ok()?))
}

fn is_within(ip: IpAddr, network: IpAddr, bits: u32) -> bool {
    match (ip, network) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            bits <= 32 && (a.to_bits() ^ b.to_bits()).checked_shr(32 - bits).unwrap_or(0) == 0
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            bits <= 128 && (a.to_bits() ^ b.to_bits()).checked_shr(128 - bits).unwrap_or(0) == 0
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through(none: &str, url: &str) -> Option<String> {
        let all = Proxies {
            https: "proxy.x:3128".into(),
            http: "http://me:secret@plain.x".into(),
            none: none.into(),
        };
        all.of(&Origin::of(url).unwrap()).unwrap().map(|p| format!("{}:{}", p.host(), p.port()))
    }

    #[test]
    fn each_scheme_has_its_own_and_this_machine_none() {
        assert_eq!(through("", "https://a.b/x").as_deref(), Some("proxy.x:3128"));
        assert_eq!(through("", "http://a.b/x").as_deref(), Some("plain.x:80"));
        for own in ["https://localhost/", "http://127.0.0.1:5000/", "https://[::1]:1/"] {
            assert_eq!(through("", own), None, "{own}");
        }
        let bad = Proxies { https: "socks://a:secret@b".into(), ..Proxies::default() };
        let said = bad.of(&Origin::of("https://a.b/").unwrap()).unwrap_err().to_string();
        assert!(said.contains("HTTPS_PROXY") && !said.contains("secret"), "{said}");
    }

    #[test]
    fn exceptions() {
        for (list, url) in [
            ("*", "https://a.b/"),
            ("x.y, b.c", "https://a.b.c/"),
            ("b.c", "https://B.C/"),
            (".b.c", "https://a.b.c/"),
            ("*.b.c", "https://a.b.c/"),
            ("a.b:5000", "https://a.b:5000/"),
            ("10.0.0.0/8", "http://10.9.9.9/"),
            ("192.0.2.1", "http://192.0.2.1/"),
            ("fd00::/8", "http://[fd00::7]:80/"),
            ("fd00::7", "http://[fd00::7]:80/"),
            ("0.0.0.0/0", "http://192.0.2.1/"),
        ] {
            assert_eq!(through(list, url), None, "{list} excepts {url}");
        }
        for (list, url) in [
            ("", "https://a.b/"),
            ("b.c", "https://ab.c/"),
            (".b.c", "https://b.c/"),
            ("a.b:5000", "https://a.b/"),
            ("10.0.0.0/8", "http://11.0.0.1/"),
            ("10.0.0.0/99", "http://10.0.0.1/"),
            ("2.1", "http://192.0.2.1/"),
            ("a.b", "https://a.b.evil.x/"),
        ] {
            assert!(through(list, url).is_some(), "{list} does not except {url}");
        }
    }
}
