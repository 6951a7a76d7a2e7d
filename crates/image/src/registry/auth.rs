//! What a registry asks for in WWW-Authenticate, and how it is given. RFC 9110, 11; Distribution's token authentication.
//!
//! The challenge comes from the registry, or from whoever stands in between. Credentials go to the registry itself or to
//! a realm of the same owner, and only over TLS or to this machine (CVE-2020-15157, CVE-2026-65388): any other realm is
//! asked without them.

use super::credentials::Credentials;
use super::http::Http;
use super::url::{Origin, base64, percent};
use crate::error::{Doing, Error, Kind, Result, fail, shown};
use serde::Deserialize;

/// The most bytes of a token's JSON.
const TOKEN_BYTES: u64 = 1 << 20;
/// The most bytes of the token itself: a request's header must hold it.
const TOKEN: usize = 64 << 10;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer { realm: String, service: String, scope: String },
}

impl Challenge {
    /// The first challenge that can be answered, of all such headers. `None`: none.
    pub(super) fn parse<'a>(headers: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let all: Vec<(String, Vec<(String, String)>)> = headers.into_iter().flat_map(challenges).collect();
        let get = |parameters: &[(String, String)], name: &str| {
            parameters.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone()).unwrap_or_default()
        };
        let bearer = all.iter().find(|(scheme, p)| scheme == "bearer" && !get(p, "realm").is_empty());
        if let Some((_, p)) = bearer {
            return Some(Self::Bearer {
                realm: get(p, "realm"),
                service: get(p, "service"),
                scope: get(p, "scope"),
            });
        }
        all.iter().any(|(scheme, _)| scheme == "basic").then_some(Self::Basic)
    }
}

/// `scheme name=value, name="quoted", scheme2 …`: scheme and names in lower case.
fn challenges(header: &str) -> Vec<(String, Vec<(String, String)>)> {
    let mut all: Vec<(String, Vec<(String, String)>)> = Vec::new();
    let mut rest = header.trim_start_matches([' ', '\t', ',']);
    while !rest.is_empty() && all.len() < 16 {
        let (word, after) = split_word(rest);
        if word.is_empty() {
            break;
        }
        rest = after.trim_start();
        match rest.strip_prefix('=') {
            Some(value) => {
                let (value, after) = value_of(value.trim_start());
                if let Some((_, parameters)) = all.last_mut().filter(|(_, p)| p.len() < 32) {
                    parameters.push((word.to_ascii_lowercase(), value));
                }
                rest = after;
            }
            None => all.push((word.to_ascii_lowercase(), Vec::new())),
        }
        rest = rest.trim_start_matches([' ', '\t', ',']);
    }
    all
}

fn split_word(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && !"!#$%&'*+-.^_`|~".contains(c));
    text.split_at(end.unwrap_or(text.len()))
}

