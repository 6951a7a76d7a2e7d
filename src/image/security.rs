//! --security-opt: podman's and docker's words.

use coracle_image::config::{Wishes, seccomp};
use std::path::PathBuf;

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Security {
    NoNewPrivileges(bool),
    /// No filter.
    Unfiltered,
    /// The filter of a file.
    Filter(PathBuf),
    /// A profile of AppArmor, if not none.
    AppArmor(Option<String>),
    /// Paths that are not hidden; ALL for all.
    Unmask(Vec<String>),
    /// Further paths that are hidden.
    Mask(Vec<String>),
    /// What is so without being asked for.
    Usual,
}

/// `NAME[=VALUE]`, or with a colon, as docker had it.
pub(super) fn parse(text: &str) -> Result<Security, String> {
    let (name, value) = match text.split_once(['=', ':']) {
        Some((name, value)) => (name, Some(value)),
        None => (text, None),
    };
    let paths = |list: &str| -> Result<Vec<String>, String> {
        let all: Vec<String> = list.split(':').map(str::to_owned).collect();
        match all.iter().all(|p| p.starts_with('/') || name == "unmask" && p == "ALL") {
            true => Ok(all),
            false => {
                Err(format!("{list:?} is no list of paths; write them from the root, with : between them"))
            }
        }
    };
    match (name, value) {
        ("no-new-privileges", None | Some("true")) => Ok(Security::NoNewPrivileges(true)),
        ("no-new-privileges", Some("false")) => Ok(Security::NoNewPrivileges(false)),
        ("seccomp", Some("unconfined")) => Ok(Security::Unfiltered),
        ("seccomp", Some(file)) if !file.is_empty() => Ok(Security::Filter(file.into())),
        ("apparmor", Some("unconfined")) => Ok(Security::AppArmor(None)),
        ("apparmor", Some(profile)) if !profile.is_empty() => Ok(Security::AppArmor(Some(profile.to_owned()))),
        ("unmask", Some(list)) => paths(list).map(Security::Unmask),
        ("systempaths", Some("unconfined")) => Ok(Security::Unmask(vec!["ALL".into()])),
        ("mask", Some(list)) => paths(list).map(Security::Mask),
        ("label", Some("disable")) => Ok(Security::Usual),
        ("label", _) => Err("no SELinux labels are given here: label=disable is how it is".into()),
        _ => Err(
            "the options are no-new-privileges, seccomp=FILE, seccomp=unconfined, apparmor=PROFILE, unmask=PATHS, mask=PATHS"
                .into(),
        ),
    }
}

impl Security {
    /// Asks for it. Errors: a file that cannot be read, or is no profile.
    pub(super) fn wish(&self, wishes: &mut Wishes) -> Result<(), String> {
        match self {
            Self::NoNewPrivileges(on) => wishes.no_new_privileges |= on,
            Self::Unfiltered => wishes.seccomp = Some(None),
            Self::Filter(file) => {
                let said =
                    |e: &dyn std::fmt::Display| format!("--security-opt seccomp={}: {e}", file.display());
                let text = std::fs::read(file).map_err(|e| said(&crate::log::reason(&e)))?;
                let profile = seccomp::of_engine(&text, wishes.capabilities.as_deref());
                wishes.seccomp = Some(Some(profile.map_err(|e| said(&e))?));
            }
            Self::AppArmor(profile) => wishes.apparmor.clone_from(profile),
            Self::Unmask(paths) => wishes.unmask.extend(paths.iter().cloned()),
            Self::Mask(paths) => wishes.mask.extend(paths.iter().cloned()),
            Self::Usual => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_engines() {
        assert_eq!(parse("no-new-privileges"), Ok(Security::NoNewPrivileges(true)));
        assert_eq!(parse("no-new-privileges:false"), Ok(Security::NoNewPrivileges(false)));
        assert_eq!(parse("seccomp=unconfined"), Ok(Security::Unfiltered));
        assert_eq!(parse("seccomp=/a=b"), Ok(Security::Filter("/a=b".into())));
        assert_eq!(parse("apparmor:unconfined"), Ok(Security::AppArmor(None)));
        assert_eq!(
            parse("unmask=/proc/a:/sys/b"),
            Ok(Security::Unmask(vec!["/proc/a".into(), "/sys/b".into()]))
        );
        assert_eq!(parse("systempaths=unconfined"), parse("unmask=ALL"));
        for bad in
            ["", "seccomp", "seccomp=", "apparmor=", "unmask=x", "mask=ALL", "label=type:x", "nonsense=1"]
        {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_filter_is_read_and_must_be_one() {
        let mut wishes = Wishes::default();
        let missing = Security::Filter("/nonexistent".into()).wish(&mut wishes);
        assert!(missing.unwrap_err().contains("/nonexistent"));
        assert!(Security::Filter("/etc/passwd".into()).wish(&mut wishes).is_err());
        assert_eq!(wishes.seccomp, None);
        Security::Unfiltered.wish(&mut wishes).unwrap();
        assert_eq!(wishes.seccomp, Some(None));
    }
}
