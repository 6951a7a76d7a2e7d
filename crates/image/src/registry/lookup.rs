//! Host names to addresses: the hosts file, then the name servers of resolv.conf(5), asked as RFC 1035 has it.
//!
//! The C library's getaddrinfo(3) would load the host's name service modules into a static program, which works only
//! beside the very same version of it. A registry's name needs no more than this: A and AAAA records over UDP, and TCP
//! for an answer that does not fit.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// The most bytes of an answer over UDP that the query announces (EDNS is not used: RFC 1035, 4.2.1).
const UDP_MOST: usize = 512;
/// The most name servers that resolv.conf(5) lets count.
const SERVERS: usize = 3;

const A: u16 = 1;
const AAAA: u16 = 28;

/// Resolves for the HTTP client.
#[derive(Debug)]
pub(super) struct Lookup;

impl Resolver for Lookup {
    fn resolve(
        &self,
        uri: &ureq::http::Uri,
        _: &ureq::config::Config,
        _: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let host = uri.host().unwrap_or_default();
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("http") { 80 } else { 443 });
        let found = addresses(host)?;
        let mut out = self.empty();
        found.iter().take(8).for_each(|ip| out.push(SocketAddr::new(*ip, port)));
        if found.is_empty() { Err(ureq::Error::HostNotFound) } else { Ok(out) }
    }
}

/// All addresses of a host, IPv4 first. Errors: no name server answered.
fn addresses(host: &str) -> io::Result<Vec<IpAddr>> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(ip) = bare.parse() {
        return Ok(vec![ip]);
    }
    let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    let known = in_hosts(&hosts, host);
    if !known.is_empty() {
        return Ok(known);
    }
    if host == "localhost" || host.ends_with(".localhost") {
        // RFC 6761, 6.3: never asked of a server.
        return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    let settings = Settings::parse(&std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default());
    settings.names(host).iter().find_map(|name| settings.ask(name).transpose()).unwrap_or(Ok(Vec::new()))
}

/// hosts(5).
fn in_hosts(text: &str, host: &str) -> Vec<IpAddr> {
    let mut found: Vec<IpAddr> = Vec::new();
    for line in text.lines() {
        let mut words = line.split('#').next().unwrap_or("").split_whitespace();
        let Some(Ok(ip)) = words.next().map(str::parse) else { continue };
        if words.any(|w| w.eq_ignore_ascii_case(host)) {
            found.push(ip);
        }
    }
    found.sort_by_key(IpAddr::is_ipv6);
    found
}

/// resolv.conf(5): what counts of it.
struct Settings {
    servers: Vec<IpAddr>,
    search: Vec<String>,
    dots: usize,
    timeout: Duration,
    attempts: u32,
}

impl Settings {
    fn parse(text: &str) -> Self {
        let mut all = Self {
            servers: Vec::new(),
            search: Vec::new(),
            dots: 1,
            timeout: Duration::from_secs(5),
            attempts: 2,
        };
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                // An address with a zone (fe80::1%eth0) is passed over.
                Some("nameserver") => all.servers.extend(words.next().and_then(|w| w.parse::<IpAddr>().ok())),
                Some("search" | "domain") => all.search = words.take(6).map(str::to_owned).collect(),
                Some("options") => words.for_each(|word| all.option(word)),
                _ => {}
            }
        }
        all.servers.truncate(SERVERS);
        if all.servers.is_empty() {
            all.servers.push(Ipv4Addr::LOCALHOST.into());
        }
        all
    }

    fn option(&mut self, word: &str) {
        let number = |prefix: &str| word.strip_prefix(prefix)?.parse::<u32>().ok();
        if let Some(n) = number("ndots:") {
            self.dots = n.min(15) as usize;
        } else if let Some(n) = number("timeout:") {
            self.timeout = Duration::from_secs(n.clamp(1, 30).into());
        } else if let Some(n) = number("attempts:") {
            self.attempts = n.clamp(1, 5);
        }
    }

    /// The names to ask for, in order.
    fn names(&self, host: &str) -> Vec<String> {
        if host.ends_with('.') {
            return vec![host.trim_end_matches('.').to_owned()];
        }
        let searched = self.search.iter().map(|s| format!("{host}.{}", s.trim_end_matches('.')));
        let whole = host.bytes().filter(|b| *b == b'.').count() >= self.dots;
        let mut names: Vec<String> = searched.filter(|n| !n.ends_with('.')).collect();
        names.insert(if whole { 0 } else { names.len() }, host.to_owned());
        names
    }

    /// `None`: there is no such name. Errors: nobody answered.
    fn ask(&self, name: &str) -> io::Result<Option<Vec<IpAddr>>> {
        let mut last = io::Error::from(io::ErrorKind::TimedOut);
        for server in (0..self.attempts).flat_map(|_| &self.servers) {
            let server = SocketAddr::new(*server, 53);
            match both(server, name, self.timeout) {
                Ok(found) => return Ok((!found.is_empty()).then_some(found)),
                Err(e) => last = e,
            }
        }
        Err(io::Error::new(last.kind(), format!("no name server knows {name:?}: {last}")))
    }
}

