//! What the caller puts into the container's tree: podman's and docker's words, as mounts of config.json.

use serde_json::{Value, json};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// What binds of the host's files begin with.
const BIND: [&str; 4] = ["rbind", "nosuid", "nodev", "rprivate"];
/// What directories in memory begin with.
const MEMORY: [&str; 3] = ["nosuid", "nodev", "noexec"];

/// `DIR[:OPTION,…]`, for --tmpfs.
pub(super) fn tmpfs(text: &str) -> Result<Value, String> {
    let (to, more) = text.split_once(':').unwrap_or((text, ""));
    let to = inside(to).map_err(|_| "write DIR[:OPTION,…], the directory from the root")?;
    let mut options = MEMORY.map(str::to_owned).to_vec();
    for option in more.split(',').filter(|o| !o.is_empty()) {
        let name = option.split('=').next().unwrap_or_default();
        let known = match option.contains('=') {
            true => ["size", "mode", "uid", "gid", "nr_inodes", "nr_blocks"].contains(&name),
            false => {
                ["ro", "rw", "exec", "noexec", "suid", "nosuid", "dev", "nodev", "noatime"].contains(&name)
            }
        };
        if !known {
            return Err(format!(
                "option {option:?} is none of size=, mode=, uid=, gid=, ro, exec, suid, dev"
            ));
        }
        options.push(option.to_owned());
    }
    Ok(in_memory(to, &options))
}

/// `HOST:CONTAINER[:OPTION,…]`, for --volume.
pub(super) fn volume(word: &str) -> Result<Value, String> {
    let bad = |why: &str| format!("--volume {word:?}: {why}; write /HOST:/CONTAINER[:ro]");
    let parts: Vec<&str> = word.split(':').collect();
    let (from, to, more) = match parts[..] {
        [from, to] => (from, to, "rw"),
        [from, to, more] => (from, to, more),
        _ => return Err(bad("volumes without a place on the host are not kept here")),
    };
    let (from, to) = (outside(from).map_err(bad)?, inside(to).map_err(bad)?);
    let mut options = BIND.to_vec();
    for option in more.split(',') {
        match option {
            "ro" => options.extend(["ro", "rro"]),
            "rw" => {}
            "exec" | "noexec" | "suid" | "dev" => options.push(option),
            // SELinux relabelling; there is none here.
            "z" | "Z" => {}
            _ => return Err(bad("the options are ro, rw, exec, noexec, suid, dev")),
        }
    }
    Ok(bound(to, &from, &options))
}

/// `type=bind|tmpfs,…`, for --mount.
pub(super) fn mount(word: &str) -> Result<Value, String> {
    let bad = |why: &str| format!("--mount {word:?}: {why}");
    let pairs: Vec<(&str, Option<&str>)> = word
        .split(',')
        .map(|pair| pair.split_once('=').map_or((pair, None), |(k, v)| (k, Some(v))))
        .collect();
    let value = |names: &[&str]| pairs.iter().find(|(k, _)| names.contains(k)).and_then(|(_, v)| *v);
    let kind = value(&["type"]).unwrap_or("volume");
    let to =
        value(&["target", "destination", "dst"]).ok_or_else(|| bad("no target; add target=/CONTAINER"))?;
    let to = inside(to).map_err(bad)?;
    let mut options: Vec<String> = match kind {
        "bind" => BIND.map(str::to_owned).to_vec(),
        "tmpfs" => MEMORY.map(str::to_owned).to_vec(),
        "volume" => return Err(bad("volumes by name are not kept here; use type=bind or type=tmpfs")),
        _ => return Err(bad("the types are bind and tmpfs")),
    };
    let mut from = None;
    for (name, value) in pairs {
        let is = |wanted: &str| kind == wanted;
        let on = match value {
            None | Some("true" | "1") => true,
            Some("false" | "0") => false,
            // Not a switch: the arms below say so where one is wanted.
            Some(_) => true,
        };
        match (name, value) {
            ("type" | "target" | "destination" | "dst", Some(_)) => {}
            ("source" | "src", Some(path)) if is("bind") => from = Some(outside(path).map_err(bad)?),
            ("readonly" | "ro", None | Some("true" | "1" | "false" | "0")) if on && is("bind") => {
                options.extend(["ro".into(), "rro".into()]);
            }
            ("readonly" | "ro", None | Some("true" | "1")) => options.push("ro".into()),
            ("readonly" | "ro" | "rw", None | Some("true" | "1" | "false" | "0")) => {}
            ("exec" | "noexec" | "suid" | "nosuid" | "dev" | "nodev", None) => options.push(name.into()),
            (
                "bind-propagation",
                Some(how @ ("private" | "rprivate" | "slave" | "rslave" | "shared" | "rshared")),
            ) if is("bind") => {
                options.retain(|o| o != "rprivate");
                options.push(how.into());
            }
            ("bind-nonrecursive", None | Some("true" | "1" | "false" | "0")) if is("bind") => {
                options[0] = if on { "bind".into() } else { "rbind".into() };
            }
            ("relabel", Some("shared" | "private")) if is("bind") => {}
            ("tmpfs-size", Some(size)) if is("tmpfs") => {
                options.push(format!("size={}", super::size(size).map_err(|e| bad(&e))?));
            }
            ("tmpfs-mode", Some(mode)) if is("tmpfs") && u32::from_str_radix(mode, 8).is_ok() => {
                options.push(format!("mode={mode}"));
            }
            _ => return Err(bad(&format!("{name:?} is no option of type={kind}, or has no such value"))),
        }
    }
    match (kind, from) {
        ("bind", Some(from)) => Ok(bound(to, &from, &options)),
        ("bind", None) => Err(bad("no source; add source=/HOST")),
        _ => Ok(in_memory(to, &options)),
    }
}

