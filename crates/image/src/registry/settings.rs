//! containers-registries.conf(5): mirrors, registries without TLS, blocked ones. Beside what the command line says.

use super::url::is_loopback;
use crate::error::{Doing, Error, Kind, Result, fail};
use crate::reference::Reference;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// One server that may have the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// The image's name there.
    pub(super) reference: Reference,
    /// Any certificate will do, and plain HTTP where there is no TLS.
    pub(super) insecure: bool,
}

#[derive(Debug, Default, Deserialize)]
struct File {
    #[serde(default)]
    registry: Vec<Entry>,
}

#[derive(Debug, Default, Clone, Deserialize)]
struct Entry {
    #[serde(default)]
    prefix: String,
    #[serde(default)]
    location: String,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    blocked: bool,
    #[serde(default, rename = "mirror-by-digest-only")]
    by_digest: bool,
    #[serde(default)]
    mirror: Vec<Mirror>,
}

#[derive(Debug, Clone, Deserialize)]
struct Mirror {
    location: String,
    #[serde(default)]
    insecure: bool,
    #[serde(default, rename = "pull-from-mirror")]
    pull: String,
}

/// What the host's files say.
#[derive(Debug, Default)]
pub(super) struct Settings(Vec<Entry>);

impl Settings {
    /// Reads the user's file, else the host's; then the host's further ones and the user's. None is no error.
    /// Errors: one that is not TOML of that form.
    pub(super) fn read() -> Result<Self> {
        let var = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let config = var("XDG_CONFIG_HOME").or_else(|| var("HOME").map(|h| h.join(".config")));
        let config = config.map(|d| d.join("containers"));
        let own = config.as_ref().map(|d| d.join("registries.conf"));
        let first = var("CONTAINERS_REGISTRIES_CONF")
            .or(own.filter(|p| p.exists()))
            .unwrap_or_else(|| "/etc/containers/registries.conf".into());
        let mut more = further(Path::new("/etc/containers/registries.conf.d"));
        more.extend(config.iter().flat_map(|d| further(&d.join("registries.conf.d"))));
        let mut all = Self::default();
        for path in [first].into_iter().chain(more) {
            match std::fs::read_to_string(&path) {
                Ok(text) => all.add(&text).doing(|| path.display().to_string())?,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => return Err(Error::from(e).within(format!("read {}", path.display()))),
            }
        }
        Ok(all)
    }

    fn add(&mut self, text: &str) -> Result<()> {
        let file: File = toml::from_str(text).map_err(|e| Error::new(Kind::Usage, e.message().to_owned()))?;
        for mut entry in file.registry {
            if entry.prefix.is_empty() {
                entry.prefix.clone_from(&entry.location);
            }
            // A later file's word on the same prefix counts.
            self.0.retain(|e| e.prefix != entry.prefix);
            self.0.push(entry);
        }
        Ok(())
    }

    /// The servers to ask, in order: mirrors of the command line, those of the files, the registry itself.
    /// Errors: the registry is blocked; a mirror's name that is none.
    pub(super) fn endpoints(&self, reference: &Reference, mirrors: &[String]) -> Result<Vec<Endpoint>> {
        let name = format!("{}/{}", reference.registry, reference.repository);
        let fitting = self.0.iter().filter_map(|e| Some((e, suffix(&name, &reference.registry, &e.prefix)?)));
        let best = fitting.max_by_key(|(e, _)| e.prefix.len());
        if best.is_some_and(|(e, _)| e.blocked) {
            fail!(Usage, "{name}: this registry is blocked in registries.conf");
        }
        let mut all = Vec::new();
        let short = name.strip_prefix(&reference.registry).unwrap_or_default();
        for mirror in mirrors {
            all.push(Endpoint { reference: moved(reference, mirror, short)?, insecure: false });
        }
        if let Some((entry, rest)) = best {
            let pinned = reference.digest.is_some();
            for m in entry.mirror.iter().filter(|m| match m.pull.as_str() {
                _ if entry.by_digest => pinned,
                "digest-only" => pinned,
                "tag-only" => !pinned,
                _ => true,
            }) {
                all.push(Endpoint { reference: moved(reference, &m.location, rest)?, insecure: m.insecure });
            }
            if !entry.location.is_empty() {
                let insecure = entry.insecure;
                all.push(Endpoint { reference: moved(reference, &entry.location, rest)?, insecure });
                return Ok(all);
            }
        }
        let insecure = best.is_some_and(|(e, _)| e.insecure);
        all.push(Endpoint { reference: reference.clone(), insecure });
        Ok(all)
    }
}

