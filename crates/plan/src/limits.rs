//! Limits and scheduling of the workload: config.md, POSIX process, Linux Process; config-linux.md, Personality, Memory policy.

use crate::config::known_as;
use crate::problem::Findings;
use crate::steps::{Act, Step};
use coracle_sys::{libc, limits::SchedAttr};
use oci_spec::runtime::{
    IOPriorityClass, LinuxMemoryPolicy, LinuxPersonalityDomain, LinuxSchedulerFlag as Flag,
    LinuxSchedulerPolicy as Policy, MemoryPolicyFlagType, MemoryPolicyModeType as Mode, Process, Scheduler,
    Spec,
};
use serde_json::Value;

/// RLIMIT_* numbers by name: getrlimit(2).
const RESOURCES: [(&str, u32); 16] = [
    ("RLIMIT_CPU", libc::RLIMIT_CPU),
    ("RLIMIT_FSIZE", libc::RLIMIT_FSIZE),
    ("RLIMIT_DATA", libc::RLIMIT_DATA),
    ("RLIMIT_STACK", libc::RLIMIT_STACK),
    ("RLIMIT_CORE", libc::RLIMIT_CORE),
    ("RLIMIT_RSS", libc::RLIMIT_RSS),
    ("RLIMIT_NPROC", libc::RLIMIT_NPROC),
    ("RLIMIT_NOFILE", libc::RLIMIT_NOFILE),
    ("RLIMIT_MEMLOCK", libc::RLIMIT_MEMLOCK),
    ("RLIMIT_AS", libc::RLIMIT_AS),
    ("RLIMIT_LOCKS", libc::RLIMIT_LOCKS),
    ("RLIMIT_SIGPENDING", libc::RLIMIT_SIGPENDING),
    ("RLIMIT_MSGQUEUE", libc::RLIMIT_MSGQUEUE),
    ("RLIMIT_NICE", libc::RLIMIT_NICE),
    ("RLIMIT_RTPRIO", libc::RLIMIT_RTPRIO),
    ("RLIMIT_RTTIME", libc::RLIMIT_RTTIME),
];

/// The names of all limits.
pub fn rlimit_names() -> impl Iterator<Item = &'static str> {
    RESOURCES.iter().map(|(name, _)| *name)
}

/// A limit's name by its number.
pub fn rlimit_name(number: u32) -> &'static str {
    RESOURCES.iter().find(|(_, n)| *n == number).map_or("an unknown resource", |(name, _)| *name)
}

pub(crate) fn rlimits(process: &Process, found: &mut Findings) -> Vec<Step> {
    let mut out: Vec<Step> = Vec::new();
    let mut seen = Vec::new();
    for (i, limit) in process.rlimits().iter().flatten().enumerate() {
        let origin = format!("process.rlimits[{i}]");
        let name = limit.typ().to_string();
        if seen.contains(&name) {
            found.problem(
                &origin,
                format!("{name} is limited twice"),
                "config.md, POSIX process",
                "keep one of the two",
            );
        }
        if limit.soft() > limit.hard() {
            found.problem(
                format!("{origin}.soft"),
                format!("{} is over the hard limit {}", limit.soft(), limit.hard()),
                "getrlimit(2)",
                "lower it, or raise hard",
            );
        }
        match RESOURCES.iter().find(|(n, _)| *n == name) {
            Some((_, number)) => {
                out.push(Step { act: Act::Rlimit(*number, limit.soft(), limit.hard()), origin })
            }
            None => found.problem(
                format!("{origin}.type"),
                format!("{name} is not a limit"),
                "getrlimit(2)",
                "use one of RLIMIT_*",
            ),
        }
        seen.push(name);
    }
    out
}

pub(crate) fn scheduling(process: &Process, found: &mut Findings) -> Vec<Step> {
    let mut out = Vec::new();
    if let Some(io) = process.io_priority() {
        let class = match io.class() {
            IOPriorityClass::IoprioClassRt => 1,
            IOPriorityClass::IoprioClassBe => 2,
            IOPriorityClass::IoprioClassIdle => 3,
        };
        if !(0..=7).contains(&io.priority()) {
            found.problem(
                "process.ioPriority.priority",
                format!("{} is not from 0 to 7", io.priority()),
                "ioprio_set(2)",
                "write 0 (served first) to 7",
            );
        }
        out.push(Step {
            act: Act::IoPriority(class, io.priority().clamp(0, 7) as u32),
            origin: "process.ioPriority".into(),
        });
    }
    if let Some(s) = process.scheduler() {
        let policy = match s.policy() {
            Policy::SchedOther => 0,
            Policy::SchedFifo => 1,
            Policy::SchedRr => 2,
            Policy::SchedBatch => 3,
            Policy::SchedIso => 4,
            Policy::SchedIdle => 5,
            Policy::SchedDeadline => 6,
        };
        let bit = |f: &Flag| match f {
            Flag::SchedResetOnFork => 1,
            Flag::SchedFlagReclaim => 2,
            Flag::SchedFlagDLOverrun => 4,
            Flag::SchedFlagKeepPolicy => 8,
            Flag::SchedFlagKeepParams => 0x10,
            Flag::SchedFlagUtilClampMin => 0x20,
            Flag::SchedFlagUtilClampMax => 0x40,
        };
        check_scheduler(s, found);
        let attributes = SchedAttr {
            size: 0,
            policy,
            flags: s.flags().iter().flatten().map(bit).fold(0, |all, f| all | f),
            nice: s.nice().unwrap_or(0),
            priority: s.priority().unwrap_or(0).max(0) as u32,
            runtime: s.runtime().unwrap_or(0),
            deadline: s.deadline().unwrap_or(0),
            period: s.period().unwrap_or(0),
        };
        out.push(Step { act: Act::Scheduler(attributes), origin: "process.scheduler".into() });
    }
    out
}