/// A device of the host: how it comes into the container, and the rules that let it be used.
#[derive(Clone)]
pub(super) struct Device {
    /// A mount: the node is the host's own, with its owner and mode, also for who may not make any.
    pub(super) mount: Value,
    /// Entries of `linux.resources.devices`.
    pub(super) rules: Vec<Value>,
    /// Whether less than everything is asked for.
    pub(super) limited: bool,
}

/// `HOST[:CONTAINER][:rwm]`, for --device; a directory stands for all devices in it.
pub(super) fn device(word: &str) -> Result<Device, String> {
    let is_access = |t: &str| !t.is_empty() && t.chars().all(|c| "rwm".contains(c));
    let parts: Vec<&str> = word.split(':').collect();
    let (from, to, access) = match parts[..] {
        [from] => (from, from, "rwm"),
        [from, access] if is_access(access) => (from, from, access),
        [from, to] => (from, to, "rwm"),
        [from, to, access] if is_access(access) => (from, to, access),
        _ => return Err("write /HOST[:/CONTAINER][:rwm]".into()),
    };
    if !from.starts_with('/') {
        return Err(
            "devices by a vendor's name (CDI) are not known here; write /HOST[:/CONTAINER][:rwm]".into()
        );
    }
    let (from, to) = (outside(from)?, inside(to)?);
    let mut rules = Vec::new();
    nodes(&from, access, 0, &mut rules).map_err(|e| format!("{}: {e}", from.display()))?;
    if rules.is_empty() {
        return Err(format!("{} is no device, nor is one in it", from.display()));
    }
    Ok(Device {
        mount: bound(to, &from, &["rbind", "nosuid", "noexec", "rprivate"]),
        rules,
        limited: access.len() < 3,
    })
}

/// A rule for each device at or below a path; links in a directory lead nowhere.
fn nodes(path: &Path, access: &str, depth: u32, rules: &mut Vec<Value>) -> std::io::Result<()> {
    let meta = if depth == 0 { path.metadata()? } else { path.symlink_metadata()? };
    let kind = meta.file_type();
    if kind.is_char_device() || kind.is_block_device() {
        let number = coracle_sys::libc::dev_t::from(meta.rdev());
        let (major, minor) = (coracle_sys::libc::major(number), coracle_sys::libc::minor(number));
        let kind = if kind.is_char_device() { "c" } else { "b" };
        rules.push(json!({"allow": true, "type": kind, "major": major, "minor": minor, "access": access}));
    } else if kind.is_dir() && depth < 8 {
        for entry in std::fs::read_dir(path)? {
            nodes(&entry?.path(), access, depth + 1, rules)?;
        }
    }
    Ok(())
}

/// A place on the host.
fn outside(path: &str) -> Result<PathBuf, &'static str> {
    let path =
        if path.starts_with('.') { std::path::absolute(path).unwrap_or_default() } else { path.into() };
    match () {
        () if !path.is_absolute() => Err("volumes by name are not kept here"),
        () if !path.exists() => Err("there is nothing at the host's path"),
        () => Ok(path),
    }
}

