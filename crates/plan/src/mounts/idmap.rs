//! Mounts whose ids are mapped: config.md, `uidMappings` and `gidMappings` of mounts, options `idmap` and `ridmap`;
//! mount_setattr(2), MOUNT_ATTR_IDMAP. A map here goes from the ids that the file system has to those of the host.

use super::SECTION;
use crate::namespaces::{self, asked, lines};
use crate::problem::Findings;
use crate::steps::{IdMapped, IdMaps, IdSource, Namespaces};
use coracle_sys::libc;
use oci_spec::runtime::{LinuxIdMapping, LinuxNamespaceType as Kind, Mount as Asked, Spec};

/// The option, as it was found: how deep it goes, what stands behind its `=`, and its place.
pub(super) struct Word {
    pub(super) recursive: bool,
    pub(super) maps: Option<String>,
    pub(super) at: String,
}

/// Decides whose map the mount gets; `None` for a mount that shows the ids as they are.
pub(super) fn plan(
    asked_mount: &Asked,
    word: Option<Word>,
    at: &str,
    spec: &Spec,
    namespaces: &Namespaces,
    found: &mut Findings,
) -> Option<IdMapped> {
    let recursive = word.as_ref().is_some_and(|w| w.recursive);
    let uids = asked_mount.uid_mappings().as_deref().unwrap_or_default();
    let gids = asked_mount.gid_mappings().as_deref().unwrap_or_default();
    if !(uids.is_empty() && gids.is_empty()) {
        let one = |list: &[LinuxIdMapping], name: &str, found: &mut Findings| {
            if list.is_empty() {
                found.problem(
                    format!("{at}.{name}"),
                    "id-mapped mounts must have both uid and gid mappings specified",
                    SECTION,
                    "add the missing one",
                );
            }
            lines(list, &format!("{at}.{name}"), found)
        };
        let (uids, gids) = (one(uids, "uidMappings", found), one(gids, "gidMappings", found));
        return Some(IdMapped { by: IdSource::Maps(maps(uids, gids)), recursive });
    }
    let word = word?;
    let by = match &word.maps {
        Some(text) => IdSource::Maps(parse(text, spec, &word.at, found)),
        None => containers(spec, namespaces, &word.at, found)?,
    };
    Some(IdMapped { by, recursive })
}

fn maps(uids: String, gids: String) -> IdMaps {
    IdMaps { uids, gids, deny_setgroups: false }
}

/// The map of the container's own user namespace.
fn containers(spec: &Spec, namespaces: &Namespaces, at: &str, found: &mut Findings) -> Option<IdSource> {
    if let Some(own) = &namespaces.maps {
        return Some(IdSource::Maps(maps(own.uids.clone(), own.gids.clone())));
    }
    if let Some(i) = namespaces.join.iter().position(|j| j.kind == libc::CLONE_NEWUSER) {
        return Some(IdSource::Joined(i));
    }
    if asked(spec, Kind::User).is_none() {
        found.problem(
            at,
            "the ids cannot be mapped: the mount has no mappings, and the container no user namespace",
            SECTION,
            "add uidMappings and gidMappings to the mount",
        );
    }
    None
}

/// crun's spelling, which Podman passes on: `uids=0-1000-1#1-2000-10;gids=…`; each is the id in the file system, the id
/// of the host and how many. An `@` before it: the second is an id of the container's user namespace.
fn parse(text: &str, spec: &Spec, at: &str, found: &mut Findings) -> IdMaps {
    let mut out = maps(String::new(), String::new());
    for part in text.split(';').filter(|p| !p.is_empty()) {
        let linux = spec.linux().as_ref();
        let (list, own, to) = if let Some(list) = part.strip_prefix("uids=") {
            (list, linux.and_then(|l| l.uid_mappings().as_ref()), &mut out.uids)
        } else if let Some(list) = part.strip_prefix("gids=") {
            (list, linux.and_then(|l| l.gid_mappings().as_ref()), &mut out.gids)
        } else {
            wrong(part, at, found);
            continue;
        };
        for range in list.split('#').filter(|r| !r.is_empty()) {
            match triple(range, own.map_or(&[], Vec::as_slice)) {
                Some(line) => to.push_str(&line),
                None => wrong(range, at, found),
            }
        }
    }
    if text.split([';', '#']).all(str::is_empty) {
        wrong(text, at, found);
    }
    out
}

fn wrong(what: &str, at: &str, found: &mut Findings) {
    found.problem(
        at,
        format!("{what:?} is not a map of ids"),
        "crun(1), idmap mount options",
        "write uids=FILE-HOST-COUNT;gids=FILE-HOST-COUNT, more ranges after #",
    );
}

fn triple(text: &str, own: &[LinuxIdMapping]) -> Option<String> {
    let (relative, numbers) = text.strip_prefix('@').map_or((false, text), |rest| (true, rest));
    let numbers: Vec<u32> = numbers.split('-').map(|n| n.parse().ok()).collect::<Option<_>>()?;
    let &[file, mut host, size] = numbers.as_slice() else { return None };
    if relative {
        host = namespaces::on_host(host, own)?;
    }
    let fits = size > 0 && file.max(host).checked_add(size).is_some();
    fits.then(|| format!("{file} {host} {size}\n"))
}

#[cfg(test)]
mod tests {
    use super::triple;
    use oci_spec::runtime::LinuxIdMappingBuilder;

    #[test]
    fn ranges_are_read_as_crun_reads_them() {
        assert_eq!(triple("0-100-10", &[]).as_deref(), Some("0 100 10\n"));
        let own = LinuxIdMappingBuilder::default().container_id(1u32).host_id(2u32).size(1000u32).build();
        assert_eq!(triple("@1-3-10", &[own.expect("a map")]).as_deref(), Some("1 4 10\n"));
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for text in ["", "1", "1-2", "1-2-3-4", "1-2-0", "-1-2-3", "0-12--12", "@5-6-7", "0-4294967295-2"] {
            assert_eq!(triple(text, &[]), None, "{text}");
        }
    }
}
