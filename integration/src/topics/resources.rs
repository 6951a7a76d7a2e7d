//! Resources as a table: input → the kernel's files and systemd's properties, at create and after update; and beside runc and
//! crun on the same machine and input, where every difference is one that is known and explained.

use std::{
    ffi::OsString,
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};

use crate::harness::{
    Bundle, Container, Ctx, Need, Output, Result, check, check_eq,
    container::until,
    context::path,
    look,
    socket::{BreakOff, breaking_bus},
    tests,
};

tests! {
    files_are_as_the_table_says [Need::CgroupV2, Need::Controller("memory"), Need::Controller("cpuset")];
    files_of_v1_are_as_asked [Need::File("/sys/fs/cgroup/memory/memory.swappiness"), Need::File("/sys/fs/cgroup/cpu/cpu.rt_period_us"),
        Need::File("/sys/fs/cgroup/blkio/blkio.bfq.io_service_bytes")] known "runc": "before 1.2 passes the burst over";
    a_class_and_priorities_of_the_network_are_set [Need::Root, Need::Systemd, Need::CgroupV2];
    systemd_knows_what_the_files_say [Need::CgroupV2, Need::Controller("memory"), Need::Controller("cpuset"), Need::Systemd];
    systemd_knows_what_an_update_says [Need::CgroupV2, Need::Controller("memory"), Need::Controller("cpuset"), Need::Systemd];
    weights_stay_when_systemd_writes_again [Need::CgroupV2, Need::Controller("io"), Need::Systemd];
    peers_write_the_same [Need::CgroupV2, Need::Controller("memory"), Need::File("/usr/sbin/runc"), Need::File("/usr/bin/crun")];
    as_a_user_runtimes_write_the_same [Need::Unprivileged, Need::Systemd, Need::Controller("memory"), Need::Controller("cpuset"),
        Need::File("/usr/sbin/runc"), Need::File("/usr/bin/crun")];
    the_group_belongs_to_the_containers_root [Need::CgroupV2];
    limits_that_are_left_out_are_said
        known "runc": "nothing is said of v2" known "crun": "nothing is said of v1, and not all of v2";
    limits_that_v2_lacks_are_refused [Need::CgroupV2]
        known "runc": "they are left out" known "crun": "leaves the group";
    annotations_become_properties [Need::Systemd, Need::CgroupV2] known "crun": "systemd refuses what it sends";
    an_annotation_takes_no_process_of_the_hosts [Need::Systemd, Need::CgroupV2] known "runc": "moves it into the scope";
    groups_below_a_scope_have_the_processes [Need::Systemd, Need::CgroupV2, Need::Controller("memory")] known "runc": "does not know the annotations";
    a_failed_scope_is_forgotten [Need::Systemd, Need::CgroupV2];
    an_update_of_a_scope_that_fails_changes_nothing [Need::Systemd, Need::CgroupV2, Need::Controller("cpuset")];
    a_bus_that_says_nothing_is_an_error_in_time [Need::Systemd, Need::CgroupV2, Need::Runtime("coracle")];
    a_bus_that_hangs_up_is_an_error_at_once [Need::CgroupV2, Need::Runtime("coracle")];
    a_bus_that_breaks_off_leaves_nothing [Need::Systemd, Need::CgroupV2, Need::Controller("memory"), Need::Runtime("coracle")];
    no_bus_is_an_error_that_says_so [Need::CgroupV2, Need::Runtime("coracle")];
}

/// A line of the table.
struct Row {
    resources: Value,
    /// File, value.
    files: Vec<(String, String)>,
    /// What `systemctl show` says of the scope.
    properties: Vec<String>,
}

