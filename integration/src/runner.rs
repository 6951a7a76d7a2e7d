//! The runner: each test in a process of its own, which is a subreaper, so that a crash, a hang or an orphan is that
//! test's alone; one line per test, and at the end exactly `N passed, N failed, N skipped`.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
    sys::prctl::set_child_subreaper,
};

use crate::{
    harness::{Ctx, Need, Result, Test, host::Host, look, rootfs},
    options::Options,
    topics,
};

const CGROUP: &str = "/sys/fs/cgroup";
/// The parent of the cgroups that the default bundle asks for.
const TEST_CGROUP: &str = "coracle-test";
/// How `--run-one` says that the test was skipped; other codes are a pass (0) and a failure.
const SKIPPED: u8 = 77;

#[derive(Default)]
struct Tally {
    passed: usize,
    failed: usize,
    skipped: usize,
}

/// Runs what the options ask for.
pub(crate) fn main(options: &Options) -> ExitCode {
    match run(options) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("coracle-integration: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<ExitCode> {
    if options.private_cgroup2 {
        private_cgroup2()?;
    }
    let chosen: Vec<(String, &Test)> = topics::all().filter(|(name, _)| wanted(name, options)).collect();
    if options.list {
        chosen.iter().for_each(|(name, test)| println!("{name} {:?}", test.needs));
        return Ok(ExitCode::SUCCESS);
    }
    println!("host: {}", Host::look().describe());
    if options.needs {
        return Ok(ExitCode::SUCCESS);
    }
    let runtime = runtime()?;
    println!("runtime: {}", runtime.display());
    let work = Work::new()?;
    let tally = run_all(options, &chosen, &runtime, &work.0);
    remove_test_cgroups();
    if let Some(file) = &options.tally {
        let mut file = fs::OpenOptions::new().append(true).create(true).open(file)?;
        writeln!(file, "{} {} {}", tally.passed, tally.failed, tally.skipped)?;
    }
    println!("{} passed, {} failed, {} skipped", tally.passed, tally.failed, tally.skipped);
    Ok(if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn wanted(name: &str, options: &Options) -> bool {
    let among = |words: &[String]| words.iter().any(|word| name.contains(word));
    (options.filters.is_empty() || among(&options.filters)) && !among(&options.except)
}

/// The runtime under test: `RUNTIME`, else the coracle that stands beside this binary.
fn runtime() -> Result<PathBuf> {
    let path = match std::env::var_os("RUNTIME") {
        Some(path) => PathBuf::from(path),
        None => std::env::current_exe()?.with_file_name("coracle"),
    };
    fs::canonicalize(&path).map_err(|e| format!("runtime {}: {e}", path.display()).into())
}

/// The run's directory, removed at the end.
struct Work(PathBuf);

impl Work {
    fn new() -> Result<Work> {
        let path = std::env::temp_dir().join(format!("coracle-integration-{}", std::process::id()));
        fs::create_dir(&path)?;
        let work = Work(path);
        rootfs::prepare_store(&work.0.join("store"))?;
        Ok(work)
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn run_all(options: &Options, chosen: &[(String, &Test)], runtime: &Path, work: &Path) -> Tally {
    let (next, tally) = (AtomicUsize::new(0), Mutex::new(Tally::default()));
    std::thread::scope(|scope| {
        for _ in 0..options.jobs.max(1) {
            scope.spawn(|| {
                while let Some((name, _)) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let begin = Instant::now();
                    let end = run_process(name, runtime, work, options.timeout);
                    let seconds = begin.elapsed().as_secs_f64();
                    let mut tally = tally.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    print_end(name, &end, seconds, &mut tally);
                }
            });
        }
    });
    tally.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn print_end(name: &str, end: &(Option<u8>, String), seconds: f64, tally: &mut Tally) {
    let reason = end.1.trim();
    match end.0 {
        Some(0) => {
            tally.passed += 1;
            println!("PASS {name} ({seconds:.2} s){}{reason}", if reason.is_empty() { "" } else { " " });
        }
        Some(SKIPPED) => {
            tally.skipped += 1;
            println!("SKIP {name}: {reason}");
        }
        _ => {
            tally.failed += 1;
            println!("FAIL {name} ({seconds:.2} s): {reason}");
        }
    }
}

/// One test's process: its exit code (`None` for a timeout or a signal) and what it printed.
fn run_process(name: &str, runtime: &Path, work: &Path, timeout: u64) -> (Option<u8>, String) {
    match spawn(name, runtime, work) {
        Ok((mut child, log)) => {
            let code = wait(&mut child, Duration::from_secs(timeout));
            let mut text = fs::read_to_string(&log).unwrap_or_default();
            if code.is_none() {
                text.push_str(" the test did not end in time, or by a signal");
            }
            (code, text)
        }
        Err(error) => (None, error.to_string()),
    }
}

fn spawn(name: &str, runtime: &Path, work: &Path) -> Result<(Child, PathBuf)> {
    let log = work.join(format!("{}.log", name.replace('/', "-")));
    let file = fs::File::create(&log)?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--run-one", name]).arg(runtime).arg(work).stdin(Stdio::null());
    let child = command.stdout(file.try_clone()?).stderr(file).spawn()?;
    Ok((child, log))
}

fn wait(child: &mut Child, timeout: Duration) -> Option<u8> {
    let begin = Instant::now();
    while begin.elapsed() < timeout {
        match child.try_wait() {
            Ok(Some(status)) => return status.code().and_then(|code| u8::try_from(code).ok()),
            Ok(None) => std::thread::sleep(Duration::from_millis(5)),
            Err(_) => return None,
        }
    }
    // The test process last: while it lives, orphans below it stay below it.
    let below = look::descendants(child.id());
    below.iter().rev().for_each(|pid| look::kill_and_reap(*pid));
    let _ = child.kill();
    let _ = child.wait();
    None
}

/// The process of one test: `--run-one NAME RUNTIME WORK`.
pub(crate) fn one(words: &[String]) -> ExitCode {
    let [name, runtime, work] = words else { return ExitCode::from(2) };
    let Some((_, test)) = topics::all().find(|(known, _)| known == name) else { return ExitCode::from(2) };
    match run_one(test, Path::new(runtime), Path::new(work)) {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(reason)) => {
            println!("{reason}");
            ExitCode::from(SKIPPED)
        }
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs one test and looks for what it left; a reason means that it was skipped.
fn run_one(test: &Test, runtime: &Path, work: &Path) -> Result<Option<String>> {
    // A mode of creation that surprises nobody's expectations of permissions.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    set_child_subreaper(true)?;
    let ctx = Ctx::new(runtime, work)?;
    let missing =
        implied(test).chain(test.needs.iter().copied()).find_map(|need| need.missing(&ctx.host, &ctx));
    if missing.is_some() {
        return Ok(missing);
    }
    let ended = (test.run)(&ctx);
    let clean = ctx.verify_clean();
    let result = match (ended, clean) {
        (Err(one), Err(two)) => Err(format!("{one}; {two}").into()),
        (one, two) => one.and(two),
    };
    let _ = fs::remove_dir_all(&ctx.dir);
    match (result, test.known.iter().find(|(kind, _)| *kind == ctx.kind && ctx.kind != "coracle")) {
        // How a peer differs, in full: whether what is known of it is true.
        (Err(error), Some(_)) if std::env::var_os("KNOWN").is_some_and(|word| word == "fail") => Err(error),
        (Err(error), Some((kind, why))) => {
            let error: String = error.to_string().chars().take(160).collect();
            Ok(Some(format!("known: {kind}: {why} ({error})")))
        }
        (Ok(()), Some((kind, why))) => {
            println!("(no longer so: {kind}: {why})");
            Ok(None)
        }
        (result, None) => result.map(|()| None),
    }
}

fn implied(test: &Test) -> impl Iterator<Item = Need> {
    let unprivileged = test.needs.iter().any(|need| matches!(need, Need::Unprivileged));
    (!unprivileged).then_some(Need::Root).into_iter()
}

/// A mount namespace of our own in which /sys/fs/cgroup is one cgroup2 mount, whatever the host has there.
fn private_cgroup2() -> Result {
    unshare(CloneFlags::CLONE_NEWNS).map_err(|e| format!("unshare(CLONE_NEWNS): {e}"))?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    let mounts = look::mounts(std::process::id())?;
    let below = mounts.iter().map(|mount| &mount.point).filter(|point| Path::new(point).starts_with(CGROUP));
    for point in below.rev() {
        umount2(point.as_str(), MntFlags::MNT_DETACH).map_err(|e| format!("umount2({point}): {e}"))?;
    }
    mount(Some("cgroup2"), CGROUP, Some("cgroup2"), MsFlags::empty(), None::<&str>)
        .map_err(|e| format!("mount(cgroup2, {CGROUP}): {e}"))?;
    Ok(())
}

/// The parent that the default bundles' cgroups stood in, in every hierarchy. It stays where something is still in it.
fn remove_test_cgroups() {
    for group in look::cgroups_named(TEST_CGROUP) {
        let _ = fs::remove_dir(group);
    }
}
