//! The words of `mounts[].options`: config.md, Linux mount options; mount(8). What a word does to a mount, not how.

use crate::labels;
use crate::near::slips;
use coracle_sys::{libc, mount::attr};
use oci_spec::runtime::Mount;

/// The options of a mount, each with its place in the list.
pub(crate) fn each_option(mount: &Mount) -> impl Iterator<Item = (usize, &str)> {
    let list = mount.options().iter().flatten().enumerate();
    list.flat_map(|(place, text)| separate(text).map(move |word| (place, word)))
}

/// Several options may stand in one text, separated by commas as in the data of mount(2). Those in quotes and after a
/// backslash (the paths of an overlay) separate nothing, nor do those of a label, selinux(8), and those before a digit, which
/// no option begins with but numbers of a list do (`mpol=bind:0,2`: tmpfs(5)). Podman writes empty ones.
fn separate(text: &str) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    let label = text.split_once('=').is_some_and(|(key, value)| labels::is_bare(key, value));
    let mut rest = text.chars();
    let ends = move |c| {
        rest.next();
        let numbers = rest.as_str().starts_with(|next: char| next.is_ascii_digit());
        let ends = c == ',' && !(quoted || escaped || label || numbers);
        quoted ^= c == '"';
        escaped = c == '\\' && !escaped;
        ends
    };
    text.split(ends).filter(|word| !word.is_empty())
}

/// What an option word means.
pub(super) enum Meaning {
    Set(u64),
    Clear(u64),
    Atime(u64),
    /// The opposite of one: taken back if it was named before, and else nothing, as with mount(8).
    NoAtime(u64),
    Propagation(u64, bool),
    Bind(bool),
    CopyUp,
    /// Ids mapped, also below.
    IdMap(bool),
    /// Change what is mounted there already.
    Remount,
    /// A source that is a link: make the same link instead of mounting (crun).
    CopyLink,
    /// Take a source that is a link as what it is (crun).
    SourceLink,
    /// Mount on a link itself (crun).
    TargetLink,
    Nothing,
    Superblock,
}

pub(super) fn meaning(word: &str) -> Option<Meaning> {
    use Meaning::*;
    Some(match word {
        "ro" => Set(attr::RDONLY),
        "rw" => Clear(attr::RDONLY),
        "nosuid" => Set(attr::NOSUID),
        "suid" => Clear(attr::NOSUID),
        "nodev" => Set(attr::NODEV),
        "dev" => Clear(attr::NODEV),
        "noexec" => Set(attr::NOEXEC),
        "exec" => Clear(attr::NOEXEC),
        "nodiratime" => Set(attr::NODIRATIME),
        "diratime" => Clear(attr::NODIRATIME),
        "nosymfollow" => Set(attr::NOSYMFOLLOW),
        "symfollow" => Clear(attr::NOSYMFOLLOW),
        "relatime" => Atime(attr::RELATIME),
        "atime" => NoAtime(attr::NOATIME),
        "norelatime" => NoAtime(attr::RELATIME),
        "nostrictatime" => NoAtime(attr::STRICTATIME),
        "noatime" => Atime(attr::NOATIME),
        "strictatime" => Atime(attr::STRICTATIME),
        "bind" => Bind(false),
        "rbind" => Bind(true),
        "private" => Propagation(libc::MS_PRIVATE, false),
        "rprivate" => Propagation(libc::MS_PRIVATE, true),
        "slave" => Propagation(libc::MS_SLAVE, false),
        "rslave" => Propagation(libc::MS_SLAVE, true),
        "shared" => Propagation(libc::MS_SHARED, false),
        "rshared" => Propagation(libc::MS_SHARED, true),
        "unbindable" => Propagation(libc::MS_UNBINDABLE, false),
        "runbindable" => Propagation(libc::MS_UNBINDABLE, true),
        "tmpcopyup" => CopyUp,
        "idmap" => IdMap(false),
        "ridmap" => IdMap(true),
        "remount" => Remount,
        "copy-symlink" => CopyLink,
        "src-nofollow" => SourceLink,
        "dest-nofollow" => TargetLink,
        // What mount(8) has for fstab(5): some of it says something of mounts too.
        "auto" | "noauto" | "nouser" | "nofail" | "_netdev" => Nothing,
        "user" | "users" => Set(attr::NOSUID | attr::NODEV | attr::NOEXEC),
        "owner" | "group" => Set(attr::NOSUID | attr::NODEV),
        "defaults" | "async" | "nomand" | "silent" | "loud" | "noiversion" | "nolazytime" | "norbind" => {
            Nothing
        }
        "sync" | "dirsync" | "mand" | "lazytime" | "iversion" | "acl" | "noacl" => Superblock,
        // Comments: mount(8), fstab(5).
        word if word.starts_with("x-") || word.starts_with("X-") => Nothing,
        _ => return None,
    })
}

