//! Control groups: config-linux.md, Control groups. Where the container is, who makes the group, who owns it; the limits are
//! in `resources`, what systemd is told of them in `systemd`, what changes later in `update`.

mod below;
mod io;
mod memory;
mod resources;
mod systemd;
mod update;

pub use below::in_group_below;
pub(crate) use resources::writes;
pub use update::update;

use crate::devices;
use crate::inputs::{CgroupMode, Host, Request};
use crate::mounts::each_option;
use crate::problem::Findings;
use crate::steps::{Cgroup, NO_DEVICE_RULES};
use oci_spec::runtime::{LinuxIdMapping, LinuxNamespaceType as Kind, Spec};
use std::path::Path;

pub(crate) const SECTION: &str = "config-linux.md, Control groups";
/// NAME_MAX of limits.h.
const NAME_BYTES: usize = 255;
/// PATH_MAX, less what stands before a group's path and the name of its longest file.
const PATH_BYTES: usize = 4000;

/// Decides the control group.
pub(crate) fn plan(spec: &Spec, host: &Host, request: &Request, found: &mut Findings) -> Cgroup {
    let linux = spec.linux().as_ref();
    let asked = linux.and_then(|l| l.cgroups_path().as_ref()).filter(|p| !p.as_os_str().is_empty());
    let mut out = Cgroup {
        mode: host.cgroup,
        optional: asked.is_none(),
        rootless: request.rootless,
        ..Cgroup::default()
    };
    if let Some(resources) = linux.and_then(|l| l.resources().as_ref()) {
        out.writes = writes(resources, host.cgroup, found);
    }
    let rules = devices::rules(spec, found);
    out.devices_asked = devices::asked(&rules);
    match host.cgroup {
        _ if request.rootless => found.warnings.extend(out.devices_asked.then(|| NO_DEVICE_RULES.into())),
        CgroupMode::Unified => out.devices = devices::filter_or_problem(&rules, found),
        CgroupMode::Legacy => out.device_lines = devices::lines(&rules),
        CgroupMode::None => {}
    }
    if host.cgroup == CgroupMode::None {
        none_mounted(spec, host, request, &out, found);
    } else if let Some(host) = &host.systemd {
        systemd::plan(spec, host, asked.map(|p| p.as_path()), request, &rules, &mut out, found);
    } else {
        out.path = Some(path(asked.map(|p| p.as_path()), host, request, found));
    }
    out.owner = owner(spec, host, found);
    below::plan(spec, &mut out, found);
    out
}

/// Without control groups nothing is limited, and no device kept away: whoever asks for that is not to go without.
fn none_mounted(spec: &Spec, host: &Host, request: &Request, out: &Cgroup, found: &mut Findings) {
    let resources = spec.linux().as_ref().and_then(|l| l.resources().as_ref());
    let rules = resources.and_then(|r| r.devices().as_ref()).is_some_and(|rules| !rules.is_empty());
    // The kernel itself refuses device nodes to callers without rights.
    let filtered = host.admin() && !request.rootless && !request.no_cgroups;
    let asked = if let Some(limit) = out.writes.first() {
        limit.origin.as_str()
    } else if !out.optional && !request.no_cgroups {
        "linux.cgroupsPath"
    } else if filtered && rules {
        "linux.resources.devices"
    } else {
        if filtered {
            found.warn("linux.resources.devices: no cgroup file system is mounted at /sys/fs/cgroup: the container may use every device that it can make a node of");
        }
        return;
    };
    found.problem(
        asked,
        "no cgroup file system is mounted at /sys/fs/cgroup",
        SECTION,
        "mount one, or remove it; --cgroup-manager disabled does without",
    );
}

fn path(asked: Option<&Path>, host: &Host, request: &Request, found: &mut Findings) -> String {
    let own = host.own_cgroup.trim_end_matches('/');
    if host.own_cgroup.is_empty() && !asked.is_some_and(Path::is_absolute) {
        // At the top it would be outside of the limits that this process has.
        found.problem(
            "linux.cgroupsPath",
            "the container's group is to be near this process's own, which /proc/self/cgroup does not tell",
            "cgroups(7)",
            "mount /proc, or write an absolute path",
        );
    }
    let Some(asked) = asked else {
        // On v2 beside this process's own group: in its own nothing could be limited, for it has processes
        // (cgroup-v2.rst, No Internal Process Constraint).
        let parent = match host.cgroup {
            CgroupMode::Unified => own.rsplit_once('/').map_or("", |(parent, _)| parent),
            _ => own,
        };
        return format!("{parent}/{}", request.id);
    };
    let words = words(asked.to_str().unwrap_or_default(), "linux.cgroupsPath", found);
    if words.is_empty() {
        found.problem(
            "linux.cgroupsPath",
            format!("{asked:?} is the root of all groups"),
            SECTION,
            "name a group below it",
        );
    }
    let parent = if asked.is_absolute() { "" } else { own };
    format!("{parent}{words}")
}