/// The files of a directory, in their order.
fn further(directory: &Path) -> Vec<PathBuf> {
    let all = std::fs::read_dir(directory).into_iter().flatten().flatten().map(|e| e.path());
    let mut all: Vec<PathBuf> = all.filter(|p| p.extension().is_some_and(|e| e == "conf")).collect();
    all.sort();
    all
}

/// What of a name follows a prefix; `*.example.com` stands for the hosts below.
fn suffix<'a>(name: &'a str, registry: &str, prefix: &str) -> Option<&'a str> {
    if let Some(domain) = prefix.strip_prefix('*') {
        return registry.ends_with(domain).then(|| &name[registry.len()..]);
    }
    let rest = name.strip_prefix(prefix).filter(|_| !prefix.is_empty())?;
    (rest.is_empty() || rest.starts_with('/')).then_some(rest)
}

fn moved(reference: &Reference, location: &str, rest: &str) -> Result<Reference> {
    let (registry, path) = location.split_once('/').map_or((location, ""), |(r, p)| (r, p));
    let repository = format!("{path}{rest}").trim_start_matches('/').to_owned();
    // Parsed again: a location is somebody's word too.
    let whole: Reference = format!("{registry}/{repository}").parse::<Reference>().doing(|| "a mirror")?;
    if whole.registry != registry {
        fail!(Usage, "mirror {}: write it with a host, as mirror.example.com", location.escape_debug());
    }
    Ok(reference.moved(registry, repository))
}

/// Where containers-certs.d(5) and Docker keep certificates for a registry.
pub(super) fn certificates(registry: &str) -> Option<PathBuf> {
    let home = std::env::var_os("HOME").map(|h| Path::new(&h).join(".config/containers/certs.d"));
    let places = [home, Some("/etc/containers/certs.d".into()), Some("/etc/docker/certs.d".into())];
    places.into_iter().flatten().map(|d| d.join(registry)).find(|d| d.is_dir())
}

/// Whether plain HTTP may be tried when there is no TLS.
pub(super) fn may_be_plain(endpoint: &Endpoint) -> bool {
    endpoint.insecure || is_loopback(&endpoint.reference.registry)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(toml: &str, reference: &str, mirrors: &[&str]) -> Vec<String> {
        let mut settings = Settings::default();
        settings.add(toml).unwrap();
        let mirrors: Vec<String> = mirrors.iter().map(|m| (*m).to_owned()).collect();
        match settings.endpoints(&reference.parse().unwrap(), &mirrors) {
            Ok(all) => {
                all.iter().map(|e| format!("{}{}", e.reference, if e.insecure { "!" } else { "" })).collect()
            }
            Err(e) => vec![e.to_string()],
        }
    }

    #[test]
    fn mirrors_come_first_and_the_longest_prefix_counts() {
        let toml = r#"
            unqualified-search-registries = ["docker.io"]
            [[registry]]
            prefix = "docker.io"
            location = "docker.io"
            [[registry.mirror]]
            location = "mirror.x/hub"
            insecure = true
            [[registry.mirror]]
            location = "pins.x"
            pull-from-mirror = "digest-only"
            [[registry]]
            prefix = "docker.io/evil"
            blocked = true
            [[registry]]
            prefix = "*.corp.x"
            location = "new.x/old"
        "#;
        assert_eq!(
            endpoints(toml, "busybox:1", &["first.x"]),
            ["first.x/library/busybox:1", "mirror.x/hub/library/busybox:1!", "docker.io/library/busybox:1"]
        );
        assert!(endpoints(toml, "evil/app", &[])[0].contains("blocked"));
        assert_eq!(endpoints(toml, "evilness/app", &[]).len(), 2);
        assert_eq!(endpoints(toml, "a.corp.x/app", &[]), ["new.x/old/app:latest"]);
        assert_eq!(endpoints("", "a.x/b", &[]), ["a.x/b:latest"]);
        let pins = r#"
            [[registry]]
            prefix = "a.x"
            mirror-by-digest-only = true
            [[registry.mirror]]
            location = "m.x"
        "#;
        assert_eq!(endpoints(pins, "a.x/b", &[]), ["a.x/b:latest"]);
        let pinned = format!("a.x/b@sha256:{}", "0".repeat(64));
        assert_eq!(endpoints(pins, &pinned, &[]), [pinned.replace("a.x", "m.x"), pinned]);
        assert!(endpoints("", "busybox", &["nohost"])[0].contains("mirror"));
    }
}
