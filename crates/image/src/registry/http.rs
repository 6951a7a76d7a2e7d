//! HTTP as a registry needs it: GET with redirects that never carry a secret to another server, TLS with the host's own
//! certificates, and nothing read without a limit.

use super::lookup::Lookup;
use super::proxy::Proxies;
use super::url::Origin;
use crate::error::{Doing, Error, Kind, Result, fail, shown};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};
use ureq::unversioned::transport::{ConnectProxyConnector, Connector, RustlsConnector, TcpConnector};

/// Redirects that are followed.
const REDIRECTS: usize = 10;
/// For the connection, TLS included.
const CONNECT: Duration = Duration::from_secs(20);
/// For the first byte of an answer, and for each further read.
const SILENCE: Duration = Duration::from_secs(60);
/// The fewest bytes of a body within [`SILENCE`].
const PACE: u64 = 4096;

/// Where distributions keep the certificates of those who may vouch for servers.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// A client with connections that are used again.
pub(super) struct Http {
    agent: ureq::Agent,
    proxies: Proxies,
}

/// An answer; its body has not been read.
pub(super) struct Response {
    inner: ureq::http::Response<ureq::Body>,
    /// The URL that answered in the end.
    pub(super) url: String,
}

impl Http {
    /// For one registry: `directory` may hold its own `*.crt`, and `*.cert` with `*.key` for this client, as in
    /// containers-certs.d(5). `verify` false takes any certificate.
    pub(super) fn new(directory: Option<&Path>, verify: bool, proxies: Proxies) -> Result<Self> {
        let (mut roots, mut own) = (of_host()?, None);
        if let Some(directory) = directory {
            own = local(directory, &mut roots)?;
        }
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::new_with_certs(&roots))
            .client_cert(own)
            .disable_verification(!verify)
            .unversioned_rustls_crypto_provider(rustls::crypto::ring::default_provider().into())
            .build();
        let config = ureq::Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            .proxy(None)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("coracle/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(SILENCE))
            .timeout_per_read(Some(SILENCE))
            .build();
        let connector =
            ().chain(ConnectProxyConnector::default())
                .chain(TcpConnector::default())
                .chain(RustlsConnector::default());
        Ok(Self { agent: ureq::Agent::with_parts(config, connector, Lookup), proxies })
    }

    /// GET. The authorization goes to the URL's own server only, and to no redirect elsewhere; a redirect from TLS to
    /// plain HTTP is not followed.
    pub(super) fn get(
        &self,
        url: &str,
        headers: &[(&str, &str)],
        authorization: Option<&str>,
    ) -> Result<Response> {
        let Some(first) = Origin::of(url) else { fail!(Network, "{} is no URL", shown(url.as_bytes())) };
        let mut at = url.to_owned();
        for _ in 0..=REDIRECTS {
            let Some(origin) = Origin::of(&at) else { fail!(Network, "{} is no URL", shown(at.as_bytes())) };
            if first.scheme == "https" && origin.scheme != "https" {
                fail!(Network, "{} redirects to {} without TLS", first.host, origin.host);
            }
            let mut request = self.agent.get(&at);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            if let Some(value) = authorization.filter(|_| origin == first) {
                request = request.header("Authorization", value);
            }
            let proxy = self.proxies.of(&origin)?;
            let doing = || asking(&origin, proxy.as_ref());
            let request = request.config().proxy(proxy.clone()).build();
            let inner = request.call().map_err(|e| said(&e)).doing(doing)?;
            let response = Response { inner, url: at };
            match response.redirect()? {
                None => return Ok(response),
                Some(next) => at = next,
            }
        }
        fail!(Network, "{} redirects more than {REDIRECTS} times", first.host)
    }

    /// POST of a form; no redirect is followed.
    pub(super) fn post_form(&self, url: &str, form: &str) -> Result<Response> {
        let Some(origin) = Origin::of(url) else { fail!(Network, "{} is no URL", shown(url.as_bytes())) };
        let proxy = self.proxies.of(&origin)?;
        let doing = || asking(&origin, proxy.as_ref());
        let request = self.agent.post(url).header("Content-Type", "application/x-www-form-urlencoded");
        let request = request.config().proxy(proxy.clone()).build();
        let inner = request.send(form).map_err(|e| said(&e)).doing(doing)?;
        Ok(Response { inner, url: url.to_owned() })
    }
}

impl Response {
    /// The status code.
    pub(super) fn status(&self) -> u16 {
        self.inner.status().as_u16()
    }