/// A group's path as the kernel shows it in /proc/PID/cgroup, and as it is found again: with one slash before each name.
/// `..` goes one back, and never above where the path begins: engines pass on what people write, and runc takes it so.
fn words(asked: &str, at: &str, found: &mut Findings) -> String {
    let mut words = Vec::new();
    for word in asked.split('/') {
        match word {
            "" | "." => {}
            ".." => drop(words.pop()),
            name => words.push(name),
        }
    }
    let path: String = words.iter().map(|word| format!("/{word}")).collect();
    found.cstring(at, path.as_str());
    let longest = words.iter().map(|word| word.len()).max().unwrap_or_default();
    if longest > NAME_BYTES || path.len() > PATH_BYTES {
        found.problem(
            at,
            format!("it has {} bytes, and {longest} between two slashes", path.len()),
            SECTION,
            format!("write at most {PATH_BYTES}, and {NAME_BYTES} between two slashes"),
        );
    }
    path
}

/// config-linux.md, Cgroup ownership: the container's user, as the host counts, owns its group when it has a cgroup
/// namespace of its own and may write there.
fn owner(spec: &Spec, host: &Host, found: &mut Findings) -> Option<u32> {
    let writable = |m: &oci_spec::runtime::Mount| {
        let kind = m.typ().as_deref().unwrap_or_default();
        kind.starts_with("cgroup")
            && m.destination() == Path::new("/sys/fs/cgroup")
            && !each_option(m).any(|(_, option)| option == "ro")
    };
    let own = crate::namespaces::asked(spec, Kind::Cgroup) == Some(true);
    if host.cgroup != CgroupMode::Unified || !own || !spec.mounts().iter().flatten().any(writable) {
        return None;
    }
    let uid = spec.process().as_ref()?.user().uid();
    let maps = spec.linux().as_ref().and_then(|l| l.uid_mappings().as_ref()).filter(|m| !m.is_empty());
    let outside = match maps {
        None => Some(uid),
        Some(maps) => maps.iter().find_map(|m| through(m, uid)),
    };
    if outside.is_none() {
        found.problem(
            "process.user.uid",
            format!("{uid} is not in linux.uidMappings: nobody could own the container's control group"),
            "config-linux.md, Cgroup ownership",
            "map it, or mount /sys/fs/cgroup read-only",
        );
    }
    outside.filter(|uid| *uid != host.euid)
}

fn through(map: &LinuxIdMapping, id: u32) -> Option<u32> {
    let offset = id.checked_sub(map.container_id()).filter(|o| *o < map.size())?;
    map.host_id().checked_add(offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_below_where_its_path_begins_and_nowhere_if_that_is_unknown() {
        let made = |own: &str, asked: Option<&str>| {
            let host = Host { cgroup: CgroupMode::Unified, own_cgroup: own.into(), ..Host::default() };
            let request = Request { id: "id".into(), ..Request::default() };
            let mut found = Findings::default();
            let path = path(asked.map(Path::new), &host, &request, &mut found);
            found.problems.is_empty().then_some(path)
        };
        assert_eq!(made("/a/b", None).as_deref(), Some("/a/id"));
        assert_eq!(made("/a/b", Some("c")).as_deref(), Some("/a/b/c"));
        assert_eq!(made("/", None).as_deref(), Some("/id"));
        assert_eq!(made("/a/b", Some("../../c/./d/../e")).as_deref(), Some("/a/b/c/e"));
        assert_eq!(made("/a/b", Some("/../c")).as_deref(), Some("/c"));
        assert_eq!(made("/a/b", Some("c/..")), None);
        assert_eq!(made("", Some("/c")).as_deref(), Some("/c"));
        assert_eq!((made("", None), made("", Some("c"))), (None, None));
    }
}