/// The known word that this one, which is none, nearly is.
pub(super) fn meant(word: &str) -> Option<String> {
    let lower = word.to_lowercase();
    if ["readonly", "read-only", "read_only"].contains(&lower.as_str()) {
        return Some("ro".into());
    }
    let near = |known: &String| slips(known, word) <= usize::from(known.len() > 4);
    known_options().into_iter().find(near)
}

/// The words that [`plan`] understands, for `features`; the recursive ones among them.
pub fn known_options() -> Vec<String> {
    let plain = "ro rw nosuid suid nodev dev noexec exec nodiratime diratime nosymfollow symfollow relatime atime nostrictatime \
        noatime strictatime norelatime bind rbind private rprivate slave rslave shared rshared unbindable runbindable tmpcopyup \
        idmap ridmap remount copy-symlink src-nofollow dest-nofollow defaults async nomand silent loud noiversion nolazytime sync dirsync mand lazytime iversion acl noacl";
    let recursive = "rro rrw rnosuid rsuid rnodev rdev rnoexec rexec rnodiratime rdiratime rnosymfollow rsymfollow rrelatime \
        ratime rnostrictatime rnoatime rstrictatime rnorelatime";
    let mut all: Vec<String> =
        plain.split_whitespace().chain(recursive.split_whitespace()).map(str::to_owned).collect();
    all.sort();
    all
}

/// Sets or clears in a (set, clear) pair; the later word wins.
pub(super) fn change(pair: &mut (u64, u64), what: &Meaning) -> bool {
    match *what {
        Meaning::Set(bit) => *pair = (pair.0 | bit, pair.1 & !bit),
        Meaning::Clear(bit) => *pair = (pair.0 & !bit, pair.1 | bit),
        // All three atime modes share bits, so that the old one is cleared: mount_setattr(2).
        Meaning::Atime(mode) => *pair = (pair.0 & !attr::ATIME | mode, pair.1 | attr::ATIME),
        Meaning::NoAtime(mode) if pair.1 & attr::ATIME != 0 && pair.0 & attr::ATIME == mode => {
            *pair = (pair.0 & !attr::ATIME, pair.1 & !attr::ATIME);
        }
        Meaning::NoAtime(_) => {}
        _ => return false,
    }
    true
}

#[cfg(test)]
mod tests {
    use super::separate;

    #[test]
    fn commas_separate_options() {
        let of = |text| separate(text).collect::<Vec<_>>();
        assert_eq!(of("size=64k,mode=1777"), ["size=64k", "mode=1777"]);
        assert_eq!(of(",nosuid,,nodev"), ["nosuid", "nodev"]);
        assert_eq!(of(r"lowerdir=/a\,b:/c,upperdir=/u"), [r"lowerdir=/a\,b:/c", "upperdir=/u"]);
        assert_eq!(of(r#"context="a:s0:c1,c2",ro"#), [r#"context="a:s0:c1,c2""#, "ro"]);
        assert_eq!(of("context=a:s0:c1,c2"), ["context=a:s0:c1,c2"]);
        assert_eq!(of("mpol=bind:0,2-3,mode=1777"), ["mpol=bind:0,2-3", "mode=1777"]);
    }
}
