//! Small text formats of the web: origins, percent-encoding, base64.

/// Scheme, host and port of a URL; two requests with the same are for the same server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) scheme: String,
    pub(super) host: String,
    pub(super) port: u16,
}

impl Origin {
    /// Of an absolute http or https URL without user information.
    pub(super) fn of(url: &str) -> Option<Self> {
        let uri: ureq::http::Uri = url.parse().ok()?;
        let scheme = uri.scheme_str().filter(|s| matches!(*s, "http" | "https"))?.to_owned();
        let authority = uri.authority()?;
        if authority.as_str().contains('@') {
            return None;
        }
        let port = authority.port_u16().unwrap_or(if scheme == "http" { 80 } else { 443 });
        Some(Self { scheme, host: authority.host().to_ascii_lowercase(), port })
    }

    /// Whether nobody between here and there can listen: TLS, or this very machine.
    pub(super) fn is_private(&self) -> bool {
        self.scheme == "https" || is_loopback(&self.host)
    }

    /// Whether both belong to one owner, as far as names tell: the same host, or the same last two labels (three below
    /// what looks like a country's second level, `co.uk`).
    pub(super) fn is_kin(&self, other: &Self) -> bool {
        let is_address = |h: &str| h.starts_with('[') || h.parse::<std::net::Ipv4Addr>().is_ok();
        let tail = |h: &str| {
            let all: Vec<&str> = h.rsplit('.').collect();
            let country = all.len() > 1 && all[0].len() == 2 && all[1].len() <= 3;
            let least = if country { 3 } else { 2 };
            (all.len() >= least && !is_address(h)).then(|| all[..least].join("."))
        };
        self.host == other.host || tail(&self.host).is_some_and(|t| tail(&other.host) == Some(t))
    }
}

/// Whether a host (perhaps with a port) is this machine.
pub(super) fn is_loopback(host: &str) -> bool {
    let bare = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    bare == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// For a query's values.
pub(super) fn percent(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// RFC 4648, 4.
pub(super) fn base64(bytes: &[u8]) -> String {
    let mut out = String::new();
    for piece in bytes.chunks(3) {
        let word = piece.iter().fold(0u32, |w, b| w << 8 | u32::from(*b)) << (8 * (3 - piece.len()));
        for i in 0..4 {
            let index = (word >> (18 - 6 * i)) as usize & 63;
            out.push(if i <= piece.len() { char::from(ALPHABET[index]) } else { '=' });
        }
    }
    out
}

/// The reverse; `None` for anything else.
pub(super) fn base64_decode(text: &str) -> Option<Vec<u8>> {
    let body = text.trim().trim_end_matches('=');
    let mut out = Vec::new();
    for piece in body.as_bytes().chunks(4) {
        let mut word = 0u32;
        for b in piece {
            word = word << 6 | ALPHABET.iter().position(|a| a == b)? as u32;
        }
        word <<= 6 * (4 - piece.len());
        let bytes = [(word >> 16) as u8, (word >> 8) as u8, word as u8];
        out.extend(&bytes[..(piece.len() * 6 / 8)]);
    }
    (body.len() % 4 != 1).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_both_ways() {
        for (plain, coded) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")]
        {
            assert_eq!(base64(plain.as_bytes()), coded);
            assert_eq!(base64_decode(coded).as_deref(), Some(plain.as_bytes()));
        }
        assert_eq!((base64_decode("Z"), base64_decode("Z*==")), (None, None));
    }

    #[test]
    fn origins() {
        let of = |u: &str| Origin::of(u);
        assert_eq!(of("https://A.b/x").map(|o| (o.host, o.port)), Some(("a.b".into(), 443)));
        assert!(of("https://u:p@a.b/").is_none() && of("ftp://a.b/").is_none() && of("/x").is_none());
        let kin = |a: &str, b: &str| of(a).unwrap().is_kin(&of(b).unwrap());
        assert!(kin("https://registry-1.docker.io", "https://auth.docker.io/token"));
        assert!(!kin("https://r.example.com", "https://r.example.org"));
        assert!(!kin("https://127.0.0.1:5000", "https://10.0.0.1:5000"));
        assert!(!kin("https://localhost", "https://localhost.evil.com"));
        assert!(
            !kin("https://r.bank.co.uk", "https://evil.co.uk")
                && kin("https://r.bank.co.uk", "https://a.bank.co.uk")
        );
        assert!(is_loopback("localhost:5000") && is_loopback("[::1]:1") && is_loopback("127.9.9.9"));
        assert!(!is_loopback("localhost.evil.com") && !is_loopback("127.0.0.1.evil.com"));
    }
}
