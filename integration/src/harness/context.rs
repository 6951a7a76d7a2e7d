//! What one running test has: the runtime under test, a directory, a state root and names of its own. When the test
//! has ended, everything that it and the runtime made is looked for again: nothing may be left.

use std::{
    cell::{Cell, RefCell},
    fs::{self, File},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::{Bundle, Container, Output, Result, bundle, check, check_eq, container::until, host::Host, look};

/// One test's surroundings.
pub(crate) struct Ctx {
    /// The runtime under test.
    pub(crate) runtime: PathBuf,
    /// Its name, from the first word of `--version`: coracle, runc, crun, youki.
    pub(crate) kind: String,
    /// The machine.
    pub(crate) host: Host,
    /// A directory of this test's own.
    pub(crate) dir: PathBuf,
    /// What is wrong although the test function did not say so, such as a container that could not be deleted.
    pub(crate) complaints: RefCell<Vec<String>>,
    /// A syscall that the kernel shall not have: the runtime is run under strace(1), which answers ENOSYS.
    pub(crate) missing: Cell<Option<&'static str>>,
    store: PathBuf,
    prefix: String,
    count: Cell<u32>,
    mounts_before: String,
}

impl Ctx {
    /// Surroundings for one test in `work`, where the runner has put the store.
    pub(crate) fn new(runtime: &Path, work: &Path) -> Result<Ctx> {
        // Process ids come again within one run: the time tells two tests apart that had the same.
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
        let prefix = format!("it{}x{:x}", std::process::id(), now.as_millis() & 0xff_ffff);
        let dir = work.join(&prefix);
        fs::create_dir_all(dir.join("state"))?;
        fs::set_permissions(dir.join("state"), fs::Permissions::from_mode(0o711))?;
        Ok(Ctx {
            kind: kind(runtime)?,
            runtime: runtime.to_owned(),
            host: Host::look(),
            dir,
            complaints: RefCell::default(),
            missing: Cell::new(None),
            store: work.join("store"),
            prefix,
            count: Cell::new(0),
            mounts_before: fs::read_to_string("/proc/self/mountinfo")?,
        })
    }

    /// What lies in the state root. A name with an `@` cannot be a container's: that is what a runtime keeps for all.
    pub(crate) fn records(&self) -> Result<Vec<String>> {
        let entries = fs::read_dir(self.state_root())?.flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        Ok(names.filter(|name| !name.starts_with('@')).collect())
    }

    /// A container id that nobody else on this machine uses.
    pub(crate) fn id(&self) -> String {
        format!("{}-{}", self.prefix, self.next())
    }

    fn next(&self) -> u32 {
        self.count.set(self.count.get() + 1);
        self.count.get()
    }

    /// Where the programs of the tests' root file system lie.
    pub(crate) fn image_store(&self) -> PathBuf {
        self.store.clone()
    }

    /// The `--root` that this test gives the runtime.
    pub(crate) fn state_root(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// A bundle like the one `spec` writes, fit for whoever runs the test.
    pub(crate) fn bundle(&self) -> Result<Bundle> {
        let name = format!("bundle{}", self.next());
        let group = format!("/coracle-test/{}-{name}", self.prefix);
        let spec = bundle::default_spec(self.host.cgroup2, &group);
        let mut bundle = Bundle::new(self.dir.join(name), &self.store, spec)?;
        if !self.host.root {
            rootless(&mut bundle, nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        }
        Ok(bundle)
    }

    /// A bundle whose program is a shell script.
    pub(crate) fn shell(&self, script: &str) -> Result<Bundle> {
        let mut bundle = self.bundle()?;
        bundle.shell(script);
        Ok(bundle)
    }

    /// A bundle whose program waits until it is killed.
    pub(crate) fn waiting(&self) -> Result<Bundle> {
        let mut bundle = self.bundle()?;
        bundle.args(&["/probe", "wait"]);
        Ok(bundle)
    }

    /// The runtime with this test's `--root`, and words after it. Nothing on standard input.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = match self.missing.get() {
            Some(name) => without(name, &self.runtime),
            None => Command::new(&self.runtime),
        };
        command.arg("--root").arg(self.state_root()).args(words).stdin(Stdio::null()).current_dir(&self.dir);
        command
    }

    /// The same under strace(1), which has these flags besides those that keep it quiet.
    pub(crate) fn traced(&self, flags: &[&str], words: &[&str]) -> Command {
        let mut command = Command::new("strace");
        command.args(["-qqq", "-o", "/dev/null"]).args(flags).arg(&self.runtime);
        command.arg("--root").arg(self.state_root()).args(words).stdin(Stdio::null()).current_dir(&self.dir);
        command
    }

    /// Runs the runtime with these words to its end. Output goes through files: a container that outlives the
    /// command keeps them open, and a pipe would never end.
    pub(crate) fn call(&self, words: &[&str]) -> Result<Output> {
        self.finish(self.command(words))
    }

    /// `exec` with these words before and after the id.
    pub(crate) fn exec(&self, container: &Container, flags: &[&str], program: &[&str]) -> Result<Output> {
        self.call(&[&["exec"], flags, &[&container.id], program].concat())
    }

    /// Runs a prepared command to its end, keeping what it prints.
    pub(crate) fn finish(&self, mut command: Command) -> Result<Output> {
        let number = self.next();
        let (out, err) = (self.dir.join(format!("out{number}")), self.dir.join(format!("err{number}")));
        let status = command.stdout(File::create(&out)?).stderr(File::create(&err)?).status()?;
        Ok(Output::new(&status, out, err))
    }

    /// A shell script in a scope of the user's own systemd, whose control group is the user's (Delegate=yes in
    /// systemd.resource-control(5)). It finds the runtime, its state root and the bundle in RUNTIME, STATE and BUNDLE.
    pub(crate) fn delegated(&self, script: &str, bundle: &Bundle) -> Command {
        let mut command = Command::new("systemd-run");
        command.args(["--user", "--scope", "--quiet", "--property", "Delegate=yes", "/bin/sh", "-c", script]);
        command.env("RUNTIME", &self.runtime).env("STATE", self.state_root()).env("BUNDLE", &bundle.dir);
        command
    }

    /// `run` in the foreground, to the end of the workload.
    pub(crate) fn run(&self, bundle: &Bundle) -> Result<Output> {
        self.run_with(&[], bundle)
    }

    /// `run` with further flags.
    pub(crate) fn run_with(&self, flags: &[&str], bundle: &Bundle) -> Result<Output> {
        bundle.write()?;
        let container = Container::named(self, self.id(), &bundle.dir);
        let mut words = vec!["run", "--bundle", path(&bundle.dir)];
        words.extend(flags);
        words.push(&container.id);
        self.call(&words)
    }

    /// `run`, which must succeed and print the probe's report.
    pub(crate) fn report(&self, bundle: &Bundle) -> Result<serde_json::Value> {
        let output = self.run(bundle)?;
        check_eq!(output.code, 0, "run ({})", output.stderr());
        Ok(serde_json::from_str(&output.stdout())?)
    }

    /// `run`, which must succeed; its standard output without the last newline.
    pub(crate) fn stdout(&self, bundle: &Bundle) -> Result<String> {
        let output = self.run(bundle)?;
        check_eq!(output.code, 0, "run ({})", output.stderr());
        Ok(output.stdout().trim_end().to_owned())
    }

    /// `create`, which must succeed.
    pub(crate) fn create(&self, bundle: &Bundle) -> Result<Container<'_>> {
        self.create_with(&[], bundle)
    }

    /// `create` with further flags, which must succeed.
    pub(crate) fn create_with(&self, flags: &[&str], bundle: &Bundle) -> Result<Container<'_>> {
        bundle.write()?;
        let mut container = Container::named(self, self.id(), &bundle.dir);
        container.create(flags)?;
        Ok(container)
    }

    /// `create` and `start`, which must succeed.
    pub(crate) fn started(&self, bundle: &Bundle) -> Result<Container<'_>> {
        let container = self.create(bundle)?;
        container.start()?;
        Ok(container)
    }

    /// `create`, which must be refused with a message that has each of the `words`, and leave nothing.
    pub(crate) fn refused(&self, bundle: &Bundle, words: &[&str]) -> Result<Output> {
        bundle.write()?;
        self.refused_as_written(&bundle.dir, words)
    }

    /// Like `refused`, for a bundle directory that is what it is.
    pub(crate) fn refused_as_written(&self, bundle: &Path, words: &[&str]) -> Result<Output> {
        let container = Container::named(self, self.id(), bundle);
        let output = self.call(&["create", "--bundle", path(bundle), &container.id])?;
        check!(output.code != 0, "create succeeded although it should be refused");
        let message = output.stderr();
        check!(!message.trim().is_empty(), "create failed without a word on stderr");
        for word in words {
            check!(message.contains(word), "the message lacks {word:?}: {message}");
        }
        let state = self.call(&["state", &container.id])?;
        check!(state.code != 0, "a refused create left state: {}", state.stdout());
        Ok(output)
    }

    /// Whether the runtime knows the subcommand.
    pub(crate) fn has_command(&self, name: &str) -> bool {
        let mut command = Command::new(&self.runtime);
        command.args([name, "--help"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    }

    /// Notes something wrong that must fail the test whatever its function returns.
    pub(crate) fn complain(&self, sentence: String) {
        self.complaints.borrow_mut().push(sentence);
    }

    /// The mounts, control groups and records of this test that are there now, each as a sentence.
    pub(crate) fn left(&self) -> Result<Vec<String>> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let new = |line: &&str| line.contains(&self.prefix) && !self.mounts_before.contains(line);
        let mounts = mounts.lines().filter(new).map(|line| format!("mount left: {line}"));
        let groups = look::test_cgroups(&self.prefix).into_iter();
        let groups = groups.map(|group| format!("cgroup left: {}", group.display()));
        let records = self.records()?.into_iter().map(|name| format!("state left: {name}"));
        Ok(mounts.chain(groups).chain(records).collect())
    }

    /// After the test: every complaint there is, and nothing left of it on the machine.
    pub(crate) fn verify_clean(&self) -> Result {
        for pid in look::descendants(std::process::id()) {
            // A dead orphan is nobody's fault: it only waits for this subreaper to ask.
            if !look::is_dead(pid) {
                self.complain(format!("process left: {}", look::command_line(pid)));
            }
        }
        look::kill_and_reap_all();
        self.left()?.into_iter().for_each(|what| self.complain(what));
        // Wherever they are: a runtime may have made one elsewhere than it was told.
        for group in look::cgroups_named(&self.prefix) {
            self.complain(format!("cgroup left: {}", group.display()));
            let _ = fs::remove_dir(group);
        }
        let complaints = self.complaints.borrow();
        check!(complaints.is_empty(), "{}", complaints.join("; "));
        Ok(())
    }
}

