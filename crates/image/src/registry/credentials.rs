//! Credentials from the files that engines keep them in: containers-auth.json(5), and Docker's config.json.
//!
//! Helper programs (`credHelpers`, `credsStore`) are not run: a password that only a helper knows is an error that
//! says so when the registry wants one.

use super::url::base64_decode;
use crate::error::{Doing, Error, Kind, Result, fail};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A user's proof.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Credentials {
    /// A name and a password.
    Password(String, String),
    /// An OAuth2 refresh token.
    Token(String),
}

impl std::fmt::Debug for Credentials {
    /// Never shows the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Password(..) => "Password(…)",
            Self::Token(_) => "Token(…)",
        })
    }
}

#[derive(Default, Deserialize)]
struct AuthFile {
    #[serde(default)]
    auths: BTreeMap<String, Auth>,
    #[serde(default, rename = "credHelpers")]
    helpers: BTreeMap<String, String>,
    #[serde(default, rename = "credsStore")]
    store: Option<String>,
}

#[derive(Deserialize)]
struct Auth {
    #[serde(default)]
    auth: String,
    #[serde(default, rename = "identitytoken")]
    identity_token: String,
}

/// Where to look, in order: the file asked for alone, else the engines' files.
/// `var` reads the environment.
fn files(asked: Option<&Path>, var: impl Fn(&str) -> Option<String>, uid: u32) -> Vec<PathBuf> {
    if let Some(file) = asked.map(Path::to_owned).or_else(|| var("REGISTRY_AUTH_FILE").map(Into::into)) {
        return vec![file];
    }
    let run = var("XDG_RUNTIME_DIR").map(|d| format!("{d}/containers/auth.json"));
    let root = (uid == 0).then(|| "/run/containers/0/auth.json".to_owned());
    let home = var("HOME");
    let config = var("XDG_CONFIG_HOME").or_else(|| home.as_ref().map(|h| format!("{h}/.config")));
    let config = config.map(|d| format!("{d}/containers/auth.json"));
    let docker = var("DOCKER_CONFIG").or_else(|| home.map(|h| format!("{h}/.docker")));
    let docker = docker.map(|d| format!("{d}/config.json"));
    [run, root, config, docker].into_iter().flatten().map(PathBuf::from).collect()
}

/// The credentials for a repository on a registry, from the first file that has any.
/// Errors: a file that was asked for and is not there or not JSON; one that leaves it to a helper program.
pub(super) fn find(asked: Option<&Path>, registry: &str, repository: &str) -> Result<Option<Credentials>> {
    let var = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
    for path in files(asked, var, coracle_sys::creds::geteuid()) {
        let bytes = match std::fs::read(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && asked.is_none() => continue,
            other => other.doing(|| format!("read {}", path.display()))?,
        };
        let found = parse(&bytes, registry, repository).doing(|| path.display().to_string())?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// The most specific entry: `registry/a/b`, `registry/a`, `registry`, then Docker's old spellings of itself.
fn parse(bytes: &[u8], registry: &str, repository: &str) -> Result<Option<Credentials>> {
    let file: AuthFile = serde_json::from_slice(bytes)
        .map_err(|e| Error::new(Kind::Usage, format!("it is no file of credentials: {e}")))?;
    let whole = format!("{registry}/{repository}");
    let mut keys: Vec<&str> = vec![&whole];
    keys.extend(whole.rmatch_indices('/').map(|(i, _)| &whole[..i]));
    let aliases: &[&str] = match registry {
        "docker.io" => &["https://index.docker.io/v1/", "index.docker.io", "registry-1.docker.io"],
        _ => &[],
    };
    let schemes =
        [format!("https://{registry}"), format!("https://{registry}/"), format!("https://{registry}/v2/")];
    keys.extend(aliases.iter().copied().chain(schemes.iter().map(String::as_str)));
    if let Some(auth) = keys.iter().find_map(|k| file.auths.get(*k)).filter(|a| !a.is_empty()) {
        return auth.credentials().map(Some);
    }
    match file.helpers.get(registry).or(file.store.as_ref().filter(|s| !s.is_empty())) {
        Some(helper) if keys.iter().any(|k| file.auths.contains_key(*k) || file.helpers.contains_key(*k)) => {
            fail!(
                Unsupported,
                "the password for {registry} is with the helper program {}; write it into a file (podman login --authfile FILE) and name that with --authfile",
                helper.escape_debug()
            )
        }
        _ => Ok(None),
    }
}

impl Auth {
    fn is_empty(&self) -> bool {
        self.auth.is_empty() && self.identity_token.is_empty()
    }

    fn credentials(&self) -> Result<Credentials> {
        if !self.identity_token.is_empty() {
            return Ok(Credentials::Token(self.identity_token.clone()));
        }
        let text = base64_decode(&self.auth).and_then(|bytes| String::from_utf8(bytes).ok());
        match text.as_deref().and_then(|t| t.split_once(':')) {
            // Docker pads some passwords with NULs.
            Some((user, password)) => {
                Ok(Credentials::Password(user.into(), password.trim_end_matches('\0').into()))
            }
            None => fail!(Usage, "an \"auth\" that is not base64 of user:password"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: &str, registry: &str, repository: &str) -> Option<Credentials> {
        parse(json.as_bytes(), registry, repository).unwrap()
    }

    #[test]
    fn the_most_specific_entry_counts() {
        // a:1, b:2, c:3
        let file = r#"{"auths": {"r.x": {"auth": "YToxCg=="}, "r.x/me": {"auth": "Yjoy"}, "https://index.docker.io/v1/": {"auth": "Yzoz"},
            "t.x": {"identitytoken": "T"}, "e.x": {}}}"#;
        assert_eq!(of(file, "r.x", "me/app"), Some(Credentials::Password("b".into(), "2".into())));
        assert_eq!(of(file, "r.x", "you/app"), Some(Credentials::Password("a".into(), "1\n".into())));
        assert_eq!(of(file, "docker.io", "library/x"), Some(Credentials::Password("c".into(), "3".into())));
        assert_eq!(of(file, "t.x", "a"), Some(Credentials::Token("T".into())));
        assert_eq!((of(file, "r", "x/me"), of(file, "e.x", "a"), of("{}", "r.x", "a")), (None, None, None));
    }

    #[test]
    fn a_helper_is_named_and_secrets_are_not() {
        let file = br#"{"auths": {"r.x": {}}, "credsStore": "secretservice"}"#;
        assert!(parse(file, "r.x", "a").unwrap_err().to_string().contains("secretservice"));
        assert_eq!(parse(file, "other.x", "a").unwrap(), None);
        assert!(!format!("{:?}", Credentials::Password("u".into(), "secret".into())).contains("secret"));
    }

    #[test]
    fn files_are_the_engines() {
        let var = |name: &str| (name == "HOME").then(|| "/home/a".to_owned());
        let all = files(None, var, 1000);
        assert_eq!(
            all,
            ["/home/a/.config/containers/auth.json", "/home/a/.docker/config.json"].map(PathBuf::from)
        );
        assert_eq!(files(Some(Path::new("x")), var, 0), [PathBuf::from("x")]);
    }
}