/// Every limit that the machine has a controller for. Where two ways lead to one value, the second shows that it is the value
/// that counts: of another unit, from the other end of a scale, or for no limit. `ROWS=WORDS`: only the input with one of the words.
fn table(ctx: &Ctx) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let mut row = |resources, files: &[(&str, &str)], properties: &[&str]| {
        let files = files.iter().map(|(file, value)| ((*file).to_owned(), (*value).to_owned())).collect();
        let properties = properties.iter().map(|property| (*property).to_owned()).collect();
        rows.push(Row { resources, files, properties });
    };
    row(
        json!({"memory": {"limit": 67_108_864, "reservation": 33_554_432, "swap": 100_663_296}}),
        &[("memory.max", "67108864"), ("memory.low", "33554432"), ("memory.swap.max", "33554432")],
        &["MemoryMax=67108864", "MemoryLow=33554432", "MemorySwapMax=33554432"],
    );
    row(
        json!({"memory": {"limit": 67_108_864, "swap": 67_108_864}}),
        &[("memory.max", "67108864"), ("memory.swap.max", "0")],
        &["MemoryMax=67108864", "MemorySwapMax=0"],
    );
    row(
        json!({"memory": {"limit": 67_108_864, "swap": -1}}),
        &[("memory.max", "67108864"), ("memory.swap.max", "max")],
        &["MemoryMax=67108864", "MemorySwapMax=infinity"],
    );
    row(
        json!({"memory": {"limit": -1, "swap": -1}}),
        &[("memory.max", "max"), ("memory.swap.max", "max")],
        &["MemoryMax=infinity", "MemorySwapMax=infinity"],
    );
    row(
        json!({"cpu": {"shares": 4096, "quota": 50_000, "period": 200_000}}),
        &[("cpu.weight", "303"), ("cpu.max", "50000 200000")],
        &["CPUWeight=303", "CPUQuotaPerSecUSec=250ms", "CPUQuotaPeriodUSec=200ms"],
    );
    row(json!({"cpu": {"shares": 2}}), &[("cpu.weight", "1")], &["CPUWeight=1"]);
    row(json!({"cpu": {"shares": 262_144}}), &[("cpu.weight", "10000")], &["CPUWeight=10000"]);
    row(json!({"cpu": {"quota": -1}}), &[("cpu.max", "max 100000")], &["CPUQuotaPerSecUSec=infinity"]);
    row(
        json!({"cpu": {"quota": 50_000, "period": 100_000, "burst": 10_000}}),
        &[("cpu.max", "50000 100000"), ("cpu.max.burst", "10000")],
        &["CPUQuotaPerSecUSec=500ms"],
    );
    row(json!({"cpu": {"idle": 1}}), &[("cpu.idle", "1")], &["CPUWeight=idle"]);
    row(
        json!({"cpu": {"cpus": "0", "mems": "0"}}),
        &[("cpuset.cpus", "0"), ("cpuset.mems", "0")],
        &["AllowedCPUs=0", "AllowedMemoryNodes=0"],
    );
    row(json!({"pids": {"limit": 55}}), &[("pids.max", "55")], &["TasksMax=55"]);
    row(json!({"pids": {"limit": -1}}), &[("pids.max", "max")], &["TasksMax=infinity"]);
    row(
        json!({"memory": {"limit": 33_554_432}, "unified": {"memory.max": "50331648", "memory.high": "41943040", "pids.max": "21"}}),
        &[("memory.max", "50331648"), ("memory.high", "41943040"), ("pids.max", "21")],
        &["MemoryMax=50331648", "MemoryHigh=41943040", "TasksMax=21"],
    );
    if ctx.host.controller("hugetlb") {
        row(
            json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 8_388_608}]}),
            &[("hugetlb.2MB.max", "8388608"), ("hugetlb.2MB.rsvd.max", "8388608")],
            &[],
        );
    }
    if ctx.host.controller("io") {
        let device = look::disk()?;
        let (major, minor) = device.split_once(':').ok_or("a device number")?;
        let (major, minor): (u64, u64) = (major.parse()?, minor.parse()?);
        let rate = |rate: u64| json!([{"major": major, "minor": minor, "rate": rate}]);
        row(
            json!({"blockIO": {
                "throttleReadBpsDevice": rate(1_048_576), "throttleWriteBpsDevice": rate(2_097_152),
                "throttleReadIOPSDevice": rate(100), "throttleWriteIOPSDevice": rate(200),
            }}),
            &[("io.max", &format!("{device} rbps=1048576 wbps=2097152 riops=100 wiops=200"))],
            &[],
        );
        // BFQ's file stands for the cost model's where there is BFQ; systemd makes BFQ's weights of its own.
        let top = Path::new("/sys/fs/cgroup/system.slice");
        let files = [("io.bfq.weight", 500, 300, 4500, 2300), ("io.weight", 4950, 2930, 4950, 2930)];
        let there = files.into_iter().find(|(file, ..)| top.join(file).exists());
        if let Some((file, common, of_disk, unit_common, unit_of_disk)) = there {
            let value = format!("default {common}");
            row(
                json!({"blockIO": {"weight": 500}}),
                &[(file, &value)],
                &[&format!("IOWeight={unit_common}")],
            );
            if weighed(&device)? {
                let property = format!("IODeviceWeight=/dev/block/{device} {unit_of_disk}");
                let weight = json!([{"major": major, "minor": minor, "weight": 300}]);
                let value = format!("default 100, {device} {of_disk}");
                row(json!({"blockIO": {"weightDevice": weight}}), &[(file, &value)], &[&property]);
            }
        }
    }
    if let Some(adapter) = rdma_adapter() {
        row(
            json!({"rdma": {&adapter: {"hcaHandles": 3, "hcaObjects": 100}}}),
            &[("rdma.max", &format!("{adapter} hca_handle=3 hca_object=100"))],
            &[],
        );
    }
    let asked = std::env::var("ROWS").unwrap_or_default();
    if !asked.is_empty() {
        rows.retain(|row| asked.split(' ').any(|word| row.resources.to_string().contains(word)));
    }
    Ok(rows)
}

/// Whether somebody weighs the requests to a disk: BFQ, or the cost model once it is told to (cgroup-v2.rst, io.cost.qos).
fn weighed(device: &str) -> Result<bool> {
    let scheduler = fs::read_to_string(format!("/sys/dev/block/{device}/queue/scheduler"))?;
    let costs = fs::read_to_string("/sys/fs/cgroup/io.cost.qos").unwrap_or_default();
    let told = costs.lines().any(|line| line.starts_with(&format!("{device} enable=1")));
    Ok(scheduler.contains("[bfq]")
        || told && !Path::new("/sys/fs/cgroup/system.slice/io.bfq.weight").exists())
}

/// The machine's first RDMA adapter.
fn rdma_adapter() -> Option<String> {
    let adapter = fs::read_dir("/sys/class/infiniband").ok()?.flatten().next()?;
    adapter.file_name().into_string().ok()
}

fn with(ctx: &Ctx, resources: &Value) -> Result<Bundle> {
    let mut bundle = ctx.waiting()?;
    for (topic, value) in resources.as_object().into_iter().flatten() {
        bundle.set(&format!("/linux/resources/{topic}"), value.clone());
    }
    Ok(bundle)
}