/// What the policies take: sched(7), sched_setattr(2). The kernel would say no more than that something is wrong.
fn check_scheduler(s: &Scheduler, found: &mut Findings) {
    let (policy, at) = (word(s.policy()), |field: &str| format!("process.scheduler.{field}"));
    // With these flags what stands there already counts.
    if s.flags().iter().flatten().any(|f| matches!(f, Flag::SchedFlagKeepPolicy | Flag::SchedFlagKeepParams))
    {
        return;
    }
    let nice = s.nice().unwrap_or(0);
    if !(-20..=19).contains(&nice) {
        found.problem(
            at("nice"),
            format!("{nice} is not from -20 to 19"),
            "sched(7)",
            "write -20 (most CPU time) to 19",
        );
    }
    let priority = s.priority().unwrap_or(0);
    let real_time = matches!(s.policy(), Policy::SchedFifo | Policy::SchedRr);
    if real_time && !(1..=99).contains(&priority) {
        let what = format!("{priority} is not from 1 to 99, as {policy} needs it");
        found.problem(at("priority"), what, "sched(7)", "write 1 to 99 (runs before all others)");
    } else if !real_time && priority != 0 {
        let what = format!("{priority} means nothing to {policy}");
        found.problem(at("priority"), what, "sched(7)", "remove it, or use SCHED_FIFO or SCHED_RR");
    }
    let (runtime, deadline, period) =
        (s.runtime().unwrap_or(0), s.deadline().unwrap_or(0), s.period().unwrap_or(0));
    if *s.policy() == Policy::SchedDeadline {
        if let Some((field, what)) = misfit(*s.runtime(), *s.deadline(), period) {
            found.problem(
                at(field),
                format!("sched_setattr: `SCHED_DEADLINE` {what}"),
                "sched_setattr(2)",
                "give nanoseconds with 1024 <= runtime <= deadline <= period",
            );
        }
        return;
    }
    for (field, value) in [("runtime", runtime), ("deadline", deadline), ("period", period)] {
        if value != 0 {
            let what = format!("{value} means nothing to {policy}");
            found.problem(at(field), what, "sched(7)", "remove it, or use SCHED_DEADLINE");
        }
    }
}

/// What of a deadline's three times the kernel would not take, and where it stands. A period of 0 is the deadline.
fn misfit(runtime: Option<u64>, deadline: Option<u64>, period: u64) -> Option<(&'static str, String)> {
    let times = 1024..=i64::MAX as u64;
    let Some(deadline) = deadline.filter(|d| *d != 0) else {
        return Some(("deadline", "requires `deadline`".into()));
    };
    Some(match runtime {
        None => ("runtime", "requires `runtime`".into()),
        Some(0) => ("runtime", "runtime must be greater than 0".into()),
        Some(n) if !times.contains(&n) => {
            let (least, most) = times.into_inner();
            ("runtime", format!("runtime {n} must be between {least} and {most}"))
        }
        Some(n) if n > deadline => ("runtime", format!("runtime {n} must be <= deadline {deadline}")),
        _ if period != 0 && deadline > period => {
            ("deadline", format!("deadline {deadline} must be <= period {period}"))
        }
        _ => return None,
    })
}

