//! Registries behind TLS, with a certificate authority of the test's own: whom a certificate convinces, what is done
//! without one, and the way through a proxy.
#![allow(missing_docs)]

mod common;
use common::server::{Answer, Image, Request, Server, status};
use common::{Scratch, gzip};
use coracle_image::Result;
use coracle_image::events::Silent;
use coracle_image::limits::Limits;
use coracle_image::pull::{Pulled, pull};
use coracle_image::registry::{Options, Proxies};
use coracle_image::store::Store;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::RootCertStore;
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

/// Vouches for servers and clients.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut own = CertificateParams::default();
        own.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(own, KeyPair::generate().unwrap()).unwrap())
    }

    /// A certificate for a name, and its key.
    fn vouch(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        (CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &self.0).unwrap(), key)
    }

    /// A server called `name`; with `clients`, one that wants a certificate of theirs.
    fn server(&self, name: &str, clients: Option<&Authority>) -> rustls::ServerConfig {
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(ring.clone());
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let builder = match clients {
            Some(clients) => {
                let mut roots = RootCertStore::empty();
                roots.add(clients.0.der().clone()).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), ring);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
            None => builder.with_no_client_auth(),
        };
        let (certificate, key) = self.vouch(name);
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        builder.with_single_cert(vec![certificate.der().clone()], key).unwrap()
    }

    /// A directory as containers-certs.d(5) has it, that trusts this authority.
    fn directory(&self, scratch: &Scratch) -> PathBuf {
        let directory = scratch.path.join("certs");
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("ca.crt"), self.0.pem()).unwrap();
        fs::write(directory.join("note.txt"), "not read").unwrap();
        directory
    }
}

fn pull_from(scratch: &Scratch, name: &str, options: &Options) -> Result<Pulled> {
    let store = Store::open(&scratch.path.join("store")).unwrap();
    let options =
        Options { proxies: options.proxies.clone().or(Some(Proxies::default())), ..options.clone() };
    pull(&store, &name.parse().unwrap(), None, &options, &Limits::default(), &Silent)
}

fn honest(image: &Image) -> impl Fn(&Request) -> Answer + Send + Sync + 'static {
    let image = image.clone();
    move |r| image.answer(r)
}

fn password() -> Option<(String, String)> {
    Some(("me".into(), "secret".into()))
}

/// A password is asked for, so that one that is given away would be seen.
fn guarded(image: &Image) -> impl Fn(&Request) -> Answer + Send + Sync + 'static {
    let image = image.clone();
    move |r| match r.header("authorization") {
        Some("Basic bWU6c2VjcmV0") => image.answer(r),
        _ => status(401, &[("WWW-Authenticate", "Basic realm=\"x\"")]),
    }
}

#[test]
fn a_certificate_of_an_unknown_issuer_is_refused_unless_told_otherwise() {
    let (scratch, image, authority) = (Scratch::new(), Image::new(), Authority::new());
    let server = Server::tls(authority.server("localhost", None), guarded(&image));
    let name = format!("localhost:{}/app:1", server.port);
    let options = Options { password: password(), ..Options::default() };
    let failed = pull_from(&scratch, &name, &options).unwrap_err().to_string();
    assert!(failed.contains("certs.d") && failed.contains("--cert-dir"), "{failed}");
    assert!(server.requests().is_empty(), "something was asked of a server that nobody vouches for");
    let cert_dir = Some(authority.directory(&scratch));
    pull_from(&scratch, &name, &Options { cert_dir, ..options.clone() }).unwrap();
    let scratch = Scratch::new();
    pull_from(&scratch, &name, &Options { verify: Some(false), ..options.clone() }).unwrap();
    let missing = Options { cert_dir: Some(scratch.path.join("none")), ..options };
    assert!(pull_from(&scratch, &name, &missing).unwrap_err().to_string().contains("--cert-dir"));
}

/// By its name, and by its address; and not by another's name.
#[test]
fn a_certificate_is_for_a_name() {
    let (image, authority) = (Image::new(), Authority::new());
    for (certified, asked, good) in [
        ("localhost", "localhost", true),
        ("127.0.0.1", "127.0.0.1", true),
        ("registry.example", "localhost", false),
        ("localhost", "127.0.0.1", false),
    ] {
        let scratch = Scratch::new();
        let server = Server::tls(authority.server(certified, None), honest(&image));
        let name = format!("{asked}:{}/app:1", server.port);
        let cert_dir = Some(authority.directory(&scratch));
        let pulled = pull_from(&scratch, &name, &Options { cert_dir, ..Options::default() });
        assert_eq!(pulled.is_ok(), good, "{certified} asked as {asked}: {pulled:?}");
        assert!(good || server.requests().is_empty());
    }
}

#[test]
fn a_server_may_want_a_certificate_too() {
    let (scratch, image, authority) = (Scratch::new(), Image::new(), Authority::new());
    let clients = Authority::new();
    let server = Server::tls(authority.server("localhost", Some(&clients)), honest(&image));
    let server_name = format!("localhost:{}/app:1", server.port);
    let directory = authority.directory(&scratch);
    let options = Options { cert_dir: Some(directory.clone()), ..Options::default() };
    let failed = pull_from(&scratch, &server_name, &options).unwrap_err().to_string();
    assert!(failed.contains("NAME.key"), "{failed}");
    let (certificate, key) = clients.vouch("me");
    fs::write(directory.join("client.cert"), certificate.pem()).unwrap();
    let failed = pull_from(&scratch, &server_name, &options).unwrap_err().to_string();
    assert!(failed.contains("client.key"), "{failed}");
    fs::write(directory.join("client.key"), key.serialize_pem()).unwrap();
    pull_from(&scratch, &server_name, &options).unwrap();
    // Of another key; of none; no certificate at all: an error, where the TLS library would panic.
    let other = clients.vouch("me").1.serialize_pem();
    for (name, text) in [("key", other.as_str()), ("cert", ""), ("key", "no key"), ("cert", "no certificate")]
    {
        fs::write(directory.join("client.cert"), certificate.pem()).unwrap();
        fs::write(directory.join("client.key"), key.serialize_pem()).unwrap();
        fs::write(directory.join(format!("client.{name}")), text).unwrap();
        let failed = pull_from(&scratch, &server_name, &options).unwrap_err().to_string();
        assert!(failed.contains("client."), "{name} {text:?}: {failed}");
    }
}

