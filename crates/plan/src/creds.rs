//! Who the workload is: user, groups, capabilities, privileges. config.md, User, Linux Process.

use crate::inputs::Host;
use crate::problem::Findings;
use crate::steps::{Act, Capabilities, IdMaps};
use oci_spec::runtime::{Capabilities as Named, Capability, Process, Spec, User};

/// The number of a capability, by the caps crate's table.
fn number(capability: Capability) -> Option<u32> {
    let name = serde_json::to_value(capability).ok()?;
    name.as_str()?.parse::<caps::Capability>().ok().map(|c| u32::from(c.index()))
}

/// The bits of a named set. One that this kernel or this caller cannot give is left out with a warning, as config.md says.
fn bits(set: Option<&Named>, name: &str, host: &Host, found: &mut Findings) -> u64 {
    let mut out = 0;
    let mut cannot = Vec::new();
    for capability in set.into_iter().flatten() {
        match number(*capability) {
            Some(n) if n <= host.last_capability => out |= 1 << n,
            _ => cannot.push(format!("{capability}")),
        }
    }
    if !cannot.is_empty() {
        cannot.sort();
        found
            .warn(format!("process.capabilities.{name}: this kernel has no {}; left out", cannot.join(", ")));
    }
    out
}

/// The process with the capabilities of the container where it says nothing of them (exec), as with runc and crun.
pub(crate) fn inherited(mut process: Process, spec: &Spec) -> Process {
    if process.capabilities().is_none() {
        process.set_capabilities(spec.process().as_ref().and_then(|init| init.capabilities().clone()));
    }
    process
}

/// The bounding set to keep, and the other four; `None` where config.json names none at all (then the process has none).
/// A caller that lacks a capability cannot give it, unless a new user namespace gives all: said in a warning.
pub(crate) fn capabilities(
    process: &Process,
    host: &Host,
    fresh_user_namespace: bool,
    found: &mut Findings,
) -> (u64, Capabilities) {
    let sets = process.capabilities().as_ref();
    let mut get = |pick: fn(&oci_spec::runtime::LinuxCapabilities) -> &Option<Named>, name| {
        bits(sets.and_then(|s| pick(s).as_ref()), name, host, found)
    };
    let bounding = get(|s| s.bounding(), "bounding");
    let effective = get(|s| s.effective(), "effective");
    let permitted = get(|s| s.permitted(), "permitted");
    let inheritable = get(|s| s.inheritable(), "inheritable");
    let ambient = get(|s| s.ambient(), "ambient");
    let can = if fresh_user_namespace { u64::MAX } else { host.capabilities };
    let missing = (effective | permitted | inheritable | ambient) & !can;
    if missing != 0 {
        found.warn(format!(
            "process.capabilities: the caller itself lacks {}; left out",
            names(missing).join(", ")
        ));
    }
    // Effective needs permitted, inheritable needs bounding, ambient needs permitted and inheritable: capabilities(7). The kernel
    // looks at the second when the set is made only: one that was inheritable before it was bounded would be kept, and by a file's
    // inheritable set, or as root, be had in spite of the bound.
    let permitted = permitted & can;
    let inheritable = inheritable & can;
    for (set, beyond, lacking) in [
        ("effective", effective & can & !permitted, "permitted"),
        ("inheritable", inheritable & !bounding, "bounding"),
    ] {
        if beyond != 0 {
            found.problem(
                format!("process.capabilities.{set}"),
                format!("holds {}, which {lacking} lacks: operation not permitted", names(beyond).join(", ")),
                "capabilities(7)",
                format!("add what is missing to {lacking}"),
            );
        }
    }
    let refused = names(ambient & can & !(permitted & inheritable));
    if !refused.is_empty() {
        found.warn(format!(
            "process.capabilities.ambient: can't raise ambient capability {}: only what is permitted and inheritable too can be ambient (capabilities(7)); left out",
            refused.join(", ")
        ));
    }
    let sets = Capabilities {
        effective: effective & permitted,
        permitted,
        inheritable,
        ambient: ambient & permitted & inheritable,
        meanwhile: 0,
    };
    (bounding, sets)
}

/// The id step. Ids that the new user namespace does not map are a mistake found here, not at the kernel.
/// `denied`: setgroups(2) is given up there.
pub(crate) fn ids(user: &User, maps: Option<&IdMaps>, denied: bool, found: &mut Findings) -> Act {
    let groups = user.additional_gids().clone().unwrap_or_default();
    for (at, id) in [("process.user.uid", user.uid()), ("process.user.gid", user.gid())] {
        check_id(at, id, found);
    }
    if let Some(maps) = maps {
        check_mapped("process.user.uid", user.uid(), &maps.uids, "linux.uidMappings", found);
        check_mapped("process.user.gid", user.gid(), &maps.gids, "linux.gidMappings", found);
        for (i, gid) in groups.iter().enumerate() {
            check_mapped(
                &format!("process.user.additionalGids[{i}]"),
                *gid,
                &maps.gids,
                "linux.gidMappings",
                found,
            );
        }
    }
    if denied {
        if !groups.is_empty() {
            found.problem(
                "process.user.additionalGids",
                "a caller without CAP_SETGID cannot set supplementary groups",
                "user_namespaces(7)",
                "remove them, or run with subordinate ids",
            );
        }
        return Act::Ids(user.uid(), user.gid(), None);
    }
    Act::Ids(user.uid(), user.gid(), Some(groups))
}

/// The largest number is nobody's: a process that asks to become it stays who it is, which is root. setresuid(2), chown(2).
pub(crate) fn check_id(at: &str, id: u32, found: &mut Findings) {
    if id == u32::MAX {
        found.problem(
            at,
            format!("{id} is no id: to the kernel it says that nothing changes"),
            "setresuid(2)",
            "write the id that is meant, at most 4294967294",
        );
    }
}

fn check_mapped(at: &str, id: u32, map: &str, where_: &str, found: &mut Findings) {
    if map.is_empty() {
        return; // said already
    }
    if outside(id, map).is_none() {
        found.problem(
            at,
            format!("{id} is not mapped"),
            "user_namespaces(7)",
            format!("cover it in {where_}"),
        );
    }
}

/// The host's id of one inside, by a map's lines.
fn outside(id: u32, map: &str) -> Option<u32> {
    map.lines().find_map(|line| {
        let n: Vec<u64> = line.split(' ').filter_map(|w| w.parse().ok()).collect();
        let [inside, outside, length] = n[..] else { return None };
        let offset = u64::from(id).checked_sub(inside).filter(|offset| *offset < length)?;
        u32::try_from(outside + offset).ok()
    })
}

/// The same; one that is not mapped is a problem of this place.
pub(crate) fn on_host(at: &str, id: u32, map: &str, found: &mut Findings) -> u32 {
    check_mapped(at, id, map, "the maps of the user namespace", found);
    outside(id, map).unwrap_or_default()
}

/// The names of those whose bits are set, in the order of the alphabet.
fn names(set: u64) -> Vec<String> {
    let mut names: Vec<String> =
        caps::all().into_iter().filter(|c| set >> c.index() & 1 == 1).map(|c| c.to_string()).collect();
    names.sort();
    names
}

/// The names of all capabilities that this build knows, sorted, for `features`.
pub fn capability_names() -> Vec<String> {
    names(u64::MAX)
}