pub(crate) fn domain_and_memory(spec: &Spec, found: &mut Findings) -> Vec<Step> {
    let mut out = Vec::new();
    let Some(linux) = spec.linux() else { return out };
    if let Some(p) = linux.personality() {
        if p.flags().as_ref().is_some_and(|f| !f.is_empty()) {
            found.problem(
                "linux.personality.flags",
                "the specification has no flags yet",
                "config-linux.md, Personality",
                "remove the member",
            );
        }
        let domain = if p.domain() == LinuxPersonalityDomain::PerLinux32 { 8 } else { 0 };
        out.push(Step { act: Act::Personality(domain), origin: "linux.personality".into() });
    }
    if let Some(m) = linux.memory_policy() {
        let mode = match m.mode() {
            Mode::MpolDefault => 0,
            Mode::MpolPreferred => 1,
            Mode::MpolBind => 2,
            Mode::MpolInterleave => 3,
            Mode::MpolLocal => 4,
            Mode::MpolPreferredMany => 5,
            Mode::MpolWeightedInterleave => 6,
        };
        let bit = |f: &MemoryPolicyFlagType| match f {
            MemoryPolicyFlagType::MpolFStaticNodes => 1 << 15,
            MemoryPolicyFlagType::MpolFRelativeNodes => 1 << 14,
            MemoryPolicyFlagType::MpolFNumaBalancing => 1 << 13,
        };
        let flags: u32 = m.flags().iter().flatten().map(bit).fold(0, |all, f| all | f);
        let nodes = list(m.nodes().as_deref().unwrap_or(""), "linux.memoryPolicy.nodes", found);
        check_memory_policy(m, &nodes, found);
        out.push(Step { act: Act::MemoryPolicy(mode | flags, nodes), origin: "linux.memoryPolicy".into() });
    }
    out
}

/// Which modes take nodes, and which flags go together: config-linux.md, Memory policy; set_mempolicy(2).
fn check_memory_policy(m: &LinuxMemoryPolicy, named: &[u64], found: &mut Findings) {
    let (mode, section) = (word(m.mode()), "config-linux.md, Memory policy");
    let nodes = m.nodes().as_deref().unwrap_or("");
    let none = matches!(m.mode(), Mode::MpolDefault | Mode::MpolLocal);
    if none && !nodes.is_empty() {
        let count: u32 = named.iter().map(|word| word.count_ones()).sum();
        let what = format!("{nodes:?} means nothing to {mode}: mode requires 0 nodes but got {count}");
        found.problem("linux.memoryPolicy.nodes", what, section, "remove it, or use another mode");
    } else if !none && m.mode() != Mode::MpolPreferred && nodes.is_empty() {
        let what = format!("is missing, and {mode} needs at least one node");
        found.problem("linux.memoryPolicy.nodes", what, section, "name nodes, such as 0-3,7");
    }
    let has = |flag| m.flags().iter().flatten().any(|f| *f == flag);
    if has(MemoryPolicyFlagType::MpolFStaticNodes) && has(MemoryPolicyFlagType::MpolFRelativeNodes) {
        found.problem(
            "linux.memoryPolicy.flags",
            "MPOL_F_STATIC_NODES and MPOL_F_RELATIVE_NODES exclude each other",
            "set_mempolicy(2)",
            "keep one of the two",
        );
    }
}

/// A list such as `0-3,7` as a bit each: cpuset(7), List format.
pub(crate) fn list(text: &str, at: &str, found: &mut Findings) -> Vec<u64> {
    let mut mask: Vec<u64> = Vec::new();
    for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        let (a, b) = part.split_once('-').unwrap_or((part, part));
        match (a.parse::<usize>(), b.parse::<usize>()) {
            (Ok(a), Ok(b)) if a <= b && b < 8192 => {
                mask.resize(mask.len().max(b / 64 + 1), 0);
                (a..=b).for_each(|n| mask[n / 64] |= 1 << (n % 64));
            }
            _ => found.problem(
                at,
                format!("{part:?} is not a number or a range below 8192{}", known_as(at)),
                "cpuset(7)",
                "write a list such as 0-3,7",
            ),
        }
    }
    mask
}

/// The value to write to /proc/self/oom_score_adj.
pub(crate) fn oom_score(process: &Process, found: &mut Findings) -> Option<i32> {
    let score = process.oom_score_adj()?;
    if !(-1000..=1000).contains(&score) {
        found.problem(
            "process.oomScoreAdj",
            format!("{score} is not from -1000 to 1000"),
            "proc_pid_oom_score_adj(5)",
            "write -1000 (never killed) to 1000 (killed first)",
        );
    }
    Some(score)
}

/// Serialises an enum to the word that config.json has for it.
pub(crate) fn word<T: serde::Serialize>(value: T) -> String {
    serde_json::to_value(value).ok().as_ref().and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// What `features` says of memory policies.
pub fn memory_policy_features() -> serde_json::Value {
    let modes = [
        "MPOL_DEFAULT",
        "MPOL_BIND",
        "MPOL_INTERLEAVE",
        "MPOL_WEIGHTED_INTERLEAVE",
        "MPOL_PREFERRED",
        "MPOL_PREFERRED_MANY",
        "MPOL_LOCAL",
    ];
    serde_json::json!({"modes": modes, "flags": ["MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES"]})
}