fn update(ctx: &Ctx, id: &str, new: &Value) -> Result {
    let mut child = ctx.command(&["update", "--resources", "-", id]).stdin(Stdio::piped()).spawn()?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(new.to_string().as_bytes())?;
    }
    check!(child.wait()?.success(), "update with {new} failed");
    Ok(())
}

/// Who makes the group, systemd or the runtime, and whether the limits come with create or with an update.
#[derive(Clone, Copy)]
struct Way {
    scope: bool,
    update: bool,
}

const WAYS: [Way; 4] = [
    Way { scope: false, update: false },
    Way { scope: false, update: true },
    Way { scope: true, update: false },
    Way { scope: true, update: true },
];

impl Way {
    fn name(self) -> &'static str {
        match (self.scope, self.update) {
            (false, false) => "create",
            (false, true) => "update",
            (true, false) => "create in a scope",
            (true, true) => "update of a scope",
        }
    }

    /// What is to be seen of a row: names and values.
    fn wanted(self, row: &Row) -> Vec<(String, String)> {
        let properties = row.properties.iter().filter(|_| self.scope);
        let properties =
            properties.filter_map(|p| p.split_once('=')).map(|(n, v)| (n.to_owned(), v.to_owned()));
        row.files.iter().cloned().chain(properties).collect()
    }
}

/// Where the containers of the table are.
struct Place {
    /// systemd's slice and its group.
    slice: &'static str,
    slices: String,
    /// The group above those that systemd does not know of, and the process that holds it.
    plain: String,
    _holder: Option<Holder>,
}

impl Place {
    fn of_root() -> Place {
        let (slices, plain) = ("/system.slice".into(), "/coracle-test".into());
        Place { slice: "system.slice", slices, plain, _holder: None }
    }

    /// In the user's own systemd, and in a group that this was asked to delegate: cgroup-v2.rst, Delegation.
    fn of_user(ctx: &Ctx) -> Result<Place> {
        const SCRIPT: &str = r#"
own=$(sed -n 's/^0:://p' /proc/self/cgroup)
mkdir "/sys/fs/cgroup$own/caller"
echo $$ >"/sys/fs/cgroup$own/caller/cgroup.procs"
echo "$own"
exec sleep infinity
"#;
        let mut holder = Holder(ctx.delegated(SCRIPT, &ctx.bundle()?).stdout(Stdio::piped()).spawn()?);
        let mut plain = String::new();
        BufReader::new(holder.0.stdout.take().ok_or("no output")?).read_line(&mut plain)?;
        let plain = plain.trim().to_owned();
        let slices = plain.rsplit_once('/').map(|(slices, _)| slices.to_owned()).unwrap_or_default();
        check!(slices.ends_with("/app.slice"), "the scope is {plain:?}");
        Ok(Place { slice: "app.slice", slices, plain, _holder: Some(holder) })
    }
}

/// A process that ends with the test.
struct Holder(Child);

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What is seen of a row with a runtime. Errors: it refused the row.
fn seen(ctx: &Ctx, runtime: &Path, row: &Row, way: Way, place: &Place) -> Result<Vec<(String, String)>> {
    let id = ctx.id();
    let mut bundle = if way.update { ctx.waiting()? } else { with(ctx, &row.resources)? };
    let Place { slice, slices, plain, .. } = place;
    let (place, group) = match way.scope {
        true => (format!("{slice}:resources:{id}"), format!("{slices}/resources-{id}.scope")),
        false => (format!("{plain}/{id}"), format!("{plain}/{id}")),
    };
    bundle.set("/linux/cgroupsPath", json!(place)).write()?;
    let call = |words: &[&str]| {
        let mut command = Command::new(runtime);
        // A state root of its own: whatever a peer keeps there is not to be looked at.
        command.arg("--root").arg(ctx.dir.join("rows")).args(way.scope.then_some("--systemd-cgroup"));
        command.args(words).stdin(Stdio::null());
        ctx.finish(command)
    };
    let new = ctx.dir.join("new.json");
    fs::write(&new, row.resources.to_string())?;
    let made = call(&["create", "--bundle", path(&bundle.dir), &id])?;
    let updated = (made.code == 0 && way.update).then(|| call(&["update", "--resources", path(&new), &id]));
    let refused = updated.transpose()?.unwrap_or(made);
    let group = PathBuf::from(format!("/sys/fs/cgroup{group}"));
    let look = |(name, _): (String, String)| {
        let value = match name.contains('.') {
            true => fs::read_to_string(group.join(&name)).unwrap_or_default().trim().replace('\n', ", "),
            false => property(&format!("resources-{id}.scope"), &name)?,
        };
        Ok((name, value))
    };
    let values = way.wanted(row).into_iter().map(look).collect();
    call(&["delete", "--force", &id])?;
    // A peer gives up on a group whose processes are slow to die.
    until("the group can be removed", || {
        Ok((fs::remove_dir(&group).is_ok() || !group.exists()).then_some(()))
    })?;
    check!(refused.code == 0, "{} of {}: {}", way.name(), row.resources, refused.stderr());
    values
}

fn property(unit: &str, name: &str) -> Result<String> {
    let user = (!nix::unistd::geteuid().is_root()).then_some("--user");
    let output = Command::new("systemctl").args(user).args(["show", "--property", name, unit]).output()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    Ok(text.split_once('=').map(|(_, value)| value.to_owned()).unwrap_or(text))
}

