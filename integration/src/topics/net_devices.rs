//! Network devices that move into the container (config-linux.md, "Network Devices").

use std::process::{Child, Command};

use serde_json::json;

use crate::harness::{
    Bundle, Container, Ctx, Need, Result, check, check_eq, container::until, context::path, look, tests,
};

tests! {
    a_device_moves_with_its_addresses [Need::File("/usr/sbin/ip")]
        known "runc": "loses IPv6 addresses; before 1.4 ignores the field" known "crun": "before 1.24 ignores the field";
    a_device_moves_into_a_container_with_ids_of_its_own [Need::File("/usr/sbin/ip")]
        known "runc": "loses IPv6 addresses; before 1.4 ignores the field" known "crun": "before 1.24 ignores the field";
    a_pattern_gives_the_device_a_name_that_is_free [Need::File("/usr/sbin/ip")]
        known "runc": "does not find it again" known "crun": "before 1.24 ignores the field";
    a_name_that_is_taken_is_refused_and_every_device_is_back [Need::File("/usr/sbin/ip")]
        known "runc": "leaves the first one moved" known "crun": "before 1.24 ignores the field";
    a_device_is_back_after_a_create_that_failed_later [Need::File("/usr/sbin/ip")]
        known "runc": "it is lost" known "crun": "before 1.24 ignores the field";
    a_device_stays_in_a_namespace_that_outlives_the_container [Need::File("/usr/sbin/ip")]
        known "runc": "loses IPv6 addresses; before 1.4 ignores the field" known "crun": "before 1.24 ignores the field";
    a_device_that_is_not_there_is_refused
        known "runc": "before 1.4 ignores the field" known "crun": "before 1.24 ignores the field";
    without_a_network_namespace_devices_are_refused
        known "runc": "before 1.4 ignores the field" known "crun": "before 1.24 ignores the field";
}

/// A network namespace with devices in it, out of which the runtime is called: the machine's own is left alone.
struct Yard(Child);

impl Yard {
    fn new(ctx: &Ctx, script: &str) -> Result<Yard> {
        let ready = ctx.dir.join("yard");
        let _ = std::fs::remove_file(&ready);
        let whole = format!("set -e\n{script}\n: >{}\nexec sleep 1000", ready.display());
        let mut yard = Yard(Command::new("unshare").args(["--net", "sh", "-c", &whole]).spawn()?);
        until("the devices are there", || {
            check!(yard.0.try_wait()?.is_none(), "the devices could not be made: {script}");
            Ok(ready.exists().then_some(()))
        })?;
        Ok(yard)
    }

    fn namespace(&self) -> String {
        format!("/proc/{}/ns/net", self.0.id())
    }

    /// What ip(8) says of the devices in the namespace of this process.
    fn ip(pid: u32, words: &[&str]) -> Result<String> {
        let target = format!("--net=/proc/{pid}/ns/net");
        let output = Command::new("nsenter").args([&target, "ip"]).args(words).output()?;
        Ok(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    }

    fn here(&self, words: &[&str]) -> Result<String> {
        Yard::ip(self.0.id(), words)
    }

    /// The runtime's command, called in here.
    fn command(&self, ctx: &Ctx, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.namespace())).arg(&ctx.runtime);
        command.arg("--root").arg(ctx.state_root()).args(words).stdin(std::process::Stdio::null());
        command
    }

    /// A container that is created from in here, or the message that says why not.
    fn create<'a>(
        &self,
        ctx: &'a Ctx,
        bundle: &Bundle,
    ) -> Result<std::result::Result<Container<'a>, String>> {
        bundle.write()?;
        let mut container = Container::named(ctx, ctx.id(), &bundle.dir);
        let file = ctx.dir.join(format!("{}.pid", container.id));
        let words = ["create", "--bundle", path(&bundle.dir), "--pid-file", path(&file), &container.id];
        let output = ctx.finish(self.command(ctx, &words))?;
        if output.code != 0 {
            return Ok(Err(output.stderr()));
        }
        container.pid = std::fs::read_to_string(&file)?.parse()?;
        Ok(Ok(container))
    }
}

impl Drop for Yard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn refused(created: std::result::Result<Container, String>, words: &[&str]) -> Result {
    let message = created.err().ok_or("create succeeded although it should be refused")?;
    for word in words {
        check!(message.contains(word), "the message lacks {word:?}: {message}");
    }
    Ok(())
}

const PROVED: &str = "ip link add proved0 type veth peer name other0
    ip link set proved0 mtu 1789 address 00:11:22:33:44:55 up
    ip address add 169.254.169.77/30 dev proved0
    ip address add fd00:77::7/64 dev proved0
    ip address add 10.7.7.7/24 scope link dev proved0";