    /// A header's value, when it is text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.inner.headers().get(name)?.to_str().ok()
    }

    /// All values of a header.
    pub(super) fn headers(&self, name: &str) -> Vec<&str> {
        self.inner.headers().get_all(name).iter().filter_map(|v| v.to_str().ok()).collect()
    }

    /// What kind of failure an answer is that is not the one hoped for. RFC 9110, 10.2.3: Retry-After in seconds; as a
    /// date it counts as not said.
    pub(super) fn refusal(&self) -> Kind {
        let seconds = || self.header("Retry-After").and_then(|v| v.trim().parse().ok()).unwrap_or(0);
        match self.status() {
            404 => Kind::NotFound,
            429 | 500 | 502..=504 => Kind::Later(seconds()),
            _ => Kind::Refused,
        }
    }

    /// The whole body. Errors: more than `most` bytes.
    pub(super) fn bytes(self, most: u64) -> Result<Vec<u8>> {
        let mut all = Vec::new();
        self.reader()
            .take(most + 1)
            .read_to_end(&mut all)
            .map_err(|e| Error::new(Kind::Network, format!("the connection broke: {e}")))?;
        if all.len() as u64 > most {
            fail!(Limit, "an answer of more than {most} bytes");
        }
        Ok(all)
    }

    /// The body as it comes.
    pub(super) fn reader(self) -> impl Read + Send {
        Paced::new(self.inner.into_body().into_with_config().limit(u64::MAX).reader(), SILENCE)
    }

    fn redirect(&self) -> Result<Option<String>> {
        if !matches!(self.status(), 301 | 302 | 303 | 307 | 308) {
            return Ok(None);
        }
        let Some(to) = self.header("Location") else { fail!(Network, "a redirect without a place") };
        if to.contains("://") {
            return Ok(Some(to.to_owned()));
        }
        // RFC 3986, 4.2: //host/path, /path; other relative forms no registry uses.
        let (scheme, rest) = self.url.split_once("://").unwrap_or(("https", ""));
        match to {
            _ if to.starts_with("//") => Ok(Some(format!("{scheme}:{to}"))),
            _ if to.starts_with('/') => {
                let host = rest.split(['/', '?']).next().unwrap_or("");
                Ok(Some(format!("{scheme}://{host}{to}")))
            }
            _ => fail!(Network, "a redirect to {}", shown(to.as_bytes())),
        }
    }
}

/// A body that comes at a pace: a server that gives a byte now and then would keep the command for ever.
struct Paced<R> {
    inner: R,
    window: Duration,
    since: Instant,
    bytes: u64,
}

impl<R> Paced<R> {
    fn new(inner: R, window: Duration) -> Self {
        Self { inner, window, since: Instant::now(), bytes: 0 }
    }
}

impl<R: Read> Read for Paced<R> {
    /// Errors: ETIMEDOUT's kind, when a window has passed with less than [`PACE`] bytes.
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.bytes += n as u64;
        if n > 0 && self.since.elapsed() >= self.window {
            if self.bytes < PACE {
                let text = format!("too slow: {} bytes in {} s", self.bytes, self.since.elapsed().as_secs());
                return Err(std::io::Error::new(std::io::ErrorKind::TimedOut, text));
            }
            (self.since, self.bytes) = (Instant::now(), 0);
        }
        Ok(n)
    }
}

fn asking(origin: &Origin, proxy: Option<&ureq::Proxy>) -> String {
    match proxy {
        Some(proxy) => format!("ask {} through the proxy {}:{}", origin.host, proxy.host(), proxy.port()),
        None => format!("ask {}", origin.host),
    }
}

/// Whether a request failed because of what the server said in TLS, in rustls's words.
pub(super) fn speaks_tls(e: &Error) -> bool {
    ["certificate", "alert"].iter().any(|word| e.to_string().to_ascii_lowercase().contains(word))
}

/// The client's errors, with what helps.
fn said(e: &ureq::Error) -> Error {
    let text = e.to_string();
    let hint = match () {
        () if text.contains("UnknownIssuer") => {
            "; put the certificate of its issuer into /etc/containers/certs.d/HOST/ca.crt, or name its directory with --cert-dir"
        }
        () if ["alert: BadCertificate", "alert: CertificateRequired"].iter().any(|a| text.contains(a)) => {
            "; it wants a certificate: NAME.cert with NAME.key, where its own authority's is looked for"
        }
        () if matches!(e, ureq::Error::HostNotFound) => " (hosts file and DNS)",
        () => "",
    };
    Error::new(Kind::Network, format!("{text}{hint}"))
}