/// CVE-2019-10214: from TLS to none.
#[test]
fn no_redirect_and_no_token_server_leads_away_from_tls() {
    let (image, authority) = (Image::new(), Authority::new());
    let plain = Server::start(honest(&image));
    let to = format!("http://localhost:{}", plain.port);
    let realm = format!("Bearer realm=\"{to}/token\",service=\"x\"");
    let copy = image.clone();
    let redirects = move |r: &Request| match r.path.contains("/blobs/") {
        true => status(307, &[("Location", &format!("{to}{}", r.path))]),
        false => copy.answer(r),
    };
    let server = Server::tls(authority.server("localhost", None), redirects);
    let (scratch, name) = (Scratch::new(), format!("localhost:{}/app:1", server.port));
    let options = Options { cert_dir: Some(authority.directory(&scratch)), ..Options::default() };
    let failed = pull_from(&scratch, &name, &options).unwrap_err().to_string();
    assert!(failed.contains("without TLS"), "{failed}");
    assert!(plain.requests().is_empty());
    // A token server without TLS on this machine sees no password that belongs to one with TLS elsewhere.
    let server = Server::tls(authority.server("127.0.0.1", None), move |_| {
        status(401, &[("WWW-Authenticate", realm.as_str())])
    });
    let (scratch, name) = (Scratch::new(), format!("127.0.0.1:{}/app:1", server.port));
    let cert_dir = Some(authority.directory(&scratch));
    assert!(
        pull_from(&scratch, &name, &Options { cert_dir, password: password(), ..Options::default() })
            .is_err()
    );
    assert!(plain.requests().iter().all(|r| r.header("authorization").is_none()));
}

/// A proxy that leads every CONNECT to one server. Returns its port and what it was asked.
fn proxy(to: u16) -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let log = log.clone();
            std::thread::spawn(move || tunnel(stream, to, &log));
        }
    });
    (port, seen)
}

fn tunnel(stream: TcpStream, to: u16, log: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head)? > 0 {}
    log.lock().unwrap().push(head.clone());
    let (mut down, up) = (stream, TcpStream::connect(("127.0.0.1", to))?);
    if !head.starts_with("CONNECT ") {
        return down.write_all(b"HTTP/1.1 405 No\r\nContent-Length: 0\r\n\r\n");
    }
    if head.contains("refused.example") {
        return down.write_all(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n");
    }
    down.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
    let mut there = up.try_clone()?;
    let forth = std::thread::spawn(move || {
        let done = std::io::copy(&mut reader, &mut there);
        there.shutdown(Shutdown::Write).and(done)
    });
    let mut back = up;
    std::io::copy(&mut back, &mut down)?;
    down.shutdown(Shutdown::Both)?;
    forth.join().map(drop).map_err(|_| std::io::ErrorKind::Other.into())
}

/// The name is the proxy's to look up: this one exists nowhere. The proxy sees neither password nor path.
#[test]
fn through_a_proxy() {
    let (scratch, image, authority) = (Scratch::new(), Image::new(), Authority::new());
    let server = Server::tls(authority.server("registry.example", None), guarded(&image));
    let (port, seen) = proxy(server.port);
    let proxies = |none: &str| {
        let https = format!("http://user:word@127.0.0.1:{port}");
        Some(Proxies { https, http: String::new(), none: none.into() })
    };
    let options = Options {
        cert_dir: Some(authority.directory(&scratch)),
        password: password(),
        proxies: proxies(""),
        ..Options::default()
    };
    pull_from(&scratch, "registry.example/app:1", &options).unwrap();
    let heads = seen.lock().unwrap().clone();
    assert!(!heads.is_empty() && !server.requests().is_empty());
    for head in &heads {
        assert!(head.starts_with("CONNECT registry.example:443 "), "{head}");
        assert!(head.contains("Proxy-Authorization: Basic dXNlcjp3b3Jk"), "{head}");
        assert!(!head.contains("bWU6c2VjcmV0"), "the proxy was told the registry's password: {head}");
    }
    let failed = pull_from(&scratch, "refused.example/app:1", &options).unwrap_err().to_string();
    assert!(failed.contains("proxy") && failed.contains("403") && !failed.contains("word@"), "{failed}");
    // What NO_PROXY names, and this machine, are asked directly.
    let before = seen.lock().unwrap().len();
    let direct = Options { proxies: proxies(".example"), ..options.clone() };
    assert!(pull_from(&scratch, "registry.example/app:1", &direct).is_err());
    let plain = Server::start(honest(&image));
    let all = proxies("").map(|p| Proxies { http: p.https.clone(), ..p });
    pull_from(&scratch, &plain.name(), &Options { proxies: all, ..options }).unwrap();
    assert_eq!(seen.lock().unwrap().len(), before);
}

/// Bytes that are no TLS, in the middle of it or in place of it: an error, not a hang.
#[test]
fn a_server_that_speaks_something_else() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.write_all(&gzip(b"junk"));
        }
    });
    let scratch = Scratch::new();
    assert!(pull_from(&scratch, &format!("127.0.0.1:{port}/app:1"), &Options::default()).is_err());
}
