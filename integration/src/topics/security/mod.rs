//! Attacks that runtimes have fallen for, each with what must hold afterwards: the CVE, or the runtime that fell, stands at the
//! test. docs/attacks.md has them in a table. One file for each that the attack comes from: an image, a process of the
//! container, somebody who exchanges names meanwhile; and for what is attacked: the host, the words of whoever calls.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::harness::{Bundle, Ctx, Result, check_eq};

pub(super) mod calls;
pub(super) mod host;
pub(super) mod image;
pub(super) mod process;
pub(super) mod race;
pub(super) mod words;

/// A directory of the host with one file, and what it looks like.
struct Canary {
    at: PathBuf,
    before: String,
}

impl Canary {
    fn new(ctx: &Ctx) -> Result<Canary> {
        let at = ctx.dir.join("canary");
        fs::create_dir_all(&at)?;
        fs::write(at.join("ptmx"), "untouched")?;
        let before = Self::look(&at)?;
        Ok(Canary { at, before })
    }

    /// Every name with its type, mode, owner, size and time of change.
    fn look(at: &Path) -> Result<String> {
        let mut lines = Vec::new();
        for path in [at.to_owned()].into_iter().chain(fs::read_dir(at)?.flatten().map(|e| e.path())) {
            let data = fs::symlink_metadata(&path)?;
            let (mode, uid, gid) = (data.mode(), data.uid(), data.gid());
            lines.push(format!(
                "{} {mode:o} {uid}:{gid} {} {}",
                path.display(),
                data.mtime(),
                data.mtime_nsec()
            ));
        }
        lines.sort();
        Ok(lines.join("\n"))
    }

    fn untouched(&self) -> Result {
        check_eq!(Self::look(&self.at)?, self.before, "the host's directory");
        check_eq!(fs::read_to_string(self.at.join("ptmx"))?, "untouched", "the host's file");
        Ok(())
    }

    /// Its path, absolute and as a link that climbs out of the root has it.
    fn targets(&self) -> [String; 2] {
        let path = self.at.display();
        [path.to_string(), format!("../../../../../../../../../..{path}")]
    }
}

/// Runs the bundle to its end whatever the runtime makes of it: contained means that the host is as before.
fn contained(ctx: &Ctx, bundle: &Bundle, canary: &Canary) -> Result {
    ctx.run(bundle)?;
    canary.untouched()
}

/// Takes the mounts at and below this path out of config.json.
fn without_mounts(bundle: &mut Bundle, below: &str) {
    if let Some(mounts) = bundle.spec["mounts"].as_array_mut() {
        mounts.retain(|mount| !mount["destination"].as_str().is_some_and(|at| at.starts_with(below)));
    }
}