fn check_rows(ctx: &Ctx, way: Way) -> Result {
    for row in table(ctx)? {
        let seen = seen(ctx, &ctx.runtime, &row, way, &Place::of_root())?;
        check_eq!(seen, way.wanted(&row), "{} of {}", way.name(), row.resources);
    }
    Ok(())
}

/// In a group at the top: those below another have no share of real time, unless that has one (sched(7)).
fn files_of_v1_are_as_asked(ctx: &Ctx) -> Result {
    let disk = look::disk()?;
    let (major, minor) = disk.split_once(':').unwrap_or_default();
    let (major, minor): (u32, u32) = (major.parse()?, minor.parse()?);
    let throttled = |rate: u64| json!([{"major": major, "minor": minor, "rate": rate}]);
    let resources = json!({
        "memory": {"limit": 64 << 20, "reservation": 32 << 20, "swap": 128 << 20, "swappiness": 50,
            "disableOOMKiller": true, "useHierarchy": true},
        "cpu": {"shares": 512, "quota": 50000, "period": 100_000, "burst": 10000, "realtimePeriod": 500_000,
            "realtimeRuntime": 1000, "cpus": "0", "mems": "0"},
        "blockIO": {"weight": 200, "throttleReadBpsDevice": throttled(1 << 20), "throttleWriteIOPSDevice": throttled(77)},
        "pids": {"limit": 17},
    });
    let mut bundle = ctx.waiting()?;
    bundle.set("/linux/cgroupsPath", json!(format!("/{}", ctx.id()))).set("/linux/resources", resources);
    let container = ctx.started(&bundle)?;
    let mut others = Vec::new();
    for (file, value) in [
        ("memory.limit_in_bytes", "67108864"),
        ("memory.soft_limit_in_bytes", "33554432"),
        ("memory.memsw.limit_in_bytes", "134217728"),
        ("memory.swappiness", "50"),
        ("memory.oom_control", "oom_kill_disable 1"),
        ("memory.use_hierarchy", "1"),
        ("cpu.shares", "512"),
        ("cpu.cfs_quota_us", "50000"),
        ("cpu.cfs_period_us", "100000"),
        ("cpu.cfs_burst_us", "10000"),
        ("cpu.rt_period_us", "500000"),
        ("cpu.rt_runtime_us", "1000"),
        ("cpuset.cpus", "0"),
        ("cpuset.mems", "0"),
        ("blkio.bfq.weight", "200"),
        ("blkio.throttle.read_bps_device", &format!("{disk} 1048576")),
        ("blkio.throttle.write_iops_device", &format!("{disk} 77")),
        ("pids.max", "17"),
    ] {
        let controller = file.split('.').next().unwrap_or_default();
        let told = look::cgroup_file(container.pid, controller, file)?;
        let told = told.lines().next().unwrap_or_default();
        if told != value {
            others.push(format!("{file} is {told:?}, not {value:?}"));
        }
    }
    check!(others.is_empty(), "{}", others.join("; "));
    Ok(())
}

/// Two controllers that no v2 hierarchy has (cgroup-v1/net_cls.rst, net_prio.rst). Theirs is mounted for this test, where the
/// whole machine is the tests': a new hierarchy is everybody's.
fn a_class_and_priorities_of_the_network_are_set(ctx: &Ctx) -> Result {
    const SCRIPT: &str = r#"
set -eu
mount -t tmpfs none /sys/fs/cgroup
for one in devices net_cls,net_prio; do
    mkdir "/sys/fs/cgroup/$one"
    mount -t cgroup -o "$one" none "/sys/fs/cgroup/$one"
done
# As systemd has them.
ln -s net_cls,net_prio /sys/fs/cgroup/net_cls
ln -s net_cls,net_prio /sys/fs/cgroup/net_prio
trap '"$RUNTIME" --root "$STATE" delete --force "$ID"; rmdir /sys/fs/cgroup/*/coracle-test 2>/dev/null || :' EXIT
"$RUNTIME" --root "$STATE" run --detach --bundle "$BUNDLE" --pid-file "$BUNDLE/pid" "$ID"
cd /sys/fs/cgroup/net_cls,net_prio$(sed -n 's/^[0-9]*:net_cls,net_prio://p' "/proc/$(cat "$BUNDLE/pid")/cgroup")
cat net_cls.classid
grep '^lo ' net_prio.ifpriomap
"#;
    let mut bundle = ctx.waiting()?;
    bundle.without_namespace("cgroup").without_mounts("/sys/fs/cgroup");
    let network = json!({"classID": 1_048_577, "priorities": [{"name": "lo", "priority": 7}]});
    bundle.set("/linux/resources/network", network).write()?;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "/bin/sh", "-c", SCRIPT]).stdin(Stdio::null());
    command.env("RUNTIME", &ctx.runtime).env("STATE", ctx.state_root()).env("BUNDLE", &bundle.dir);
    command.env("ID", ctx.id());
    let output = ctx.finish(command)?.succeeded("the script beside a hierarchy of v1")?;
    check_eq!(output.stdout(), "1048577\nlo 7\n", "class and priority ({})", output.stderr());
    Ok(())
}

fn files_are_as_the_table_says(ctx: &Ctx) -> Result {
    check_rows(ctx, WAYS[0])?;
    check_rows(ctx, WAYS[1])
}