/// Asks one server for both kinds of address.
fn both(server: SocketAddr, name: &str, timeout: Duration) -> io::Result<Vec<IpAddr>> {
    let mut found = query(server, name, A, timeout)?;
    // A host without IPv6 need not wait for this one.
    found.extend(query(server, name, AAAA, timeout).unwrap_or_default());
    Ok(found)
}

fn query(server: SocketAddr, name: &str, kind: u16, timeout: Duration) -> io::Result<Vec<IpAddr>> {
    let id = number();
    let question = question(id, name, kind)?;
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(server)?;
    socket.send(&question)?;
    let end = Instant::now() + timeout;
    let mut buffer = [0; UDP_MOST];
    loop {
        let left = end.checked_duration_since(Instant::now()).ok_or(io::ErrorKind::TimedOut)?;
        socket.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        let n = socket.recv(&mut buffer)?;
        match answer(&buffer[..n], &question, kind) {
            // Someone else's, or forged: the right one may still come.
            Err(Wrong::Other) => {}
            Err(Wrong::TooLong) => return over_tcp(server, &question, kind, timeout),
            Err(Wrong::Failed(code)) => {
                return Err(io::Error::other(format!("name server {} failed with code {code}", server.ip())));
            }
            Ok(found) => return Ok(found),
        }
    }
}

fn over_tcp(server: SocketAddr, question: &[u8], kind: u16, timeout: Duration) -> io::Result<Vec<IpAddr>> {
    let mut stream = TcpStream::connect_timeout(&server, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    stream.write_all(&[&(question.len() as u16).to_be_bytes(), question].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut message)?;
    answer(&message, question, kind).map_err(|e| io::Error::other(e.to_string()))
}

/// A number that others cannot guess: the standard library's hash keys come from the kernel.
fn number() -> u16 {
    use std::hash::BuildHasher;
    std::collections::hash_map::RandomState::new().hash_one(Instant::now()) as u16
}

fn question(id: u16, name: &str, kind: u16) -> io::Result<Vec<u8>> {
    let mut message = id.to_be_bytes().to_vec();
    // Recursion desired; one question.
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        if label.is_empty() || label.len() > 63 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{name:?} is no host name")));
        }
        message.push(label.len() as u8);
        message.extend(label.as_bytes());
    }
    message.push(0);
    message.extend(kind.to_be_bytes());
    message.extend([0, 1]);
    if message.len() > 300 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(message)
}

/// Why a message is no answer.
#[derive(Debug, PartialEq, Eq)]
enum Wrong {
    /// It does not belong to the question.
    Other,
    /// It was cut off.
    TooLong,
    /// The server says so: RCODE.
    Failed(u8),
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the name server's answer cannot be used ({self:?})")
    }
}

/// The addresses of this kind. Names are not compared: an answer to this very question (same number, same question,
/// from the server that was asked) says what the name's aliases lead to. No such name: no addresses.
fn answer(message: &[u8], question: &[u8], kind: u16) -> Result<Vec<IpAddr>, Wrong> {
    let body = message.get(12..).ok_or(Wrong::Other)?;
    let is_answer = message[2] & 0x80 != 0;
    let asked = body.get(..question.len() - 12).ok_or(Wrong::Other)?;
    if message[..2] != question[..2] || !is_answer || !asked.eq_ignore_ascii_case(&question[12..]) {
        return Err(Wrong::Other);
    }
    if message[2] & 2 != 0 {
        return Err(Wrong::TooLong);
    }
    match message[3] & 15 {
        0 => {}
        3 => return Ok(Vec::new()),
        code => return Err(Wrong::Failed(code)),
    }
    let count = u16::from_be_bytes([message[6], message[7]]);
    let mut at = question.len();
    let mut found = Vec::new();
    for _ in 0..count {
        let Some((record, data, end)) = record(message, at) else { break };
        match (record == kind, data) {
            (true, &[a, b, c, d]) => found.push(Ipv4Addr::new(a, b, c, d).into()),
            (true, data) => found.extend(<[u8; 16]>::try_from(data).map(IpAddr::from)),
            _ => {}
        }
        at = end;
    }
    Ok(found)
}