/// A token, or a quoted string with backslashes.
fn value_of(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((i, c)) = chars.next() {
        match c {
            '"' => return (value, &quoted[i + 1..]),
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    (value, "")
}

#[derive(Deserialize)]
struct Token {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
}

/// The value of the Authorization header that answers a challenge of the server at `origin`.
/// Errors: credentials are wanted and there are none; the realm refuses; the realm may not be asked.
pub(super) fn answer(
    http: &Http,
    challenge: &Challenge,
    origin: &Origin,
    repository: &str,
    credentials: Option<&Credentials>,
) -> Result<String> {
    match (challenge, credentials) {
        (Challenge::Basic, Some(Credentials::Password(user, password))) if origin.is_private() => {
            Ok(basic(user, password))
        }
        (Challenge::Basic, Some(Credentials::Password(..))) => {
            fail!(Refused, "{} wants a password without TLS; it is not sent", origin.host)
        }
        (Challenge::Basic, _) => fail!(
            Refused,
            "{} wants a password, and there is none; log in first (podman login, docker login), or name the file with --authfile",
            origin.host
        ),
        (Challenge::Bearer { realm, service, scope }, credentials) => {
            token(http, realm, service, scope, origin, repository, credentials)
                .doing(|| format!("ask {} for a token", shown(realm.as_bytes())))
        }
    }
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", base64(format!("{user}:{password}").as_bytes()))
}

fn token(
    http: &Http,
    realm: &str,
    service: &str,
    scope: &str,
    origin: &Origin,
    repository: &str,
    credentials: Option<&Credentials>,
) -> Result<String> {
    let Some(target) = Origin::of(realm) else { fail!(Network, "the registry names no usable realm") };
    if !target.is_private() {
        fail!(Network, "it would have to be asked without TLS");
    }
    // What the challenge names, but never more than reading this repository.
    let scope = if scope.is_empty() { format!("repository:{repository}:pull") } else { scope.to_owned() };
    let trusted = target.is_kin(origin) && origin.is_private();
    let sent = credentials.filter(|_| trusted);
    let response = match sent {
        Some(Credentials::Token(refresh)) => {
            let form = format!(
                "grant_type=refresh_token&client_id=coracle&service={}&scope={}&refresh_token={}",
                percent(service),
                percent(&scope),
                percent(refresh)
            );
            http.post_form(realm, &form)?
        }
        other => {
            let join = if realm.contains('?') { '&' } else { '?' };
            let url = format!("{realm}{join}service={}&scope={}", percent(service), percent(&scope));
            let header = match other {
                Some(Credentials::Password(user, password)) => Some(basic(user, password)),
                _ => None,
            };
            http.get(&url, &[], header.as_deref())?
        }
    };
    if response.status() != 200 {
        let why = match (credentials, sent) {
            (Some(_), None) => {
                format!("; your password for {} was not sent there, for it is another owner's", origin.host)
            }
            (None, _) => {
                "; log in first (podman login, docker login), or name the file with --authfile".into()
            }
            _ => String::new(),
        };
        return Err(Error::new(response.refusal(), format!("it answers {}{why}", response.status())));
    }
    let token: Token = serde_json::from_slice(&response.bytes(TOKEN_BYTES)?)
        .map_err(|e| Error::new(Kind::Network, format!("no token in the answer: {e}")))?;
    let text = if token.token.is_empty() { token.access_token } else { token.token };
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_graphic()) {
        fail!(Network, "no token in the answer");
    }
    if text.len() > TOKEN {
        fail!(Network, "a token of {} bytes; at most {TOKEN} are sent", text.len());
    }
    Ok(format!("Bearer {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let of = |h: &str| Challenge::parse([h]);
        let bearer = |realm: &str, service: &str, scope: &str| {
            Some(Challenge::Bearer { realm: realm.into(), service: service.into(), scope: scope.into() })
        };
        assert_eq!(
            of(r#"Bearer realm="https://a.b/t",service="s",scope="repository:x/y:pull,push""#),
            bearer("https://a.b/t", "s", "repository:x/y:pull,push")
        );
        assert_eq!(of(r#"Basic realm="x", BEARER Realm=y , service = "q\"z""#), bearer("y", "q\"z", ""));
        assert_eq!(of(r#"Basic realm="Registry""#), Some(Challenge::Basic));
        assert_eq!(Challenge::parse(["Negotiate", "Basic realm=x"]), Some(Challenge::Basic));
        for nothing in
            ["", ",,,", "Bearer", "Bearer service=x", "Digest realm=x", "=x", "\"", "Bearer realm="]
        {
            assert_eq!(of(nothing), None, "{nothing:?}");
        }
    }

    /// Any cut and many changes of a header: no panic, no endless loop.
    #[test]
    fn damaged_challenges_do_no_harm() {
        let good = "Bearer realm=\"https://a.b/\\\"t\",service=\"é\", Basic realm=x";
        for (i, _) in good.char_indices() {
            let _ = Challenge::parse([&good[..i]]);
            for c in ['"', '\\', '=', ',', ' ', '\u{0}', 'é'] {
                let _ = Challenge::parse([format!("{}{c}{}", &good[..i], &good[i..]).as_str()]);
            }
        }
        let _ = Challenge::parse([",=\"".repeat(5000).as_str()]);
    }
}