/// A container in the scope `resources-ID.scope`.
fn scope<'a>(ctx: &'a Ctx, bundle: &mut Bundle) -> Result<(Container<'a>, String)> {
    let id = ctx.id();
    bundle.set("/linux/cgroupsPath", json!(format!("system.slice:resources:{id}"))).write()?;
    let mut container = Container::named(ctx, id, &bundle.dir);
    let pid_file = ctx.dir.join("pid");
    let words = ["--systemd-cgroup", "create", "--bundle", path(&bundle.dir), "--pid-file", path(&pid_file)];
    ctx.call(&[&words[..], &[&container.id]].concat())?.succeeded("create")?;
    container.pid = fs::read_to_string(&pid_file)?.parse()?;
    container.start()?;
    let unit = format!("resources-{}.scope", container.id);
    Ok((container, unit))
}

fn check_properties(unit: &str, properties: &[&str], when: &str) -> Result {
    for wanted in properties {
        let (name, value) = wanted.split_once('=').unwrap_or((wanted, ""));
        check_eq!(property(unit, name)?, value, "{name} {when}");
    }
    Ok(())
}

fn systemd_knows_what_the_files_say(ctx: &Ctx) -> Result {
    check_rows(ctx, WAYS[2])
}

fn systemd_knows_what_an_update_says(ctx: &Ctx) -> Result {
    check_rows(ctx, WAYS[3])
}

/// All I/O limits of a unit are written again when one of them changes: systemd has to count as the files do.
fn weights_stay_when_systemd_writes_again(ctx: &Ctx) -> Result {
    let device = look::disk()?;
    for row in table(ctx)?.into_iter().filter(|row| row.resources.to_string().contains("eight")) {
        let (container, unit) = scope(ctx, &mut with(ctx, &row.resources)?)?;
        let limit = format!("IOReadBandwidthMax=/dev/block/{device} 9437184");
        let status = Command::new("systemctl").args(["set-property", "--runtime", &unit, &limit]).status()?;
        check!(status.success(), "systemctl set-property failed");
        let limited =
            || Ok(look::cgroup_file(container.pid, "", "io.max")?.contains("9437184").then_some(()));
        until("systemd has written", limited)?;
        for (file, value) in &row.files {
            let text = look::cgroup_file(container.pid, "", file)?.replace('\n', ", ");
            check_eq!(&text, value, "{file} of {}", row.resources);
        }
    }
    Ok(())
}

/// Runtime, file or property, its value there, why it differs.
const KNOWN: &[(&str, &str, &str, &str)] = &[
    ("runc", "cpu.weight", "157", LINEAR),
    ("runc", "CPUWeight", "157", LINEAR),
    ("crun", "cpu.weight", "157", LINEAR),
    ("crun", "CPUWeight", "157", LINEAR),
    ("runc", "cpu.max.burst", "0", "passed over"),
    ("runc", "cpu.idle", "0", "passed over"),
    ("runc", "CPUWeight", "[not set]", "cpu.idle is passed over"),
    ("runc", "MemorySwapMax", "infinity", "no swap at all is written to the file, and systemd is not told"),
    ("runc", "IOWeight", "[not set]", "the file is written, and systemd is not told"),
    ("runc", "io.max", "", "its update does not know throttles"),
    ("runc", "hugetlb.2MB.max", "max", "its update does not know hugepageLimits"),
    ("runc", "hugetlb.2MB.rsvd.max", "max", "its update does not know hugepageLimits"),
    ("runc", "io.bfq.weight", "default 100", "its update does not know weights of devices"),
    ("runc", "io.weight", "default 100", "a weight of a device is passed over where BFQ is not"),
    ("runc", "IODeviceWeight", "", "the file is written, and systemd is not told"),
    ("runc", "rdma.max", NO_RDMA, "its update does not know RDMA"),
    ("crun", "rdma.max", NO_RDMA, "passed over"),
    ("crun", "io.bfq.weight", "default 100", "in a scope systemd is told, and does not find the device"),
    ("crun", "io.weight", "refused", NO_BFQ),
    ("crun", "IODeviceWeight", "refused", NO_BFQ),
    ("crun", "IODeviceWeight", "254:16 2300", "it is no path of a device"),
    ("crun", "cpu.idle", "0", IN_SCOPE),
    ("crun", "CPUWeight", "[not set]", IN_SCOPE),
    ("crun", "hugetlb.2MB.max", "max", IN_SCOPE),
    ("crun", "hugetlb.2MB.rsvd.max", "max", "the reservation is not limited"),
    ("crun", "io.max", "", IN_SCOPE),
    ("crun", "memory.swap.max", "100663296", SWAP),
    ("crun", "MemorySwapMax", "100663296", SWAP),
    ("crun", "memory.swap.max", "67108864", SWAP),
    ("crun", "MemorySwapMax", "67108864", SWAP),
    ("crun", "memory.max", "33554432", UNIFIED),
    ("crun", "MemoryMax", "33554432", UNIFIED),
    ("crun", "io.weight", "default 4500", "in a scope another conversion of the weight"),
    ("crun", "IOWeight", "4500", "in a scope another conversion of the weight"),
];
const LINEAR: &str = "those of Debian trixie have the linear conversion of shares";
const NO_RDMA: &str = "rxe0 hca_handle=max hca_object=max";
const NO_BFQ: &str = "where BFQ is not, a weight of a device is refused: no io.weight is found";
const IN_SCOPE: &str = "passed over in a scope";
const SWAP: &str = "in a scope memory and swap together become the limit of swap alone";
const UNIFIED: &str = "in a scope memory.limit goes before unified";

