//! Registries: the Distribution specification's pull side, over HTTP.
//!
//! What belongs here: names and servers ([`settings`]), proof of who asks ([`credentials`], [`auth`]), bytes of
//! manifests and blobs. What does not: where they are kept and what is made of them ([`crate::pull`],
//! [`crate::store`]). A registry's answers are as hostile as an image: the digest decides what they are, `urls` are
//! never followed, and no secret leaves for another server.

mod auth;
mod credentials;
mod http;
mod lookup;
mod proxy;
mod settings;
mod url;

use crate::digest::{self, Digest};
use crate::error::{Doing, Error, Kind, Result, fail, shown};
use crate::limits::Limits;
use crate::reference::{DOCKER, Reference};
use auth::Challenge;
use credentials::Credentials;
use http::{Http, Response};
pub use proxy::Proxies;
use settings::{Endpoint, Settings};
use std::io::Read;
use std::path::PathBuf;
use std::sync::Mutex;
use url::Origin;

/// The kinds of manifest that are understood.
const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

/// The server that a WWW-Authenticate header names for tokens, if there is one: what a registry's answer is read with.
pub fn realm<'a>(headers: impl IntoIterator<Item = &'a str>) -> Option<String> {
    match Challenge::parse(headers)? {
        Challenge::Bearer { realm, .. } => Some(realm),
        Challenge::Basic => None,
    }
}

/// What the caller says about registries.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The file of credentials, instead of the engines' usual ones.
    pub auth_file: Option<PathBuf>,
    /// `user:password` for the registry itself, instead of any file's; no mirror is told.
    pub password: Option<(String, String)>,
    /// `Some(false)`: any certificate will do, and plain HTTP where there is no TLS.
    pub verify: Option<bool>,
    /// Servers to ask before the registry itself: host, or host/path.
    pub mirrors: Vec<String>,
    /// A directory of certificates as in containers-certs.d(5), instead of the engines' one for the registry.
    pub cert_dir: Option<PathBuf>,
    /// Proxies instead of the environment's.
    pub proxies: Option<Proxies>,
}

/// A repository on a server.
pub struct Registry {
    http: Http,
    origin: Origin,
    /// The image's name there.
    pub reference: Reference,
    credentials: Option<Credentials>,
    authorization: Mutex<Option<String>>,
}

/// A manifest or an index, as the registry gave it; its digest is its own.
pub struct Fetched {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// The registry's Content-Type; empty when it gave none.
    pub media_type: String,
    /// The digest of the bytes.
    pub digest: Digest,
}

/// The servers that may have an image, mirrors first, each with a way to reach it.
/// Errors: settings that cannot be read; credentials that cannot be had.
pub fn servers(reference: &Reference, options: &Options) -> Result<Vec<impl Fn() -> Result<Registry>>> {
    let endpoints = Settings::read()?.endpoints(reference, &options.mirrors)?;
    let (options, asked) = (options.clone(), reference.registry.clone());
    Ok(endpoints
        .into_iter()
        .map(move |endpoint| {
            // A password that was given is the registry's own: a mirror has one in a file, or none.
            let own = endpoint.reference.registry == asked;
            let options = Options { password: options.password.clone().filter(|_| own), ..options.clone() };
            move || {
                let name = endpoint.reference.registry.clone();
                Registry::connect(endpoint.clone(), &options).doing(|| format!("registry {name}"))
            }
        })
        .collect())
}

impl Registry {
    fn connect(mut endpoint: Endpoint, options: &Options) -> Result<Self> {
        endpoint.insecure = options.verify.map_or(endpoint.insecure, |verify| !verify);
        let reference = &endpoint.reference;
        let credentials = match &options.password {
            Some((user, password)) => Some(Credentials::Password(user.clone(), password.clone())),
            None => {
                let file = options.auth_file.as_deref();
                credentials::find(file, &reference.registry, &reference.repository)?
            }
        };
        let directory = match &options.cert_dir {
            Some(directory) if directory.is_dir() => Some(directory.clone()),
            Some(directory) => fail!(Usage, "--cert-dir {}: there is no such directory", directory.display()),
            None => settings::certificates(&reference.registry),
        };
        let proxies = options.proxies.clone().unwrap_or_else(Proxies::of_environment);
        let http = Http::new(directory.as_deref(), !endpoint.insecure, proxies)?;
        let host = if reference.registry == DOCKER { "registry-1.docker.io" } else { &reference.registry };
        let (base, first) = greet(&http, host, settings::may_be_plain(&endpoint))?;
        let Some(origin) = Origin::of(&base) else { fail!(Usage, "{host} is no host") };
        let reference = endpoint.reference;
        let registry = Self { http, origin, reference, credentials, authorization: Mutex::default() };
        if first.status() == 401 {
            registry.authorize(&first)?;
        }
        Ok(registry)
    }

    /// Answers the challenge of a refused request.
    fn authorize(&self, refused: &Response) -> Result<()> {
        let Some(challenge) = Challenge::parse(refused.headers("WWW-Authenticate")) else {
            fail!(Refused, "it answers 401 and does not say what it wants")
        };
        let challenge = match challenge {
            // The greeting names no scope, and some registries name one that is not this repository's.
            Challenge::Bearer { realm, service, .. } => {
                Challenge::Bearer { realm, service, scope: String::new() }
            }
            other => other,
        };
        let repository = &self.reference.repository;
        let value =
            auth::answer(&self.http, &challenge, &self.origin, repository, self.credentials.as_ref())?;
        *self.authorization.lock().unwrap_or_else(|e| e.into_inner()) = Some(value);
        Ok(())
    }