/// A resource record at an offset: its type (of class IN), its data, where the next begins.
fn record(message: &[u8], at: usize) -> Option<(u16, &[u8], usize)> {
    let start = skip_name(message, at)?;
    let head = message.get(start..start + 10)?;
    let number = |i: usize| u16::from_be_bytes([head[i], head[i + 1]]);
    let kind = if number(2) == 1 { number(0) } else { 0 };
    let end = start + 10 + usize::from(number(8));
    Some((kind, message.get(start + 10..end)?, end))
}

/// Past a name: labels up to an empty one, or to a pointer, which is not followed.
fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            pointer if pointer & 0xc0 == 0xc0 => return Some(at + 2),
            length if length & 0xc0 == 0 => at += 1 + usize::from(length),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(question: &[u8], flags: [u8; 2], records: &[u8], count: u8) -> Vec<u8> {
        let mut message = question.to_vec();
        message[2..4].copy_from_slice(&flags);
        message[7] = count;
        message.extend(records);
        message
    }

    #[test]
    fn answers_are_read_and_others_are_not() {
        let q = question(0x1234, "Registry.example", A).unwrap();
        let cname = [0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 9, 0, 2, 0xc0, 12];
        let address = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 192, 0, 2, 7];
        let both = [cname.as_slice(), &address].concat();
        let good = reply(&q, [0x81, 0x80], &both, 2);
        assert_eq!(answer(&good, &q, A), Ok(vec!["192.0.2.7".parse().unwrap()]));
        assert_eq!(answer(&good, &question(0x1235, "registry.example", A).unwrap(), A), Err(Wrong::Other));
        assert_eq!(answer(&good, &question(0x1234, "registry.exampl", A).unwrap(), A), Err(Wrong::Other));
        assert_eq!(answer(&q, &q, A), Err(Wrong::Other));
        assert_eq!(answer(&reply(&q, [0x83, 0x80], &[], 0), &q, A), Err(Wrong::TooLong));
        assert_eq!(answer(&reply(&q, [0x81, 0x83], &[], 0), &q, A), Ok(vec![]));
        assert_eq!(answer(&reply(&q, [0x81, 0x82], &[], 0), &q, A), Err(Wrong::Failed(2)));
    }

    /// Cut anywhere, or with any byte changed: no panic, no loop.
    #[test]
    fn damaged_answers_do_no_harm() {
        let q = question(7, "a.b", AAAA).unwrap();
        let good = reply(
            &q,
            [0x81, 0x80],
            &[[0xc0, 12, 0, 28, 0, 1, 0, 0, 0, 9, 0, 16].as_slice(), &[1; 16]].concat(),
            1,
        );
        assert_eq!(answer(&good, &q, AAAA).map(|f| f.len()), Ok(1));
        for cut in 0..good.len() {
            let _ = answer(&good[..cut], &q, AAAA);
            for value in [0, 1, 63, 64, 192, 255] {
                let mut changed = good.clone();
                changed[cut] = value;
                let _ = answer(&changed, &q, AAAA);
            }
        }
    }

    #[test]
    fn files_are_read() {
        let s = Settings::parse(
            "# x\nnameserver 192.0.2.1\nnameserver fe80::1%eth0\nsearch a.b c.d\noptions ndots:2 timeout:1\n",
        );
        assert_eq!((s.servers.len(), s.timeout.as_secs()), (1, 1));
        assert_eq!(s.names("x.y"), ["x.y.a.b", "x.y.c.d", "x.y"]);
        assert_eq!(s.names("x.y.z")[0], "x.y.z");
        assert_eq!(in_hosts("127.0.0.1 localhost me # you\n::1 me\n", "ME").len(), 2);
        assert!(in_hosts("127.0.0.1 localhost # you\n", "you").is_empty());
        assert_eq!(addresses("[::1]").unwrap(), [IpAddr::from(Ipv6Addr::LOCALHOST)]);
    }
}