/// `RESOURCES=FILE` has every way looked at, not only create, and the whole table written there, as in docs/resources.md.
fn peers_write_the_same(ctx: &Ctx) -> Result {
    let report = std::env::var_os("RESOURCES");
    let ways = if report.is_some() { &WAYS[..] } else { &WAYS[..1] };
    compare(ctx, table(ctx)?, ways, &Place::of_root(), report)
}

/// What a user may do in groups that are the user's own. Without `RESOURCES=FILE` one row, in one way, and no peer.
fn as_a_user_runtimes_write_the_same(ctx: &Ctx) -> Result {
    let report = std::env::var_os("RESOURCES");
    let mut rows = table(ctx)?;
    rows.truncate(if report.is_some() { rows.len() } else { 1 });
    let place = Place::of_user(ctx)?;
    for row in &rows {
        for way in WAYS.into_iter().filter(|way| way.scope && way.update || report.is_some()) {
            let seen = seen(ctx, &ctx.runtime, row, way, &place)?;
            check_eq!(seen, way.wanted(row), "{} of {}", way.name(), row.resources);
        }
    }
    let ways = if report.is_some() { &WAYS[..] } else { &[] };
    compare(ctx, rows, ways, &place, report)
}

/// Has the peers do what this runtime does. Errors: a difference that no reason is known for.
fn compare(ctx: &Ctx, rows: Vec<Row>, ways: &[Way], place: &Place, report: Option<OsString>) -> Result {
    let (mut lines, mut unknown) = (Vec::new(), Vec::new());
    for row in rows {
        let last = ways.last().copied().unwrap_or(WAYS[0]);
        let mut cells: Vec<_> =
            last.wanted(&row).into_iter().map(|wanted| (wanted, [vec![], vec![]])).collect();
        for (n, peer) in ["/usr/sbin/runc", "/usr/bin/crun"].into_iter().enumerate() {
            let name = Path::new(peer).file_name().and_then(|name| name.to_str()).unwrap_or(peer);
            for way in ways {
                let there = seen(ctx, Path::new(peer), &row, *way, place);
                let there = there.map_err(|refusal| refusal.to_string());
                for ((what, value), cell) in &mut cells[..way.wanted(&row).len()] {
                    let found = there.as_ref().map(|all| all.iter().find(|(n, _)| n == what));
                    let theirs = match &found {
                        Ok(found) => found.map(|(_, value)| value.as_str()).unwrap_or_default(),
                        Err(_) => "refused",
                    };
                    if theirs == value {
                        continue;
                    }
                    cell[n].push(format!("{}: {theirs}", way.name()));
                    if !KNOWN.iter().any(|k| (k.0, k.1, k.2) == (name, what.as_str(), theirs)) {
                        let why = there.as_ref().err().map(String::as_str).unwrap_or_default();
                        unknown.push(format!(
                            "{name}, {} of {}: {what} is {theirs:?}, {value} here {why}",
                            way.name(),
                            row.resources
                        ));
                    }
                }
            }
        }
        for ((name, value), [runc, crun]) in cells {
            let (runc, crun) = (runc.join("; "), crun.join("; "));
            lines.push(format!("| `{}` | {name} | {value} | {runc} | {crun} |", row.resources));
        }
    }
    if let Some(file) = report {
        fs::write(file, lines.join("\n") + "\n")?;
    }
    check!(unknown.is_empty(), "\n{}", unknown.join("\n"));
    Ok(())
}

/// config-linux.md, Cgroup ownership.
fn the_group_belongs_to_the_containers_root(ctx: &Ctx) -> Result {
    use std::os::unix::fs::MetadataExt;
    for (writable, owner) in [(true, 100_000), (false, 0)] {
        let mut bundle = ctx.waiting()?;
        let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
        bundle.namespace("user", None);
        bundle.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
        for mount in bundle.spec["mounts"].as_array_mut().into_iter().flatten() {
            if let Some(options) = mount["options"].as_array_mut().filter(|_| writable) {
                options.retain(|o| o != "ro");
            }
        }
        let container = ctx.started(&bundle)?;
        let group = look::cgroup(container.pid, "")?;
        for file in ["", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
            check_eq!(fs::metadata(group.join(file))?.uid(), owner, "owner of {file:?}, writable {writable}");
        }
        check_eq!(
            fs::metadata(group.join("cgroup.max.depth"))?.uid(),
            0,
            "owner of a file that is not delegated"
        );
    }
    Ok(())
}

/// config-linux.md, Memory: what cgroup v2 has not, or no kernel has any more.
fn limits_that_are_left_out_are_said(ctx: &Ctx) -> Result {
    let of_v2 = [("swappiness", json!(50)), ("disableOOMKiller", json!(true))];
    let both = [("kernel", json!(64 << 20)), ("kernelTCP", json!(64 << 20))];
    let mut unsaid = Vec::new();
    for (name, value) in both.into_iter().chain(of_v2.into_iter().filter(|_| ctx.host.cgroup2)) {
        let mut bundle = ctx.waiting()?;
        bundle.set("/linux/resources/memory", json!({name: value})).write()?;
        let container = Container::named(ctx, ctx.id(), &bundle.dir);
        let said = ctx.call(&["create", "--bundle", path(&bundle.dir), &container.id])?.stderr();
        let word = name.trim_end_matches("TCP");
        if !said.to_lowercase().contains(&word.to_lowercase()) {
            unsaid.push(name);
        }
    }
    check!(unsaid.is_empty(), "nothing is said of {}", unsaid.join(", "));
    Ok(())
}