/// A place in the container.
fn inside(path: &str) -> Result<&str, &'static str> {
    match path.starts_with('/') && path != "/" {
        true => Ok(path),
        false => Err("the place in the container is not from its root"),
    }
}

fn bound(to: &str, from: &Path, options: &[impl AsRef<str>]) -> Value {
    let options: Vec<&str> = options.iter().map(AsRef::as_ref).collect();
    json!({"destination": to, "type": "bind", "source": from, "options": options})
}

/// A program of the host's.
pub(super) fn program(from: &str, to: &str) -> Value {
    bound(to, Path::new(from), &["bind", "nosuid", "nodev", "rprivate", "ro"])
}

fn in_memory(to: &str, options: &[String]) -> Value {
    json!({"destination": to, "type": "tmpfs", "source": "tmpfs", "options": options})
}

/// Outer places first: what is mounted later lies over what was there.
pub(super) fn sort(mounts: &mut [Value]) {
    let depth = |m: &Value| {
        let to = m["destination"].as_str().unwrap_or_default();
        to.split('/').filter(|part| !part.is_empty() && *part != ".").count()
    };
    mounts.sort_by_key(depth);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(mount: Result<Value, String>) -> Vec<String> {
        serde_json::from_value(mount.unwrap()["options"].clone()).unwrap()
    }

    #[test]
    fn mounts_as_engines_write_them() {
        let made = mount("type=bind,source=/etc,target=/x,readonly").unwrap();
        assert_eq!((&made["source"], &made["destination"]), (&json!("/etc"), &json!("/x")));
        let of = |text: &str| options(mount(text));
        assert_eq!(
            of("type=bind,src=/etc,dst=/x,ro=true"),
            ["rbind", "nosuid", "nodev", "rprivate", "ro", "rro"]
        );
        assert_eq!(of("type=bind,src=/etc,dst=/x,ro=false"), ["rbind", "nosuid", "nodev", "rprivate"]);
        assert_eq!(
            of("type=bind,src=/etc,dst=/x,bind-propagation=rslave,bind-nonrecursive"),
            ["bind", "nosuid", "nodev", "rslave"]
        );
        assert_eq!(
            of("type=tmpfs,destination=/x,tmpfs-size=1m,tmpfs-mode=1770,ro"),
            ["nosuid", "nodev", "noexec", "size=1048576", "mode=1770", "ro"]
        );
        for bad in [
            "",
            "/x",
            "type=bind,dst=/x",
            "type=bind,src=/etc",
            "type=bind,src=/nonexistent,dst=/x",
            "type=bind,src=/etc,dst=x",
            "type=bind,src=/etc,dst=/x,ro=maybe",
            "type=bind,src=/etc,dst=/x,tmpfs-size=1m",
            "type=tmpfs,src=/etc,dst=/x",
            "type=tmpfs,dst=/x,tmpfs-mode=9",
            "type=tmpfs,dst=/x,nonsense",
            "type=volume,src=name,dst=/x",
            "type=image,src=name,dst=/x",
            "dst=/x",
        ] {
            assert!(mount(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn devices_as_engines_write_them() {
        let null = |access: &str| {
            vec![json!({"allow": true, "type": "c", "major": 1, "minor": 3, "access": access})]
        };
        let one = device("/dev/null").unwrap();
        assert_eq!(
            (one.rules, one.limited, &one.mount["destination"]),
            (null("rwm"), false, &json!("/dev/null"))
        );
        let other = device("/dev/null:/dev/x:r").unwrap();
        assert_eq!(
            (other.rules, other.limited, &other.mount["destination"]),
            (null("r"), true, &json!("/dev/x"))
        );
        assert_eq!(device("/dev/null:rw").unwrap().rules, null("rw"));
        assert!(device("/dev").unwrap().rules.contains(&null("rwm")[0]));
        for bad in [
            "/etc/passwd",
            "/nonexistent",
            "vendor.x/gpu=all",
            "/dev/null:x",
            "/dev/null:/x:rx",
            "a:b:c:d",
            "",
        ] {
            assert!(device(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn outer_places_come_first() {
        let mut all = ["/a/b/c", "/x", "/a/b", "/a"].map(|to| json!({"destination": to}));
        sort(&mut all);
        assert_eq!(
            all.map(|m| m["destination"].as_str().unwrap().to_owned()),
            ["/x", "/a", "/a/b", "/a/b/c"]
        );
    }
}
