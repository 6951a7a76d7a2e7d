//! The default seccomp profile: every system call of the kernel but those that reach beyond a container.
//!
//! syscalls.txt holds the names in the kernel's own tables (x86, and the generic one of newer architectures), Linux
//! 6.18. [`REFUSED`] says which are refused and why: most need privileges that a container with the default
//! capabilities lacks anyway, and are refused because kernel bugs live there. A call that is newer than the list is
//! refused with EPERM, as everything not named.

use super::CAPABILITIES;
use crate::error::{Error, Kind, Result, fail};
use crate::platform::Platform;
use serde_json::{Value, json};

/// All names, one a line.
const ALL: &str = include_str!("syscalls.txt");

/// What is refused, by reason.
const REFUSED: [(&str, &str); 11] = [
    (
        "kernel code",
        "init_module finit_module delete_module create_module query_module get_kernel_syms bpf kexec_load kexec_file_load lookup_dcookie uprobe uretprobe",
    ),
    (
        "the whole machine",
        "reboot syslog acct swapon swapoff quotactl quotactl_fd vhangup idle sethostname setdomainname nfsservctl",
    ),
    ("its clock", "settimeofday stime clock_settime clock_settime64"),
    ("namespaces", "unshare setns clone clone3"),
    (
        "mounts",
        "mount umount umount2 pivot_root move_mount open_tree open_tree_attr fsopen fsconfig fsmount fspick mount_setattr sysfs uselib ustat",
    ),
    (
        "files by handle, out of any root (CVE-2014-9357's neighbour, \"shocker\")",
        "open_by_handle_at name_to_handle_at fanotify_init",
    ),
    (
        "other processes' memory and files",
        "process_vm_readv process_vm_writev kcmp pidfd_getfd perf_event_open userfaultfd",
    ),
    ("keys, which no namespace divides", "add_key request_key keyctl"),
    (
        "memory placement",
        "mbind migrate_pages move_pages get_mempolicy set_mempolicy set_mempolicy_home_node",
    ),
    ("ports and old processor modes", "iopl ioperm vm86 vm86old"),
    ("too often broken into", "io_uring_setup io_uring_enter io_uring_register"),
];

/// Calls of these that a capability is for: who is given it is not refused them. capabilities(7).
const GIVEN: [(&str, &str); 11] = [
    ("CAP_BPF", "bpf"),
    ("CAP_DAC_READ_SEARCH", "open_by_handle_at name_to_handle_at"),
    ("CAP_PERFMON", "perf_event_open"),
    (
        "CAP_SYS_ADMIN",
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick mount mount_setattr move_mount open_tree open_tree_attr perf_event_open pivot_root quotactl quotactl_fd setdomainname sethostname setns swapoff swapon umount umount2 unshare",
    ),
    ("CAP_SYS_BOOT", "reboot"),
    ("CAP_SYS_MODULE", "delete_module finit_module init_module"),
    ("CAP_SYS_NICE", "get_mempolicy mbind migrate_pages move_pages set_mempolicy set_mempolicy_home_node"),
    ("CAP_SYS_PTRACE", "kcmp pidfd_getfd process_vm_readv process_vm_writev"),
    ("CAP_SYS_RAWIO", "ioperm iopl"),
    ("CAP_SYS_TIME", "clock_settime clock_settime64 settimeofday stime"),
    ("CAP_SYSLOG", "syslog"),
];

/// Calls with rules of their own below.
const BY_ARGUMENT: &str = "clone clone3 personality socket";

/// Never implemented by Linux: no filter needs them.
const NEVER: &str = "afs_syscall bdflush break ftime getpmsg gtty lock mpx prof profil putpmsg security stty tuxcall ulimit vserver _sysctl epoll_ctl_old epoll_wait_old llseek";

/// The flags of clone(2) that make a namespace: NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET.
const NAMESPACES: u64 = 0x7e02_0000;
/// Personalities that change no protection: PER_LINUX, PER_LINUX32, UNAME26, both, and the question (personality(2)).
const PERSONALITIES: [u64; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];
const ENOSYS: u32 = 38;

/// The `linux.seccomp` of a config.json, for a container with these capabilities.
pub(super) fn profile(capabilities: &[String]) -> Value {
    let given = given(capabilities);
    let clone = json!([{"index": 0, "value": NAMESPACES, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]);
    let mut rules = vec![json!({"names": allowed(), "action": "SCMP_ACT_ALLOW"})];
    if !given.contains(&"clone") {
        rules.push(json!({"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": clone}));
    }
    if !given.contains(&"clone3") {
        // Its flags lie in memory, where no filter looks: with ENOSYS, C libraries fall back to clone.
        rules.push(json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS}));
    }
    if !given.is_empty() {
        rules.push(json!({"names": given, "action": "SCMP_ACT_ALLOW"}));
    }
    rules.extend(PERSONALITIES.map(|p| rule("personality", p, "SCMP_CMP_EQ")));
    // All families but AF_ALG (38) and AF_VSOCK (40): the kernel's cryptography, and the hypervisor.
    rules.extend(
        [(38, "SCMP_CMP_LT"), (39, "SCMP_CMP_EQ"), (40, "SCMP_CMP_GT")].map(|(n, op)| rule("socket", n, op)),
    );
    json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": architectures(), "syscalls": rules})
}

