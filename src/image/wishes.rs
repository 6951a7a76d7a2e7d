//! What the caller wants otherwise than the image says: podman's and docker's words, for `run --image` and `unpack`.

use clap::Args;
use coracle_image::config::{CAPABILITIES, Network, Wishes};
use serde_json::{Value, json};
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
    #[arg(long, value_name = "DIR", value_parser = tmpfs)]
    tmpfs: Vec<Value>,
    /// Give a capability, as NET_ADMIN, or ALL
    #[arg(long, value_name = "CAP", value_delimiter = ',', value_parser = capability)]
    cap_add: Vec<String>,
    /// Take a capability, or ALL
    #[arg(long, value_name = "CAP", value_delimiter = ',', value_parser = capability)]
    cap_drop: Vec<String>,
    /// Most memory, with K, M or G
    #[arg(short, long, value_name = "SIZE", value_parser = super::size)]
    memory: Option<u64>,
    /// Most processor time, in processors: 1.5
    #[arg(long, value_name = "NUMBER", value_parser = cpus)]
    cpus: Option<u64>,
    /// Most processes
    #[arg(long, value_name = "NUMBER")]
    pids_limit: Option<i64>,
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
            let text = std::fs::read_to_string(file).map_err(|e| said(&e))?;
            for line in text.lines().map(str::trim_start).filter(|l| !l.is_empty() && !l.starts_with('#')) {
                lines.push(variable(line).map_err(|e| said(&e))?);
            }
        }
        lines.extend(self.env.iter().cloned());
        let env = lines.into_iter().filter_map(|line| match line.contains('=') {
            true => Some(line),
            false => std::env::var(&line).ok().map(|value| format!("{line}={value}")),
        });
        Ok(Wishes {
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
            resources: self.resources(),
        })
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

    /// Members of `linux.resources`.
    fn resources(&self) -> Vec<(&'static str, Value)> {
        let memory = self.memory.map(|bytes| ("memory", json!({"limit": bytes})));
        let cpu = self.cpus.map(|quota| ("cpu", json!({"quota": quota, "period": PERIOD})));
        let pids = self.pids_limit.map(|most| ("pids", json!({"limit": most})));
        [memory, cpu, pids].into_iter().flatten().collect()
    }
}

/// Of a processor's time, in microseconds: what engines use.
const PERIOD: u64 = 100_000;

/// `1.5`: microseconds of each [`PERIOD`].
fn cpus(text: &str) -> Result<u64, String> {
    let number = text.parse::<f64>().ok().filter(|n| (0.01..=10_000.0).contains(n));
    let number = number.ok_or_else(|| format!("{text:?} is no number of processors; write 0.5 or 2"))?;
    Ok((number * PERIOD as f64) as u64)
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
fn hostname(text: &str) -> Result<String, String> {
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

/// `DIR[:OPTION,…]` as a mount of config.json.
fn tmpfs(text: &str) -> Result<Value, String> {
    let (to, more) = text.split_once(':').unwrap_or((text, ""));
    if !to.starts_with('/') || to == "/" {
        return Err("write DIR[:OPTION,…], the directory from the root".into());
    }
    let mut options = vec!["nosuid", "nodev", "noexec"];
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
        options.push(option);
    }
    Ok(json!({"destination": to, "type": "tmpfs", "source": "tmpfs", "options": options}))
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
            ["--cpus", "-1"],
            ["--memory", "much"],
            ["--env-file", "/nonexistent"],
        ] {
            assert!(wishes(&words).is_err(), "{words:?}");
        }
    }

    #[test]
    fn limits_and_memory() {
        let wishes =
            wishes(&["-m", "64M", "--cpus", "1.5", "--pids-limit", "9", "--tmpfs", "/x:size=1m,exec"])
                .unwrap();
        assert_eq!(
            json!(wishes.resources),
            json!([
            ["memory", {"limit": 64 << 20}], ["cpu", {"quota": 150_000, "period": 100_000}], ["pids", {"limit": 9}]])
        );
        assert_eq!(wishes.mounts[0]["options"], json!(["nosuid", "nodev", "noexec", "size=1m", "exec"]));
    }
}