    fn base(&self) -> String {
        format!("{}://{}:{}", self.origin.scheme, self.origin.host, self.origin.port)
    }

    /// GET below the repository, with a new token when the old one has expired.
    fn get(&self, path: &str, headers: &[(&str, &str)]) -> Result<Response> {
        let url = format!("{}/v2/{}/{path}", self.base(), self.reference.repository);
        let mut again = false;
        loop {
            let authorization = self.authorization.lock().unwrap_or_else(|e| e.into_inner()).clone();
            let response = self.http.get(&url, headers, authorization.as_deref())?;
            let elsewhere = Origin::of(&response.url).is_none_or(|o| o != self.origin);
            if response.status() != 401 || again || elsewhere {
                return Ok(response);
            }
            self.authorize(&response)?;
            again = true;
        }
    }

    /// The manifest or index of a tag or digest. Errors: none; another digest than the one asked for.
    pub fn manifest(&self, version: &str, limits: &Limits) -> Result<Fetched> {
        let doing = || format!("image {}", self.reference);
        let response = self.get(&format!("manifests/{version}"), &[("Accept", ACCEPT)]).doing(doing)?;
        let response = self.expect(response, &[200]).doing(doing)?;
        let media_type = response.header("Content-Type").unwrap_or_default();
        let media_type = media_type.split(';').next().unwrap_or_default().trim().to_owned();
        if media_type == "text/html" {
            let at = shown(response.url.as_bytes());
            fail!(Network, "{}: {at} answers with a web page: is that a registry?", doing());
        }
        let said = response.header("Docker-Content-Digest").map(str::to_owned);
        let bytes = response.bytes(limits.json_bytes).doing(doing)?;
        // A digest asked for decides; else what the registry says of its own answer must be true.
        let wanted = version.parse::<Digest>().ok().or_else(|| said?.parse().ok());
        let algorithm = wanted.as_ref().map_or(digest::Algorithm::Sha256, Digest::algorithm);
        let digest = Digest::of(algorithm, &bytes);
        if let Some(wanted) = wanted {
            digest::expect("manifest", &wanted, &digest).doing(doing)?;
        }
        Ok(Fetched { bytes, media_type, digest })
    }

    /// A blob's bytes from an offset on, and the offset that the registry chose (0 when it cannot begin elsewhere).
    pub fn blob(&self, digest: &Digest, from: u64) -> Result<(u64, impl Read + Send)> {
        let range = format!("bytes={from}-");
        let headers: &[(&str, &str)] = if from > 0 { &[("Range", &range)] } else { &[] };
        let path = format!("blobs/{digest}");
        let response = self.get(&path, headers)?;
        let response = match response.status() {
            // Nothing beyond what is here: begin anew.
            416 => self.get(&path, &[])?,
            _ => response,
        };
        let response = self.expect(response, &[200, 206])?;
        let start = match response.status() {
            206 => start_of(response.header("Content-Range")).filter(|s| *s == from),
            _ => Some(0),
        };
        match start {
            Some(start) => Ok((start, response.reader())),
            None => fail!(Network, "another part than the one asked for"),
        }
    }

    fn expect(&self, response: Response, codes: &[u16]) -> Result<Response> {
        let status = response.status();
        if codes.contains(&status) {
            return Ok(response);
        }
        let (host, url, kind) = (self.origin.host.clone(), response.url.clone(), response.refusal());
        let at = Origin::of(&url).map_or(host, |o| o.host);
        let detail = response.bytes(64 << 10).ok().and_then(|b| reason(&b)).unwrap_or_default();
        let hint = match status {
            404 => "there is no such image or tag",
            401 | 403 => "it refuses; is the name right, and are you logged in (podman login, docker login)?",
            429 => "too many requests; log in, or try again later",
            _ => "an error",
        };
        let later = match kind {
            Kind::Later(seconds) if seconds > 0 => format!(" (again in {seconds} s)"),
            _ => String::new(),
        };
        Err(Error::new(kind, format!("{at} answers {status}: {hint}{later}{detail}")))
    }
}

/// The scheme that the server speaks, with its answer to `/v2/`.
fn greet(http: &Http, host: &str, may_be_plain: bool) -> Result<(String, Response)> {
    let url = |scheme: &str| format!("{scheme}://{host}/v2/");
    match http.get(&url("https"), &[], None) {
        // Who speaks TLS but cannot show who he is, is not asked without.
        Err(secure) if may_be_plain && !http::speaks_tls(&secure) => {
            match http.get(&url("http"), &[], None) {
                Ok(response) => Ok((url("http"), response)),
                // No server at all, or one that does not speak TLS: the plain answer says it best.
                Err(plain)
                    if ["refused", "corrupt message"].iter().any(|w| secure.to_string().contains(w)) =>
                {
                    Err(plain)
                }
                Err(_) => Err(secure),
            }
        }
        other => other.map(|response| (url("https"), response)),
    }
}

/// `bytes 100-199/200`: 100.
fn start_of(header: Option<&str>) -> Option<u64> {
    header?.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}

/// What a registry says in its errors. Distribution specification, "Error Codes".
fn reason(body: &[u8]) -> Option<String> {
    let value: serde_json::Value = serde_json::from_slice(body).ok()?;
    let first = value.get("errors")?.get(0)?;
    let text = first.get("message").or_else(|| first.get("code"))?.as_str()?;
    Some(format!(" ({})", shown(text.as_bytes())))
}
