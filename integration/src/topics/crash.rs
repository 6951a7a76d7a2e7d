//! The runtime is ended by SIGKILL before each syscall of each operation, once its own process and once the init's:
//! afterwards `state` tells the truth about what lives, and one `delete --force` leaves nothing.
//!
//! Every point is swept, except that of create with maps and hooks it is every third. `SWEEP=full` sweeps all of that too,
//! `SWEEP=N` every Nth point of all (a peer makes thousands of syscalls).

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use nix::mount::{MntFlags, umount2};
use serde_json::{Value, json};

use crate::harness::{
    Bundle, Ctx, Result, check,
    context::path,
    look, tests,
    trace::{self, Role},
};

tests! {
    create_parent;
    create_init;
    create_with_maps_and_hooks_parent;
    create_with_maps_and_hooks_init;
    run_parent;
    run_init;
    start_parent;
    start_init;
    kill_parent;
    delete_parent;
    delete_force_parent;
}

fn create_parent(ctx: &Ctx) -> Result {
    sweep(ctx, Operation::Create, Role::Parent)
}

fn create_init(ctx: &Ctx) -> Result {
    sweep(ctx, Operation::Create, Role::Init)
}

fn create_with_maps_and_hooks_parent(ctx: &Ctx) -> Result {
    sweep(ctx, Operation::CreateMore, Role::Parent)
}

fn create_with_maps_and_hooks_init(ctx: &Ctx) -> Result {
    sweep(ctx, Operation::CreateMore, Role::Init)
}

fn run_parent(ctx: &Ctx) -> Result {
    sweep(ctx, Operation::Run, Role::Parent)
}

fn run_init(ctx: &Ctx) -> Result {
    sweep(ctx, Operation::Run, Role::Init)
}

fn start_parent(ctx: &Ctx) -> Result {
    sweep(ctx, Operation::Start, Role::Parent)
}

fn start_init(ctx: &Ctx) -> Result {
    sweep(ctx, Operation::Start, Role::Init)
}

fn kill_parent(ctx: &Ctx) -> Result {
    sweep(ctx, Operation::Kill, Role::Parent)
}

fn delete_parent(ctx: &Ctx) -> Result {
    sweep(ctx, Operation::Delete, Role::Parent)
}

fn delete_force_parent(ctx: &Ctx) -> Result {
    sweep(ctx, Operation::DeleteForce, Role::Parent)
}

/// What is interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Create,
    /// With a user namespace and hooks: more messages between parent and init.
    CreateMore,
    /// In the foreground, of a workload that ends by itself.
    Run,
    Start,
    /// With SIGKILL.
    Kill,
    /// Of a stopped container.
    Delete,
    /// Of a running container.
    DeleteForce,
}

impl Operation {
    fn stride(self) -> usize {
        match std::env::var("SWEEP").ok().as_deref() {
            Some("full") => 1,
            Some(number) => number.parse().unwrap_or(1).max(1),
            None if self == Operation::CreateMore => 3,
            None => 1,
        }
    }
}

/// The container that every point is tried with.
struct Case<'a> {
    ctx: &'a Ctx,
    operation: Operation,
    role: Role,
    id: String,
    bundle: Bundle,
    pid_file: PathBuf,
    /// What the operation prints on standard error.
    errors: PathBuf,
    /// Its cgroup below a hierarchy's mount.
    group: String,
}

fn sweep(ctx: &Ctx, operation: Operation, role: Role) -> Result {
    let case = Case::new(ctx, operation, role)?;
    let recorded = case.point(None)?;
    check!(
        recorded.code == Some(0),
        "undisturbed: {:?} {}",
        recorded.code,
        fs::read_to_string(&case.errors)?
    );
    check!(recorded.wrong.is_empty(), "undisturbed: {}", recorded.wrong);
    let total = recorded.counts[role as usize];
    check!(total > 0, "the {role:?} made no syscall in {operation:?}");
    let (mut swept, mut missed, mut wrong) = (0, 0, Vec::new());
    for number in (1..=total).step_by(operation.stride()) {
        let point = case.point(Some((role, number)))?;
        swept += 1;
        missed += usize::from(point.killed.is_none());
        if !point.wrong.is_empty() {
            let syscall = point.killed.unwrap_or_else(|| "none".into());
            wrong.push(format!("#{number} (before syscall {syscall}): {}", point.wrong));
        }
    }
    println!("{swept} of {total} points swept, {missed} not reached, {} wrong", wrong.len());
    check!(wrong.is_empty(), "\n  {}", wrong.join("\n  "));
    // How many syscalls a run makes may vary a little; a sweep that mostly misses is none.
    check!(missed * 10 <= swept, "{missed} of {swept} points were not reached: what was swept?");
    Ok(())
}

