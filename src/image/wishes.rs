//! What the caller wants otherwise than the image says: podman's and docker's words, for `run --image` and `unpack`.

use super::limits::LimitArgs;
use super::security::{self, Security};
use super::{mounts, size};
use clap::Args;
use coracle_image::config::{CAPABILITIES, Network, STOP_SIGNAL, Wishes};
use serde_json::Value;
use std::path::PathBuf;

/// What the caller wants otherwise than the image says.
#[derive(Args)]
pub(crate) struct WishArgs {
    /// Set NAME=value in the environment (a NAME alone takes its value from here)
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = variable)]
    env: Vec<String>,
    /// File with such lines; empty ones, and those that begin with #, do not count
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// USER[:GROUP], names or numbers
    #[arg(short, long, value_name = "USER")]
    user: Option<String>,
    /// Directory to start in
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Program to run instead of the image's entrypoint: a word, or a JSON array of words; "" for none
    #[arg(long, value_name = "PROGRAM", value_parser = entrypoint)]
    entrypoint: Option<Words>,
    /// Host name of the container
    #[arg(long, value_name = "NAME", value_parser = hostname)]
    hostname: Option<String>,
    /// Give the program a terminal
    #[arg(short, long)]
    tty: bool,
    /// Make the root file system read-only
    #[arg(long)]
    read_only: bool,
    /// Set-id programs give nothing
    #[arg(long)]
    no_new_privileges: bool,
    /// DIR[:OPTION,…]: a directory in memory (size=64m, mode=1777, exec, ro, …)
    #[arg(long, value_name = "DIR", value_parser = mounts::tmpfs)]
    tmpfs: Vec<Value>,
    /// Bytes that /dev/shm holds, with K, M or G; 64M is usual
    #[arg(long, value_name = "SIZE", value_parser = size)]
    shm_size: Option<u64>,
    /// Give a capability, as NET_ADMIN, or ALL
    #[arg(long, value_name = "CAP", value_delimiter = ',', value_parser = capability)]
    cap_add: Vec<String>,
    /// Take a capability, or ALL
    #[arg(long, value_name = "CAP", value_delimiter = ',', value_parser = capability)]
    cap_drop: Vec<String>,
    /// no-new-privileges, seccomp=FILE, seccomp=unconfined, apparmor=PROFILE, unmask=PATHS (or ALL), mask=PATHS
    #[arg(long, value_name = "OPTION", value_parser = security::parse)]
    security_opt: Vec<Security>,
    /// NAME=VALUE: a kernel parameter of the container's own
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    sysctl: Vec<(String, String)>,
    /// NAME[=VALUE]: a label, which becomes an annotation
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = label)]
    label: Vec<(String, String)>,
    /// NAME=VALUE: an annotation of the configuration
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    annotation: Vec<(String, String)>,
    /// Signal that `stop` sends, instead of the image's
    #[arg(long, value_name = "SIGNAL", value_parser = signal)]
    stop_signal: Option<String>,
    #[command(flatten)]
    limits: LimitArgs,
}

/// The words of a command.
#[derive(Clone)]
struct Words(Vec<String>);

impl WishArgs {
    /// Whether the program gets a terminal.
    pub(super) fn tty(&self) -> bool {
        self.tty
    }

    /// All of it. Errors: a file of variables that cannot be read.
    pub(super) fn wishes(&self, args: &[String]) -> Result<Wishes, String> {
        let mut lines = Vec::new();
        for file in &self.env_file {
            let said = |e: &dyn std::fmt::Display| format!("--env-file {}: {e}", file.display());
            let text = std::fs::read_to_string(file).map_err(|e| said(&crate::log::reason(&e)))?;
            for line in text.lines().map(str::trim_start).filter(|l| !l.is_empty() && !l.starts_with('#')) {
                lines.push(variable(line).map_err(|e| said(&e))?);
            }
        }
        lines.extend(self.env.iter().cloned());
        let env = lines.into_iter().filter_map(|line| match line.contains('=') {
            true => Some(line),
            false => std::env::var(&line).ok().map(|value| format!("{line}={value}")),
        });
        let annotations = self.label.iter().chain(&self.annotation).cloned();
        let stop = self.stop_signal.iter().map(|s| (STOP_SIGNAL.to_owned(), s.clone()));
        let mut wishes = Wishes {
            args: args.to_vec(),
            entrypoint: self.entrypoint.as_ref().map(|e| e.0.clone()),
            env: env.collect(),
            user: self.user.clone(),
            cwd: self.workdir.clone(),
            hostname: self.hostname.clone(),
            terminal: self.tty,
            readonly: self.read_only,
            no_new_privileges: self.no_new_privileges,
            network: Network::None,
            ids: None,
            mounts: self.tmpfs.clone(),
            capabilities: self.capabilities(),
            resources: self.limits.resources(),
            rlimits: self.limits.rlimits(),
            annotations: annotations.chain(stop).collect(),
            sysctl: self.sysctl.clone(),
            shm_bytes: self.shm_size,
            ..Wishes::default()
        };
        for option in &self.security_opt {
            option.wish(&mut wishes)?;
        }
        Ok(wishes)
    }

