//! Notices of the kernel killing for want of memory: memory.events of v2 (cgroup-v2.rst), cgroup.event_control of v1
//! (cgroup-v1/memory.rst, OOM Control). Waited for by poll, with the end of the container.

use super::{Cgroup, c, write};
use crate::failure::{Doing, Result};
use coracle_sys::{fs, libc, poll};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// A small file from its beginning: that is what arms its poll again.
fn whole(file: &OwnedFd) -> Option<String> {
    let mut buffer = [0; 1024];
    let n = fs::pread(file.as_fd(), &mut buffer, 0).ok()?;
    Some(String::from_utf8_lossy(&buffer[..n]).into_owned())
}

/// What woke the watcher.
#[derive(Debug, PartialEq, Eq)]
pub enum Woken {
    /// The kernel killed.
    Oom,
    /// The time is over.
    Time,
    /// The container is over.
    End,
}

/// A watch over a group.
pub struct Watch {
    dir: String,
    v2: bool,
    /// memory.events, or v1's eventfd. `None` where the host does not count memory.
    events: Option<OwnedFd>,
    /// cgroup.events of v2.
    life: Option<OwnedFd>,
    kills: u64,
}

impl Cgroup {
    /// Begins to watch. Errors: the kernel takes no v1 notification.
    pub fn watch(&self) -> Result<Watch> {
        if self.v2 {
            let open = |file: &str| fs::open(&c(&format!("{}/{file}", self.dirs[0])), libc::O_RDONLY, 0).ok();
            let (dir, events, life) = (self.dirs[0].clone(), open("memory.events"), open("cgroup.events"));
            let mut watch = Watch { dir, v2: true, events, life, kills: 0 };
            watch.kills = watch.count();
            return Ok(watch);
        }
        let dir = self.homes()?("memory").unwrap_or_default();
        let events = v1_notices(&dir)?;
        Ok(Watch { dir, v2: false, events, life: None, kills: 0 })
    }
}

fn v1_notices(dir: &str) -> Result<Option<OwnedFd>> {
    let Ok(control) = fs::open(&c(&format!("{dir}/memory.oom_control")), libc::O_RDONLY, 0) else {
        return Ok(None);
    };
    let event = poll::eventfd().doing(|| "making an eventfd".into())?;
    let line = format!("{} {}", event.as_raw_fd(), control.as_raw_fd());
    write(dir, "cgroup.event_control", &line).doing(|| format!("asking {dir} for notices"))?;
    Ok(Some(event))
}

impl Watch {
    /// Waits for the next event, at most so many milliseconds; `init` ends it when it dies.
    pub fn wait(&mut self, init: BorrowedFd, limit: i32) -> Result<Woken> {
        let mut wanted = vec![(init, libc::POLLIN)];
        let kind = if self.v2 { libc::POLLPRI } else { libc::POLLIN };
        wanted.extend(self.events.as_ref().map(|e| (e.as_fd(), kind)));
        wanted.extend(self.life.as_ref().map(|e| (e.as_fd(), kind)));
        let ready = poll::poll(&wanted, limit).doing(|| "waiting for events".into())?;
        let over = ready[0] != 0 || (self.v2 && self.empty());
        if self.killed() {
            return Ok(Woken::Oom);
        }
        Ok(if over { Woken::End } else { Woken::Time })
    }

    /// Whether the kernel killed since the last question.
    fn killed(&mut self) -> bool {
        if !self.v2 {
            let mut count = [0; 8];
            let ready = |e: &OwnedFd| poll::poll(&[(e.as_fd(), libc::POLLIN)], 0).is_ok_and(|r| r[0] != 0);
            // The end of the group makes it ready too.
            return self
                .events
                .as_ref()
                .filter(|e| ready(e))
                .is_some_and(|e| fs::read(e.as_fd(), &mut count).is_ok() && super::exists(&self.dir));
        }
        let before = self.kills;
        self.kills = self.count().max(before);
        self.kills > before
    }

    fn count(&self) -> u64 {
        let again = self.events.as_ref().and_then(whole).unwrap_or_default();
        again.lines().find_map(|l| l.strip_prefix("oom_kill ")?.parse().ok()).unwrap_or(0)
    }

    fn empty(&self) -> bool {
        let text = self.life.as_ref().and_then(whole);
        text.is_none_or(|t| t.contains("populated 0"))
    }
}