/// What is a promise is not left out: there is no container without it.
fn limits_that_v2_lacks_are_refused(ctx: &Ctx) -> Result {
    let mut taken = Vec::new();
    for resources in [
        json!({"cpu": {"realtimeRuntime": 1000, "realtimePeriod": 500_000}}),
        json!({"blockIO": {"leafWeight": 200}}),
        json!({"network": {"classID": 1_048_577}}),
        json!({"network": {"priorities": [{"name": "lo", "priority": 7}]}}),
    ] {
        let mut bundle = ctx.waiting()?;
        bundle.set("/linux/resources", resources.clone()).write()?;
        let container = Container::named(ctx, ctx.id(), &bundle.dir);
        if ctx.call(&["create", "--bundle", path(&bundle.dir), &container.id])?.code == 0 {
            taken.push(resources.to_string());
        }
    }
    check!(taken.is_empty(), "taken although there is no such limit: {}", taken.join(" "));
    Ok(())
}

fn annotations_become_properties(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.set("/annotations", json!({"org.systemd.property.TimeoutStopSec": "uint32 7"}));
    let (_container, unit) = scope(ctx, &mut bundle)?;
    check_properties(&unit, &["TimeoutStopUSec=7s"], "of an annotation")?;
    bundle.set("/annotations", json!({"org.systemd.property.TimeoutStopSec": "word"})).write()?;
    let id = ctx.id();
    let output = ctx.call(&["--systemd-cgroup", "create", "--bundle", path(&bundle.dir), &id])?;
    let words = output.stderr();
    check!(
        output.code != 0 && words.contains("org.systemd.property.TimeoutStopSec"),
        "a wrong value: {words}"
    );
    Ok(())
}

/// org.freedesktop.systemd1(5), StartTransientUnit: who is named so is moved into the scope, and dies with the container.
fn an_annotation_takes_no_process_of_the_hosts(ctx: &Ctx) -> Result {
    let mut other = Command::new("sleep").arg("1000").spawn()?;
    let pid = other.id();
    let before = look::cgroup(pid, "")?;
    let mut bundle = ctx.waiting()?;
    bundle.set("/annotations", json!({"org.systemd.property.PIDs": format!("[uint32 {pid}]")}));
    let id = ctx.id();
    bundle.set("/linux/cgroupsPath", json!(format!("system.slice:coracle-test:{id}"))).write()?;
    let output = ctx.call(&["--systemd-cgroup", "create", "--bundle", path(&bundle.dir), &id])?;
    let after = look::cgroup(pid, "");
    ctx.call(&["delete", "--force", &id])?;
    let ended = other.try_wait()?;
    other.kill()?;
    other.wait()?;
    check_eq!(after?, before, "the other process's group ({})", output.stderr());
    check!(ended.is_none(), "the other process ended with the container");
    check!(
        ctx.kind != "coracle" || output.stderr().contains("would make other processes the container's"),
        "{}",
        output.stderr()
    );
    Ok(())
}

/// crun(1): a group below the scope, the root of what the container sees, and one below that which it has to itself.
fn groups_below_a_scope_have_the_processes(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle
        .set("/annotations", json!({"run.oci.systemd.subgroup": "sub", "run.oci.delegate-cgroup": "own"}))
        .set("/linux/resources/memory", json!({"limit": 64 << 20}));
    let (container, unit) = scope(ctx, &mut bundle)?;
    let group = look::cgroup(container.pid, "")?;
    check!(group.ends_with(format!("system.slice/{unit}/sub/own")), "init is in {}", group.display());
    check_eq!(fs::read_to_string(group.join("memory.max"))?.trim(), "max", "limit of the delegated group");
    let exec = ctx.exec(&container, &[], &["/bin/cat", "/proc/self/cgroup"])?.succeeded("exec")?;
    check!(exec.stdout().ends_with("0::/own\n"), "group of exec's process: {}", exec.stdout());
    check_properties(&unit, &["MemoryMax=67108864"], "with groups below")
}

fn a_failed_scope_is_forgotten(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.set("/annotations", json!({"org.systemd.property.RuntimeMaxSec": "5"}));
    let (container, unit) = scope(ctx, &mut bundle)?;
    until("systemd ends the container", || Ok((container.status()? == "stopped").then_some(())))?;
    container.delete()?;
    let status = Command::new("systemctl")
        .args(["status", &unit])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?;
    check_eq!(status.code(), Some(4), "exit status of systemctl status (no such unit)");
    Ok(())
}

fn an_update_of_a_scope_that_fails_changes_nothing(ctx: &Ctx) -> Result {
    let resources = json!({"memory": {"limit": 64 << 20}, "pids": {"limit": 40}});
    let (container, unit) = scope(ctx, &mut with(ctx, &resources)?)?;
    let new =
        json!({"memory": {"limit": 80 << 20}, "pids": {"limit": 50}, "unified": {"cpuset.cpus": "8000"}});
    check!(update(ctx, &container.id, &new).is_err(), "an update to a processor that is not there succeeded");
    for (file, value) in [("memory.max", "67108864"), ("pids.max", "40")] {
        check_eq!(look::cgroup_file(container.pid, "", file)?, value, "{file} after an update that failed");
    }
    check_properties(&unit, &["MemoryMax=67108864", "TasksMax=40"], "after an update that failed")
}

