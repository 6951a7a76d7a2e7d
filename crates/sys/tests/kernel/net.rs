//! Interfaces, in network namespaces of their own.

use crate::Needs::{Program, Root};
use crate::{Check, Doing, Outcome, Test, begin, child, end, equal};
use coracle_sys::net::{self, Address};
use coracle_sys::process::CloneArgs;
use coracle_sys::{Errno, fs, libc, poll};
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};

pub(crate) const TESTS: &[Test] = &[
    ("net: the loopback interface comes up", Root, loopback),
    ("net: an interface moves with its addresses", Program("ip"), moves),
    ("net: a taken name is refused, a template finds another", Program("ip"), names),
];

const NEWNET: u64 = libc::CLONE_NEWNET as u64;

fn loopback() -> Check {
    child(NEWNET, || {
        let lo = net::index_of(c"lo").doing("lo")?;
        equal("before", net::addresses(lo), Ok(vec![]))?;
        net::loopback_up().doing("up")?;
        let all = net::addresses(lo).doing("addresses")?;
        let v4 = all.iter().find(|a| a.family == libc::AF_INET as u8).ok_or("no address")?;
        equal("127.0.0.1/8, scope host", (v4.prefix, v4.scope), (8, 254))?;
        std::net::TcpListener::bind("127.0.0.1:0").map(drop).map_err(|e| format!("bind: {e}"))?;
        let there = elsewhere(|| Ok(()))?;
        equal("it stays", net::move_to_netns(lo, there.namespace.as_fd(), c"lo0"), Err(Errno::EINVAL))?;
        there.finish()?;
        equal("nobody", net::set_up(4_000_000), Err(Errno::ENODEV))
    })?;
    Ok(Outcome::Fine)
}

/// Runs ip(8) in this namespace.
fn ip(words: &str) -> Result<(), String> {
    let out =
        std::process::Command::new("ip").args(words.split(' ')).output().map_err(|e| format!("ip: {e}"))?;
    if out.status.success() {
        Ok(())
    } else {
        Err(format!("ip {words}: {}", String::from_utf8_lossy(&out.stderr)))
    }
}

/// A pair of interfaces, or the reason why there is none.
fn veth() -> Option<String> {
    child(NEWNET, || ip("link add v0 type veth peer name v1")).err()
}

fn global(index: u32) -> Result<Vec<Address>, String> {
    let mut all = net::addresses(index).doing("addresses")?;
    all.retain(|a| a.scope == 0 && a.flags & libc::IFA_F_PERMANENT != 0);
    Ok(all)
}

/// A child in a network namespace of its own, which begins `work` when told to; and that namespace.
struct Elsewhere {
    pid: i32,
    said: OwnedFd,
    go: OwnedFd,
    namespace: OwnedFd,
}

fn elsewhere(work: impl FnOnce() -> Result<(), String>) -> Result<Elsewhere, String> {
    let (wait, go) = poll::pipe().doing("pipe")?;
    let args = CloneArgs { flags: NEWNET, cgroup: None, sibling: false };
    let (pid, said) = begin(&args, || match fs::read(wait.as_fd(), &mut [0]) {
        Ok(1) => work(),
        _ => Err("the other side gave up".into()),
    })?;
    let path = CString::new(format!("/proc/{pid}/ns/net")).unwrap_or_default();
    let namespace = fs::open(&path, libc::O_RDONLY, 0).doing("namespace")?;
    Ok(Elsewhere { pid, said, go, namespace })
}

impl Elsewhere {
    fn finish(self) -> Result<(), String> {
        fs::write_all(self.go.as_fd(), b"g").doing("go")?;
        end(self.pid, self.said)
    }
}

fn moves() -> Check {
    if let Some(why) = veth() {
        return Ok(Outcome::Skip(format!("no interface to move: {why}")));
    }
    child(NEWNET, || {
        ip("link add v0 type veth peer name v1")?;
        ip("addr add 192.0.2.5/24 brd 192.0.2.255 dev v0")?;
        ip("addr add 192.0.2.9 peer 198.51.100.1/32 dev v0")?;
        ip("addr add 2001:db8::5/64 dev v0 nodad")?;
        ip("addr add 10.0.0.1/8 scope link dev v0")?;
        ip("addr add 203.0.113.1/24 dev v0 valid_lft 1000 preferred_lft 1000")?;
        let index = net::index_of(c"v0").doing("v0")?;
        net::set_up(index).doing("up")?;
        let kept = global(index)?;
        equal("what lasts and is global", kept.len(), 3)?;
        let before = kept.clone();
        let there = elsewhere(move || {
            let index = net::index_of(c"eth7").doing("eth7")?;
            equal("the kernel dropped them", global(index)?, vec![])?;
            for address in &before {
                net::add_address(index, address).doing("add_address")?;
            }
            equal("twice", net::add_address(index, &before[0]), Err(Errno::EEXIST))?;
            net::set_up(index).doing("up")?;
            let by_family = |mut all: Vec<Address>| {
                all.sort_by_key(|a| (a.family, a.prefix));
                all
            };
            equal("the same addresses", by_family(global(index)?), by_family(before))?;
            equal(
                "nothing else but lo",
                net::interfaces().doing("dump")?.iter().filter(|i| i.0 == index).count(),
                1,
            )
        })?;
        net::move_to_netns(index, there.namespace.as_fd(), c"eth7").doing("move")?;
        equal("it is not here", net::index_of(c"v0"), Err(Errno::ENODEV))?;
        there.finish()
    })?;
    Ok(Outcome::Fine)
}

fn names() -> Check {
    if let Some(why) = veth() {
        return Ok(Outcome::Skip(format!("no interface to move: {why}")));
    }
    child(NEWNET, || {
        ip("link add v0 type veth peer name v1")?;
        ip("link add v2 type veth peer name v3")?;
        let of = |name: &std::ffi::CStr| net::index_of(name).doing("index");
        let there = elsewhere(|| {
            let mut names: Vec<_> =
                net::interfaces().doing("dump")?.into_iter().map(|(_, name)| name).collect();
            names.retain(|name| name.to_bytes().starts_with(b"eth"));
            names.sort();
            equal("names", names, vec![c"eth0".to_owned(), c"eth1".to_owned()])
        })?;
        let namespace = there.namespace.as_fd();
        net::move_to_netns(of(c"v0")?, namespace, c"eth0").doing("move")?;
        net::move_to_netns(of(c"v1")?, namespace, c"eth%d").doing("template")?;
        equal("taken", net::move_to_netns(of(c"v2")?, namespace, c"eth0"), Err(Errno::EEXIST))?;
        there.finish()
    })?;
    Ok(Outcome::Fine)
}