/// The program on a kernel without this syscall. With `-D` it is the tracer that is the grandchild: the command ends when
/// the program does, and the container's init is traced on.
fn without(syscall: &str, program: &Path) -> Command {
    let mut command = Command::new("strace");
    let (calls, error) = syscall.split_once(':').unwrap_or((syscall, "ENOSYS"));
    command.args(["-D", "-f", "-qqq", "-o", "/dev/null", "-e", &format!("trace={calls}")]);
    command.args(["-e", &format!("inject={calls}:error={error}")]).arg(program);
    command
}

/// Waits for the tracers of [`Ctx::missing`], and others of this test: one ends when the last process that it traced has.
pub(crate) fn tracers_end() -> Result {
    until("strace ends", || {
        let left = look::descendants(std::process::id());
        Ok((!left.iter().any(|pid| look::command_line(*pid).contains("strace"))).then_some(()))
    })
}

/// The path as text; the tests make no other paths.
pub(crate) fn path(path: &Path) -> &str {
    path.to_str().unwrap_or("?")
}

/// What `spec --rootless` changes, for this user.
pub(crate) fn rootless(bundle: &mut Bundle, uid: u32, gid: u32) {
    let map = |id: u32| serde_json::json!([{"containerID": 0, "hostID": id, "size": 1}]);
    bundle.namespace("user", None).without_namespace("network");
    bundle.set("/linux/uidMappings", map(uid)).set("/linux/gidMappings", map(gid));
    bundle.remove("/linux/resources").remove("/linux/cgroupsPath");
    if let Some(mounts) = bundle.spec["mounts"].as_array_mut() {
        mounts.retain(|mount| mount["destination"] != "/sys/fs/cgroup");
        for mount in mounts {
            if mount["destination"] == "/sys" {
                *mount = serde_json::json!({"destination": "/sys", "type": "none", "source": "/sys",
                    "options": ["rbind", "nosuid", "noexec", "nodev", "ro"]});
            }
            if let Some(options) = mount["options"].as_array_mut() {
                options.retain(|option| option != "gid=5");
            }
        }
    }
}

fn kind(runtime: &Path) -> Result<String> {
    let version =
        Command::new(runtime).arg("--version").output().map_err(|e| format!("{}: {e}", runtime.display()))?;
    let text = String::from_utf8_lossy(&version.stdout).into_owned();
    Ok(text.split_whitespace().next().unwrap_or("unknown").to_owned())
}