fn rule(name: &str, value: u64, op: &str) -> Value {
    json!({"names": [name], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": value, "op": op}]})
}

/// A profile of a file: `linux.seccomp` as it is, or engines' form of it, whose rules may be for some processors, kernels
/// and capabilities alone (containers-common, docker's default.json). For a container with these capabilities; `None` for
/// the usual ones. Errors: neither.
pub fn of_engine(text: &[u8], capabilities: Option<&[String]>) -> Result<Value> {
    let mut profile: Value = serde_json::from_slice(text)
        .map_err(|e| Error::new(Kind::Usage, format!("this is no profile: {e}")))?;
    if !profile["defaultAction"].is_string() {
        fail!(Usage, "this is no profile: it has no defaultAction");
    }
    let usual = CAPABILITIES.map(str::to_owned);
    let here = Here { capabilities: capabilities.unwrap_or(&usual), platform: Platform::host() };
    let Some(whole) = profile.as_object_mut() else { fail!(Usage, "this is no profile: it is no object") };
    if let Some(map) = whole.remove("archMap") {
        let own = architectures()[0].clone();
        let all = map.as_array().into_iter().flatten().find(|a| a["architecture"] == own);
        let further = all.and_then(|a| a["subArchitectures"].as_array()).cloned().unwrap_or_default();
        whole.insert("architectures".into(), [vec![own], further].concat().into());
    }
    let rules = whole.get("syscalls").and_then(Value::as_array).into_iter().flatten();
    let kept = rules.filter(|r| here.fits(r)).map(plain).collect::<Result<Vec<_>>>()?;
    whole.insert("syscalls".into(), kept.into());
    whole.remove("defaultErrno");
    Ok(profile)
}

/// What rules of engines may depend on.
struct Here<'a> {
    capabilities: &'a [String],
    platform: Platform,
}

impl Here<'_> {
    fn fits(&self, rule: &Value) -> bool {
        let list = |when: &str, what: &str| rule[when][what].as_array().cloned().unwrap_or_default();
        let given = |c: &Value| self.capabilities.iter().any(|own| c == own);
        let own = json!(self.platform.architecture);
        let arches = list("includes", "arches");
        list("includes", "caps").iter().all(given)
            && !list("excludes", "caps").iter().any(given)
            && (arches.is_empty() || arches.contains(&own))
            && !list("excludes", "arches").contains(&own)
            && rule["includes"]["minKernel"].as_str().is_none_or(new_enough)
            && !rule["excludes"]["minKernel"].as_str().is_some_and(new_enough)
    }
}

/// Whether this kernel is of a release, as `4.8`, or newer.
fn new_enough(release: &str) -> bool {
    let mut numbers = release.split('.').map(|n| n.parse::<u32>().unwrap_or(u32::MAX));
    let wanted = (numbers.next().unwrap_or(u32::MAX), numbers.next().unwrap_or(0));
    coracle_sys::process::kernel_release().is_ok_and(|own| own >= wanted)
}

/// A rule as the runtime specification has it. Errors: an errno by its name alone.
fn plain(rule: &Value) -> Result<Value> {
    let mut rule = rule.clone();
    let Some(members) = rule.as_object_mut() else { fail!(Usage, "a rule is no object") };
    for only in ["includes", "excludes", "comment"] {
        members.remove(only);
    }
    if members.remove("errno").is_some_and(|e| e != "") && !members.contains_key("errnoRet") {
        fail!(Usage, "a rule names its errno, but not its number; add errnoRet");
    }
    if let Some(name) = members.remove("name").filter(|n| *n != "") {
        members.insert("names".into(), json!([name]));
    }
    // Engines write what is not there as null.
    members.retain(|_, value| !value.is_null());
    Ok(rule)
}

fn given(capabilities: &[String]) -> Vec<&'static str> {
    let has = |name: &str| capabilities.iter().any(|c| c == name);
    let mut all: Vec<&str> =
        GIVEN.iter().filter(|(c, _)| has(c)).flat_map(|(_, names)| names.split_whitespace()).collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn allowed() -> Vec<&'static str> {
    let refused = REFUSED.iter().map(|(_, names)| *names).chain([BY_ARGUMENT, NEVER]);
    let refused: Vec<&str> = refused.flat_map(str::split_whitespace).collect();
    ALL.lines().filter(|name| !refused.contains(name)).collect()
}