    /// `ALL` is the set to begin with; a name counts after it, and one that is given more than one that is taken.
    fn capabilities(&self) -> Option<Vec<String>> {
        let (add, drop) = (&self.cap_add, &self.cap_drop);
        if add.is_empty() && drop.is_empty() {
            return None;
        }
        let is_all = |list: &[String]| list.iter().any(|c| c == "ALL");
        let mut all = match () {
            () if is_all(add) => coracle_plan::capability_names(),
            () if is_all(drop) => Vec::new(),
            () => CAPABILITIES.map(str::to_owned).to_vec(),
        };
        all.retain(|c| !drop.contains(c));
        all.extend(add.iter().filter(|c| *c != "ALL").cloned());
        all.sort();
        all.dedup();
        Some(all)
    }
}

/// A variable without a name would be left out in silence.
fn variable(line: &str) -> Result<String, String> {
    match line.split('=').next() {
        Some(name) if !name.is_empty() && !line.contains('\0') => Ok(line.to_owned()),
        _ => Err(format!("{line:?} names no variable; write NAME=value")),
    }
}

fn entrypoint(text: &str) -> Result<Words, String> {
    match text {
        "" => Ok(Words(Vec::new())),
        _ if text.starts_with('[') => match serde_json::from_str(text) {
            Ok(words) => Ok(Words(words)),
            Err(e) => Err(format!("this is no JSON array of words: {e}")),
        },
        word => Ok(Words(vec![word.to_owned()])),
    }
}

/// It is written into a file of the container's, /etc/hosts. hostname(7), and the underscore that many have.
pub(super) fn hostname(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    match !text.is_empty() && text.len() <= 64 && text.chars().all(fits) {
        true => Ok(text.to_owned()),
        false => Err("a host name has up to 64 letters, digits, - . _".into()),
    }
}

fn capability(text: &str) -> Result<String, String> {
    let name = text.to_ascii_uppercase();
    if name == "ALL" {
        return Ok(name);
    }
    let name = if name.starts_with("CAP_") { name } else { format!("CAP_{name}") };
    match coracle_plan::capability_names().contains(&name) {
        true => Ok(name),
        false => Err("there is no such capability; capabilities(7) lists them".into()),
    }
}

/// `NAME=VALUE`
fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !text.contains('\0') => Ok((name.into(), value.into())),
        _ => Err("write NAME=VALUE".into()),
    }
}

/// `NAME[=VALUE]`
fn label(text: &str) -> Result<(String, String), String> {
    pair(text).or_else(|_| pair(&format!("{text}=")))
}

fn signal(text: &str) -> Result<String, String> {
    crate::lifecycle::number(text).map(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        wish: WishArgs,
    }

    fn wishes(words: &[&str]) -> Result<Wishes, String> {
        let line = Line::try_parse_from([&["x"], words].concat()).map_err(|e| e.to_string())?;
        line.wish.wishes(&[])
    }

    #[test]
    fn entrypoints() {
        let of = |text: &str| wishes(&["--entrypoint", text]).map(|w| w.entrypoint);
        assert_eq!(of("/bin/sh"), Ok(Some(vec!["/bin/sh".into()])));
        assert_eq!(of(""), Ok(Some(vec![])));
        assert_eq!(of(r#"["a", "b c"]"#), Ok(Some(vec!["a".into(), "b c".into()])));
        assert!(of("[a]").is_err());
    }

    #[test]
    fn capabilities_are_given_and_taken() {
        let of = |words: &[&str]| wishes(words).map(|w| w.capabilities);
        assert_eq!(of(&[]), Ok(None));
        let only = of(&["--cap-drop", "all", "--cap-add", "net_admin,CAP_KILL"]);
        assert_eq!(only, Ok(Some(vec!["CAP_KILL".into(), "CAP_NET_ADMIN".into()])));
        let less = of(&["--cap-drop=MKNOD"]).unwrap().unwrap();
        assert!(less.len() == 13 && !less.contains(&"CAP_MKNOD".to_owned()));
        let most = of(&["--cap-add=ALL", "--cap-drop=SYS_ADMIN"]).unwrap().unwrap();
        assert!(most.len() > 38 && !most.contains(&"CAP_SYS_ADMIN".to_owned()));
        assert!(of(&["--cap-add", "NONSENSE"]).is_err());
    }

    #[test]
    fn what_is_refused() {
        for words in [
            ["--env", "=x"],
            ["--hostname", "a\nb"],
            ["--hostname", ""],
            ["--tmpfs", "x"],
            ["--tmpfs", "/x:mpol=bind"],
            ["--label", "=x"],
            ["--annotation", "x"],
            ["--sysctl", "x"],
            ["--stop-signal", "NONSENSE"],
            ["--security-opt", "seccomp=/nonexistent"],
            ["--env-file", "/nonexistent"],
        ] {
            assert!(wishes(&words).is_err(), "{words:?}");
        }
    }

    #[test]
    fn what_is_only_passed_on() {
        let words =
            "--tmpfs /x:size=1m,exec -l a=b -l c --annotation d=e=f --stop-signal USR1 --sysctl net.x=1";
        let wishes = wishes(&words.split(' ').collect::<Vec<_>>()).unwrap();
        assert_eq!(
            wishes.mounts[0]["options"],
            serde_json::json!(["nosuid", "nodev", "noexec", "size=1m", "exec"])
        );
        let of = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect::<Vec<_>>()
        };
        assert_eq!(wishes.annotations, of(&[("a", "b"), ("c", ""), ("d", "e=f"), (STOP_SIGNAL, "USR1")]));
        assert_eq!(wishes.sysctl, of(&[("net.x", "1")]));
    }
}