fn has_arrived(pid: u32, name: &str) -> Result {
    let shown = Yard::ip(pid, &["address", "show", "dev", name])?;
    for part in ["169.254.169.77/30", "fd00:77::7/64", "00:11:22:33:44:55", "mtu 1789", ",UP"] {
        check!(shown.contains(part), "{part} is missing: {shown}");
    }
    check!(!shown.contains("10.7.7.7"), "an address of link scope has moved too: {shown}");
    Ok(())
}

fn a_device_moves_with_its_addresses(ctx: &Ctx) -> Result {
    for (name, devices) in
        [("proved0", json!({"proved0": {}})), ("inside0", json!({"proved0": {"name": "inside0"}}))]
    {
        let yard = Yard::new(ctx, PROVED)?;
        let mut bundle = ctx.waiting()?;
        bundle.set("/linux/netDevices", devices);
        let container = yard.create(ctx, &bundle)??;
        has_arrived(container.pid, name)?;
        let left = yard.here(&["link", "show"])?;
        check!(!left.contains("proved0"), "it is here too: {left}");
    }
    Ok(())
}

fn a_device_moves_into_a_container_with_ids_of_its_own(ctx: &Ctx) -> Result {
    let yard = Yard::new(ctx, PROVED)?;
    let mut bundle = ctx.waiting()?;
    bundle.user_namespace(200_000, 65_536)?.set("/linux/netDevices", json!({"proved0": {"name": "eth0"}}));
    let container = yard.create(ctx, &bundle)??;
    has_arrived(container.pid, "eth0")
}

fn a_pattern_gives_the_device_a_name_that_is_free(ctx: &Ctx) -> Result {
    let yard = Yard::new(ctx, &format!("{PROVED}\nip link add second0 type veth peer name other1"))?;
    let mut bundle = ctx.waiting()?;
    bundle.set("/linux/netDevices", json!({"proved0": {"name": "eth%d"}, "second0": {"name": "eth%d"}}));
    let container = yard.create(ctx, &bundle)??;
    has_arrived(container.pid, "eth0")?;
    let second = Yard::ip(container.pid, &["link", "show", "dev", "eth1"])?;
    check!(second.contains(",UP"), "the second: {second}");
    Ok(())
}

fn a_name_that_is_taken_is_refused_and_every_device_is_back(ctx: &Ctx) -> Result {
    let yard = Yard::new(ctx, &format!("{PROVED}\nip link add second0 type veth peer name other1"))?;
    let target = Yard::new(ctx, "ip link add eth7 type veth peer name other0")?;
    let mut bundle = ctx.waiting()?;
    bundle.namespace("network", Some(&target.namespace()));
    bundle.set("/linux/netDevices", json!({"proved0": {"name": "eth0"}, "second0": {"name": "eth7"}}));
    refused(yard.create(ctx, &bundle)?, &["second0"])?;
    has_all_again(&yard)?;
    let second = yard.here(&["link", "show", "dev", "second0"])?;
    check!(!second.contains(",UP") && second.contains("second0"), "the second: {second}");
    let there = target.here(&["link", "show"])?;
    check!(!there.contains("eth0"), "it is there still: {there}");
    Ok(())
}

/// What is not of global scope the kernel has dropped for good.
fn has_all_again(yard: &Yard) -> Result {
    has_arrived(yard.0.id(), "proved0")
}

fn a_device_is_back_after_a_create_that_failed_later(ctx: &Ctx) -> Result {
    let yard = Yard::new(ctx, PROVED)?;
    let mut bundle = ctx.bundle()?;
    bundle.args(&["/no/such/program"]).set("/linux/netDevices", json!({"proved0": {"name": "eth0"}}));
    refused(yard.create(ctx, &bundle)?, &["/no/such/program"])?;
    has_all_again(&yard)
}

fn a_device_stays_in_a_namespace_that_outlives_the_container(ctx: &Ctx) -> Result {
    let yard = Yard::new(ctx, PROVED)?;
    let target = Yard::new(ctx, "true")?;
    let mut bundle = ctx.waiting()?;
    bundle.namespace("network", Some(&target.namespace()));
    bundle.set("/linux/netDevices", json!({"proved0": {}}));
    let container = yard.create(ctx, &bundle)??;
    check_eq!(
        look::namespace(container.pid, "net")?,
        look::namespace(target.0.id(), "net")?,
        "network namespace"
    );
    drop(container);
    has_arrived(target.0.id(), "proved0")
}

fn a_device_that_is_not_there_is_refused(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.set("/linux/netDevices", json!({"no-such-device": {}}));
    ctx.refused(&bundle, &["no-such-device"]).map(drop)
}

fn without_a_network_namespace_devices_are_refused(ctx: &Ctx) -> Result {
    let mut bundle = ctx.waiting()?;
    bundle.without_namespace("network").set("/linux/netDevices", json!({"lo": {}}));
    ctx.refused(&bundle, &["etwork"]).map(drop)
}