/// What create says when both buses, the machine's and the user's, are this socket.
fn create_by(ctx: &Ctx, bus: &Path) -> Result<Output> {
    let bundle = ctx.waiting()?;
    bundle.write()?;
    let mut command = ctx.command(&["--systemd-cgroup", "create", "--bundle", path(&bundle.dir), &ctx.id()]);
    for name in ["DBUS_SYSTEM_BUS_ADDRESS", "DBUS_SESSION_BUS_ADDRESS"] {
        command.env(name, format!("unix:path={}", bus.display()));
    }
    ctx.finish(command)
}

/// The other side takes the connection, and never says a word.
fn a_bus_that_says_nothing_is_an_error_in_time(ctx: &Ctx) -> Result {
    let bus = ctx.dir.join("bus");
    let _listener = UnixListener::bind(&bus)?;
    let began = std::time::Instant::now();
    let output = create_by(ctx, &bus)?;
    check!(output.code != 0 && output.stderr().contains("systemd"), "the message: {}", output.stderr());
    check!(began.elapsed().as_secs() < 60, "it took {} s", began.elapsed().as_secs());
    check!(ctx.records()?.is_empty(), "state is left");
    Ok(())
}

/// The other side lets the runtime in, and is gone when it is asked for something.
fn a_bus_that_hangs_up_is_an_error_at_once(ctx: &Ctx) -> Result {
    let bus = ctx.dir.join("bus");
    let listener = UnixListener::bind(&bus)?;
    std::thread::spawn(move || -> std::io::Result<()> {
        let (mut client, _) = listener.accept()?;
        let _ = client.read(&mut [0; 4096])?;
        client.write_all(b"DATA\r\nOK 0123456789abcdef\r\n")?;
        client.read(&mut [0; 4096]).map(drop)
    });
    hung_up(&create_by(ctx, &bus)?)?;
    check!(ctx.records()?.is_empty(), "state is left");
    Ok(())
}

fn hung_up(output: &Output) -> Result {
    let words = "the D-Bus connection to systemd broke: ";
    check!(output.code != 0 && output.stderr().contains(words), "the message: {}", output.stderr());
    Ok(())
}

/// Nobody knows whether systemd did what it was asked for when its answer does not come: either way nothing is left of it.
fn a_bus_that_breaks_off_leaves_nothing(ctx: &Ctx) -> Result {
    let through = |number: usize, at: BreakOff, words: &[&str]| -> Result<Output> {
        let bus = ctx.dir.join(format!("bus{number}"));
        breaking_bus(UnixListener::bind(&bus)?, "/run/dbus/system_bus_socket".into(), at);
        let mut command = ctx.command(words);
        command.env("DBUS_SYSTEM_BUS_ADDRESS", format!("unix:path={}", bus.display()));
        let began = std::time::Instant::now();
        let output = ctx.finish(command)?;
        // Long before the deadline of an answer.
        check!(began.elapsed().as_secs() < 20, "{words:?} took {} s", began.elapsed().as_secs());
        Ok(output)
    };
    let mut bundle = with(ctx, &json!({"memory": {"limit": 64 << 20}}))?;
    for (number, heard) in [false, true].into_iter().enumerate() {
        let id = ctx.id();
        bundle.set("/linux/cgroupsPath", json!(format!("system.slice:resources:{id}"))).write()?;
        let at = BreakOff { word: "StartTransientUnit", heard };
        hung_up(&through(number, at, &["--systemd-cgroup", "create", "--bundle", path(&bundle.dir), &id])?)?;
        check!(ctx.records()?.is_empty(), "state is left, heard {heard}");
        gone(&format!("resources-{id}.scope"))?;
    }
    let (container, unit) = scope(ctx, &mut bundle)?;
    let at = BreakOff { word: "SetUnitProperties", heard: true };
    hung_up(&through(2, at, &["update", "--memory", "80M", "--memory-swap", "90M", &container.id])?)?;
    check_eq!(look::cgroup_file(container.pid, "", "memory.max")?, "67108864", "after an update that failed");
    check_properties(&unit, &["MemoryMax=67108864"], "after an update that failed")?;
    let at = BreakOff { word: "StopUnit", heard: true };
    through(3, at, &["delete", "--force", &container.id])?.succeeded("delete")?;
    gone(&unit)
}

/// Waits until systemd knows nothing of a unit.
fn gone(unit: &str) -> Result {
    until(&format!("{unit} is gone"), || {
        let status = Command::new("systemctl").args(["status", unit]).output()?.status;
        Ok((status.code() == Some(4)).then_some(()))
    })?;
    let group = Path::new("/sys/fs/cgroup/system.slice").join(unit);
    check!(!group.exists(), "its group is left");
    Ok(())
}

fn no_bus_is_an_error_that_says_so(ctx: &Ctx) -> Result {
    let bundle = ctx.waiting()?;
    bundle.write()?;
    let id = ctx.id();
    let mut command = ctx.command(&[
        "--rootless",
        "true",
        "--systemd-cgroup",
        "create",
        "--bundle",
        path(&bundle.dir),
        &id,
    ]);
    command.env("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nowhere/bus").env("XDG_RUNTIME_DIR", "/nowhere");
    let output = ctx.finish(command)?;
    check!(output.code != 0 && output.stderr().contains("/nowhere/bus"), "the message: {}", output.stderr());
    check!(ctx.records()?.is_empty(), "state is left");
    Ok(())
}