/// Those who may vouch for any server. SSL_CERT_FILE stands in for the host's own list and SSL_CERT_DIR adds to it, as Go
/// has it. Errors: a file or directory that was asked for and cannot be read.
fn of_host() -> Result<Vec<Certificate<'static>>> {
    let var = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let list = match var("SSL_CERT_FILE") {
        Some(file) => std::fs::read(&file).doing(|| format!("SSL_CERT_FILE: read {}", file.display()))?,
        None => BUNDLES.iter().find_map(|b| std::fs::read(b).ok()).unwrap_or_default(),
    };
    let mut roots = certificates(&list);
    for directory in var("SSL_CERT_DIR").iter().flat_map(std::env::split_paths) {
        let list = std::fs::read_dir(&directory);
        let list = list.doing(|| format!("SSL_CERT_DIR: read {}", directory.display()))?;
        // Links to the same files, directories, what is nobody's to read: none of these adds a certificate.
        let own = list.flatten().filter(|entry| entry.file_type().is_ok_and(|t| t.is_file()));
        roots.extend(own.filter_map(|e| std::fs::read(e.path()).ok()).flat_map(|bytes| certificates(&bytes)));
    }
    Ok(roots)
}

fn certificates(pem: &[u8]) -> Vec<Certificate<'static>> {
    let items = parse_pem(pem).filter_map(Result::ok);
    items.filter_map(|item| if let PemItem::Certificate(c) = item { Some(c) } else { None }).collect()
}

/// containers-certs.d(5): `*.crt` vouch for the server; `NAME.cert` with `NAME.key` are shown to it.
fn local(directory: &Path, roots: &mut Vec<Certificate<'static>>) -> Result<Option<ClientCert>> {
    let Ok(list) = std::fs::read_dir(directory) else { return Ok(None) };
    let mut own = None;
    for path in list.flatten().map(|entry| entry.path()) {
        let read = |path: &Path| std::fs::read(path).doing(|| format!("read {}", path.display()));
        match path.extension().and_then(|e| e.to_str()) {
            Some("crt") => roots.extend(certificates(&read(&path)?)),
            Some("cert") => {
                let key = path.with_extension("key");
                let key = PrivateKey::from_pem(&read(&key)?)
                    .map_err(|e| Error::new(Kind::Usage, format!("{}: {e}", key.display())))?;
                let chain = certificates(&read(&path)?);
                usable(&chain, &key).doing(|| path.display().to_string())?;
                own = Some(ClientCert::new_with_certs(&chain, key));
            }
            _ => {}
        }
    }
    Ok(own)
}

/// Whether a certificate can be shown: the client takes for granted that it can. Errors: none in the file; of version 1,
/// which TLS libraries no longer read; not of this key.
fn usable(chain: &[Certificate<'static>], key: &PrivateKey<'static>) -> Result<()> {
    let chain = chain.iter().map(|c| CertificateDer::from(c.der().to_vec())).collect();
    let said = |e: &dyn std::fmt::Display| {
        Error::new(Kind::Usage, format!("it cannot be shown to the registry: {e}"))
    };
    let key = PrivateKeyDer::try_from(key.der().to_vec()).map_err(|e| said(&e))?;
    match CertifiedKey::from_der(chain, key, &rustls::crypto::ring::default_provider()) {
        Ok(_) => Ok(()),
        Err(e) if e.to_string().contains("UnsupportedCertVersion") => Err(said(
            &"it is of X.509 version 1; make one of version 3 (openssl x509 -req writes it when -extfile is given)",
        )),
        Err(e) => Err(said(&e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many bytes at each read, and a moment between two.
    struct Drips(usize);

    impl Read for Drips {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            std::thread::sleep(Duration::from_millis(2));
            let n = self.0.min(buffer.len());
            buffer[..n].fill(b'x');
            Ok(n)
        }
    }

    #[test]
    fn a_server_must_keep_a_pace() {
        let read = |drips: Drips, most: u64| {
            Paced::new(drips, Duration::from_millis(20)).take(most).read_to_end(&mut Vec::new())
        };
        let failed = read(Drips(1), 1 << 20).unwrap_err();
        assert_eq!(failed.kind(), std::io::ErrorKind::TimedOut, "{failed}");
        assert_eq!(read(Drips(64 << 10), 4 << 20).unwrap(), 4 << 20);
        // A small answer is no slow one.
        assert_eq!(read(Drips(1), 3).unwrap(), 3);
    }
}
