//! A root file system made of Debian's static busybox and the probe: links, so that each test has its own at no cost.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::Command,
};

use super::Result;

const BUSYBOX: &str = "/bin/busybox";
const DIRECTORIES: [&str; 10] = ["bin", "dev", "etc", "home", "proc", "root", "sys", "tmp", "usr", "var"];
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home/user:/bin/sh\n";
const GROUP: &str = "root:x:0:\ntty:x:5:\nuser:x:1000:\n";

/// Puts busybox and the probe into `store`, from where root file systems are linked. Once per run.
pub(crate) fn prepare_store(store: &Path) -> Result {
    fs::create_dir_all(store)?;
    fs::copy(BUSYBOX, store.join("busybox"))
        .map_err(|e| format!("{BUSYBOX} (package busybox-static): {e}"))?;
    fs::copy(std::env::current_exe()?, store.join("probe"))?;
    let applets = Command::new(BUSYBOX).arg("--list").output()?;
    fs::write(store.join("applets"), applets.stdout)?;
    Ok(())
}

/// Makes a root file system at `path`.
pub(crate) fn make(store: &Path, path: &Path) -> Result {
    for directory in DIRECTORIES {
        fs::create_dir_all(path.join(directory))?;
    }
    fs::set_permissions(path.join("tmp"), fs::Permissions::from_mode(0o1777))?;
    fs::hard_link(store.join("busybox"), path.join("bin/busybox"))?;
    fs::hard_link(store.join("probe"), path.join("probe"))?;
    for applet in fs::read_to_string(store.join("applets"))?.lines().filter(|name| *name != "busybox") {
        symlink("busybox", path.join("bin").join(applet))?;
    }
    fs::write(path.join("etc/passwd"), PASSWD)?;
    fs::write(path.join("etc/group"), GROUP)?;
    Ok(())
}