/// What became of one point.
struct Point {
    counts: [usize; 2],
    killed: Option<String>,
    /// Exit status of the command, had it one.
    code: Option<i32>,
    /// What is not as it should be; empty when all is well.
    wrong: String,
}

impl<'a> Case<'a> {
    fn new(ctx: &'a Ctx, operation: Operation, role: Role) -> Result<Case<'a>> {
        let mut bundle = ctx.waiting()?;
        if operation == Operation::Run {
            bundle.args(&["/probe", "exit", "0"]);
        }
        if operation == Operation::CreateMore {
            more(&mut bundle)?;
        }
        bundle.write()?;
        let group = bundle.spec["linux"]["cgroupsPath"].as_str().unwrap_or_default().to_owned();
        let id = ctx.id();
        let pid_file = ctx.dir.join("pids").join("pid");
        fs::create_dir_all(ctx.dir.join("pids"))?;
        let errors = ctx.dir.join("traced");
        Ok(Case { ctx, operation, role, id, bundle, pid_file, errors, group })
    }

    fn point(&self, kill_at: Option<(Role, usize)>) -> Result<Point> {
        let adopted = self.prepare()?;
        let trace = trace::run(&self.command(), &self.errors, adopted, kill_at)?;
        let mut wrong = Vec::new();
        wrong.extend(trace.hung.map(|who| format!("hangs: {who}")));
        wrong.extend(self.lie()?);
        let deleted = self.ctx.call(&["delete", "--force", &self.id])?;
        // crun up to 1.27 and youki say no to an id that is not there; so be it.
        if deleted.code != 0 && (self.ctx.kind == "coracle" || self.state_directory().exists()) {
            wrong.push(format!("delete --force: {}", deleted.stderr().trim()));
        }
        wrong.extend(self.left());
        self.sweep_up();
        Ok(Point { counts: trace.counts, killed: trace.killed, code: trace.code, wrong: wrong.join("; ") })
    }

    /// Brings the container to where the operation begins; returns the init that takes part in it.
    fn prepare(&self) -> Result<Option<u32>> {
        if matches!(self.operation, Operation::Create | Operation::CreateMore | Operation::Run) {
            return Ok(None);
        }
        self.ctx.finish(self.create())?.succeeded("create")?;
        if self.operation == Operation::Start {
            let pid = fs::read_to_string(&self.pid_file)?.parse()?;
            return Ok((self.role == Role::Init).then_some(pid));
        }
        self.ctx.call(&["start", &self.id])?.succeeded("start")?;
        if self.operation == Operation::Delete {
            self.ctx.call(&["kill", &self.id, "KILL"])?.succeeded("kill")?;
            settle(|| living().is_empty());
        }
        Ok(None)
    }

    fn create(&self) -> Command {
        let (bundle, pid_file) = (path(&self.bundle.dir), path(&self.pid_file));
        self.ctx.command(&["create", "--bundle", bundle, "--pid-file", pid_file, &self.id])
    }

    fn command(&self) -> Command {
        let id = self.id.as_str();
        match self.operation {
            Operation::Create | Operation::CreateMore => self.create(),
            Operation::Run => self.ctx.command(&["run", "--bundle", path(&self.bundle.dir), id]),
            Operation::Start => self.ctx.command(&["start", id]),
            Operation::Kill => self.ctx.command(&["kill", id, "KILL"]),
            Operation::Delete => self.ctx.command(&["delete", id]),
            Operation::DeleteForce => self.ctx.command(&["delete", "--force", id]),
        }
    }

    fn state_directory(&self) -> PathBuf {
        self.ctx.state_root().join(&self.id)
    }

    /// What `state` says that is not so. A process may be about to die: only a lie that stays is one.
    fn lie(&self) -> Result<Option<String>> {
        let mut lie = None;
        let mut failed = Ok(());
        settle(|| {
            match self.lie_now() {
                Ok(found) => lie = found,
                Err(error) => failed = Err(error),
            }
            lie.is_none()
        });
        failed.map(|()| lie)
    }

    fn lie_now(&self) -> Result<Option<String>> {
        if !self.state_directory().exists() {
            return Ok(None);
        }
        let output = self.ctx.call(&["state", &self.id])?;
        let Ok(state) = serde_json::from_str::<Value>(&output.stdout()) else {
            return Ok(Some(format!("state exits {} and says {:?}", output.code, output.stderr().trim())));
        };
        let (status, pid) =
            (state["status"].as_str().unwrap_or("absent"), state["pid"].as_u64().unwrap_or(0));
        let living = living();
        let named = living.iter().any(|living| u64::from(*living) == pid);
        let works = look::proc(u32::try_from(pid)?, "comm").is_ok_and(|name| name == "probe");
        let true_words = match status {
            "creating" => named && !works,
            "created" => named && !works,
            "running" => named && works,
            "stopped" => living.is_empty(),
            _ => false,
        };
        Ok((!true_words).then(|| format!("state says {status} with pid {pid} while {living:?} live")))
    }

    /// What is left after the deletion.
    fn left(&self) -> Vec<String> {
        settle(|| living().is_empty());
        let mut left: Vec<String> = living().into_iter().map(look::command_line).collect();
        left.extend(self.groups().into_iter().map(|group| format!("cgroup {}", group.display())));
        let files = [self.ctx.state_root(), self.ctx.dir.join("pids")];
        let entries = files.iter().flat_map(|dir| fs::read_dir(dir).into_iter().flatten().flatten());
        // The pid file is the caller's.
        let files = entries.map(|entry| entry.path()).filter(|file| *file != self.pid_file);
        left.extend(files.map(|file| file.display().to_string()));
        left.extend(self.mounts().into_iter().map(|mount| format!("mount {mount}")));
        left.into_iter().map(|what| format!("left: {what}")).collect()
    }

    fn mounts(&self) -> Vec<String> {
        let mounts =
            look::mounts(std::process::id()).unwrap_or_default().into_iter().map(|mount| mount.point);
        mounts.filter(|point| Path::new(point).starts_with(&self.ctx.dir)).collect()
    }

    fn groups(&self) -> Vec<PathBuf> {
        let mounts = look::mounts(std::process::id()).unwrap_or_default();
        let hierarchies = mounts.into_iter().filter(|mount| mount.kind.starts_with("cgroup"));
        hierarchies
            .map(|mount| PathBuf::from(format!("{}{}", mount.point, self.group)))
            .filter(|group| group.exists())
            .collect()
    }

    /// So that what one point left does not count against the next.
    fn sweep_up(&self) {
        look::kill_and_reap_all();
        for mount in self.mounts() {
            let _ = umount2(mount.as_str(), MntFlags::MNT_DETACH);
        }
        let _ = fs::remove_dir_all(self.state_directory());
        let _ = fs::remove_dir_all(self.ctx.dir.join("pids"));
        let _ = fs::create_dir(self.ctx.dir.join("pids"));
        for group in self.groups() {
            let _ = fs::remove_dir(group);
        }
        for file in fs::read_dir(&self.ctx.dir).into_iter().flatten().flatten() {
            let name = file.file_name();
            if name.to_string_lossy().starts_with("out") || name.to_string_lossy().starts_with("err") {
                let _ = fs::remove_file(file.path());
            }
        }
    }
}

fn more(bundle: &mut Bundle) -> Result {
    bundle.user_namespace(100_000, 65_536)?;
    for kind in ["prestart", "createRuntime", "createContainer", "poststop"] {
        bundle.push(&format!("/hooks/{kind}"), json!({"path": "/bin/true"}));
    }
    Ok(())
}

/// The processes that live below this test, which is a subreaper: none of them the runtime's, for it was ended.
fn living() -> Vec<u32> {
    look::descendants(std::process::id()).into_iter().filter(|pid| !look::is_zombie(*pid)).collect()
}

/// Gives the kernel a second to bring it about.
fn settle(mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() && begin.elapsed() < Duration::from_secs(1) {
        std::thread::sleep(Duration::from_millis(2));
    }
}