/// The processor's own, and the 32-bit one that it runs too.
fn architectures() -> Value {
    match std::env::consts::ARCH {
        "x86_64" => json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]),
        "aarch64" => json!(["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]),
        "riscv64" => json!(["SCMP_ARCH_RISCV64"]),
        "powerpc64" => json!(["SCMP_ARCH_PPC64LE"]),
        "s390x" => json!(["SCMP_ARCH_S390X", "SCMP_ARCH_S390"]),
        _ => json!([]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_of_engines_are_for_some() {
        let rule = |name: &str, more: Value| {
            let mut rule = json!({"names": [name], "action": "SCMP_ACT_ALLOW", "args": null, "comment": "", "includes": {}, "excludes": {}});
            rule.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            rule
        };
        let own = Platform::host().architecture;
        let text = json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrno": "ENOSYS", "defaultErrnoRet": 38,
            "archMap": [{"architecture": architectures()[0], "subArchitectures": ["SCMP_ARCH_X32"]},
                {"architecture": "SCMP_ARCH_MIPS", "subArchitectures": []}],
            "syscalls": [rule("a", json!({})), rule("b", json!({"includes": {"caps": ["CAP_KILL", "CAP_BPF"]}})),
                rule("c", json!({"includes": {"caps": ["CAP_KILL"]}})), rule("d", json!({"excludes": {"caps": ["CAP_KILL"]}})),
                rule("e", json!({"includes": {"arches": ["mips", own]}})), rule("f", json!({"excludes": {"arches": [own]}})),
                rule("g", json!({"includes": {"minKernel": "999.1"}})), rule("h", json!({"includes": {"minKernel": "4.8"}})),
                rule("i", json!({"excludes": {"minKernel": "4.8"}})), rule("j", json!({"errno": "EPERM", "errnoRet": 1})),
                {"name": "k", "action": "SCMP_ACT_ALLOW"}]});
        let of =
            |capabilities: Option<&[String]>| of_engine(text.to_string().as_bytes(), capabilities).unwrap();
        let names = |profile: &Value| -> String {
            let all = profile["syscalls"].as_array().unwrap().iter();
            all.map(|r| r["names"][0].as_str().unwrap().to_owned()).collect()
        };
        let profile = of(None);
        assert_eq!(names(&profile), "acehjk");
        assert_eq!(profile["architectures"], json!([architectures()[0], "SCMP_ARCH_X32"]));
        assert_eq!(profile["syscalls"][0], json!({"names": ["a"], "action": "SCMP_ACT_ALLOW"}));
        assert_eq!(profile["defaultErrnoRet"], 38);
        assert_eq!(names(&of(Some(&["CAP_BPF".into(), "CAP_KILL".into()]))), "abcehjk");
        assert_eq!(names(&of(Some(&[]))), "adehjk");
        let plain =
            json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86"], "syscalls": []});
        assert_eq!(of_engine(plain.to_string().as_bytes(), None).unwrap(), plain);
        for bad in [
            "",
            "[]",
            "{}",
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["a"], "errno": "EPERM"}]}"#,
        ] {
            assert!(of_engine(bad.as_bytes(), None).is_err(), "{bad}");
        }
    }

    /// A rule that stands beside one with conditions would win over it: clone has the one or the other.
    #[test]
    fn a_capability_brings_its_calls() {
        let named = |capabilities: &[&str], name: &str| {
            let profile = profile(&capabilities.iter().map(|c| (*c).to_owned()).collect::<Vec<_>>());
            let rules = profile["syscalls"].as_array().unwrap().clone();
            let of = |r: &&Value| r["names"].as_array().unwrap().contains(&json!(name));
            rules.iter().filter(of).map(|r| (r["action"].clone(), r["args"].is_null())).collect::<Vec<_>>()
        };
        let allow = json!("SCMP_ACT_ALLOW");
        assert_eq!(named(&[], "mount"), []);
        assert_eq!(named(&["CAP_SYS_ADMIN"], "mount"), [(allow.clone(), true)]);
        assert_eq!(named(&["CAP_SYS_ADMIN"], "kexec_load"), []);
        assert_eq!(named(&[], "clone"), [(allow.clone(), false)]);
        assert_eq!(named(&["CAP_SYS_ADMIN"], "clone"), [(allow.clone(), true)]);
        assert_eq!(named(&["CAP_SYS_ADMIN", "CAP_BPF"], "bpf"), [(allow, true)]);
    }

    #[test]
    fn every_refused_name_is_a_call_and_none_is_allowed() {
        let allowed = allowed();
        for name in REFUSED
            .iter()
            .flat_map(|(_, names)| names.split_whitespace())
            .chain(BY_ARGUMENT.split_whitespace())
        {
            assert!(ALL.lines().any(|n| n == name), "{name} is not in syscalls.txt");
            assert!(!allowed.contains(&name), "{name}");
        }
        for name in
            ["read", "execve", "futex_time64", "ptrace", "chroot", "landlock_restrict_self", "fchmodat2"]
        {
            assert!(allowed.contains(&name), "{name}");
        }
        for name in GIVEN.iter().flat_map(|(_, names)| names.split_whitespace()) {
            assert!(
                !allowed.contains(&name) && ALL.lines().any(|n| n == name),
                "{name} is given to all, or none"
            );
        }
        assert!(allowed.len() > 380 && allowed.len() < 420, "{}", allowed.len());
    }
}
