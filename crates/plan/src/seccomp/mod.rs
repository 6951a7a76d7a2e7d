//! Seccomp: from the profile to a finished BPF program, compiled by libseccomp. config-linux.md, Seccomp.

mod newer;

use crate::limits::word;
use crate::problem::Findings;
use crate::steps::{Filter, Listener};
use coracle_sys::seccomp::NEW_LISTENER;
use libseccomp::error::SeccompError;
use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompFilterFlag as Flag,
    LinuxSeccompOperator as Operator, LinuxSyscall,
};

const SECTION: &str = "config-linux.md, Seccomp";
const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

fn action(asked: Action, errno: Option<u32>) -> ScmpAction {
    let errno = errno.unwrap_or(EPERM);
    match asked {
        Action::ScmpActKill | Action::ScmpActKillThread => ScmpAction::KillThread,
        Action::ScmpActKillProcess => ScmpAction::KillProcess,
        Action::ScmpActTrap => ScmpAction::Trap,
        Action::ScmpActErrno => ScmpAction::Errno(errno as i32),
        Action::ScmpActTrace => ScmpAction::Trace(errno as u16),
        Action::ScmpActNotify => ScmpAction::Notify,
        Action::ScmpActLog => ScmpAction::Log,
        Action::ScmpActAllow => ScmpAction::Allow,
    }
}

fn operator(asked: &LinuxSeccompArg) -> (ScmpCompareOp, u64) {
    let op = match asked.op() {
        Operator::ScmpCmpNe => ScmpCompareOp::NotEqual,
        Operator::ScmpCmpLt => ScmpCompareOp::Less,
        Operator::ScmpCmpLe => ScmpCompareOp::LessOrEqual,
        Operator::ScmpCmpEq => ScmpCompareOp::Equal,
        Operator::ScmpCmpGe => ScmpCompareOp::GreaterEqual,
        Operator::ScmpCmpGt => ScmpCompareOp::Greater,
        // valueTwo is the value to compare with, value the mask: seccomp_rule_add(3), SCMP_CMP_MASKED_EQ.
        Operator::ScmpCmpMaskedEq => {
            return (ScmpCompareOp::MaskedEqual(asked.value()), asked.value_two().unwrap_or(0));
        }
    };
    (op, asked.value())
}

/// The finished filters: of what an agent decides on, if there is anything, and of all the rest. They are two, for the first is
/// loaded by create, where the agent is told, and the other by start: a strict one must not end the wait in between. Where
/// both say something of a call, the kernel takes what is stricter; seccomp(2). `strict`: a syscall that libseccomp does not know
/// is a mistake wherever it stands.
pub(crate) fn compile(
    profile: &LinuxSeccomp,
    strict: bool,
    kept: Option<&Vec<u8>>,
    found: &mut Findings,
) -> Option<(Option<Listener>, Filter)> {
    let mut listener = listener(profile, found);
    let mut flags = match profile.flags() {
        Some(flags) => flags.iter().map(flag).fold(0, |all, f| all | f),
        // What runc does where nothing is said: the kernel's own choice on speculation, not that before Linux 5.16.
        None => SPEC_ALLOW,
    };
    let (asking, telling) = (flags | NEW_LISTENER, flags & WAIT_KILLABLE != 0);
    flags &= !WAIT_KILLABLE;
    if telling && listener.is_none() {
        found.warn("linux.seccomp.flags: SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV means nothing without SCMP_ACT_NOTIFY; left out");
    }
    let kept = kept.filter(|_| !strict);
    let parts = [(Part::Notified, listener.is_some()), (Part::Rest, kept.is_none())];
    let parts: Vec<_> = parts.into_iter().filter(|(_, wanted)| *wanted).map(|(part, _)| part).collect();
    let mut programs = match parts.is_empty() {
        true => Vec::new(),
        false => build(profile, &parts, strict, found)?,
    };
    let program = kept.cloned().or_else(|| programs.pop())?;
    if let (Some(listener), Some(program)) = (&mut listener, programs.pop()) {
        listener.filter = Filter { program, flags: asking };
    }
    Some((listener, Filter { program, flags }))
}

/// What a filter is made of.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    /// The calls that an agent decides on; all others pass.
    Notified,
    /// All others; those of the agent pass.
    Rest,
}

impl Part {
    /// What the filter does with a call of which the profile says this; None: it says nothing.
    fn says(self, asked: Action, errno: Option<u32>) -> Option<ScmpAction> {
        match (self, asked) {
            (Part::Notified, Action::ScmpActNotify) => Some(ScmpAction::Notify),
            (Part::Notified, _) => None,
            (Part::Rest, Action::ScmpActNotify) => Some(ScmpAction::Allow),
            (Part::Rest, _) => Some(action(asked, errno)),
        }
    }
}

const SPEC_ALLOW: u64 = 4;
const WAIT_KILLABLE: u64 = 1 << 5;

fn flag(asked: &Flag) -> u64 {
    match word(asked).as_str() {
        // All threads at once: there is one.
        "SECCOMP_FILTER_FLAG_TSYNC" => 0,
        "SECCOMP_FILTER_FLAG_LOG" => 2,
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => SPEC_ALLOW,
        _ => WAIT_KILLABLE,
    }
}

/// Who decides on the calls that the profile does not decide.
fn listener(profile: &LinuxSeccomp, found: &mut Findings) -> Option<Listener> {
    let path = profile.listener_path().as_ref().filter(|p| !p.as_os_str().is_empty());
    if path.is_none() && profile.listener_metadata().as_ref().is_some_and(|m| !m.is_empty()) {
        found.warn("linux.seccomp.listenerMetadata: there is no listenerPath to send it to; left out");
    }
    if profile.default_action() == Action::ScmpActNotify {
        found.problem(
            "linux.seccomp.defaultAction",
            "SCMP_ACT_NOTIFY cannot be used as default action: nobody could tell the agent whom to listen to",
            SECTION,
            "use it for single syscalls",
        );
    }
    let mut notified = profile
        .syscalls()
        .iter()
        .flatten()
        .enumerate()
        .filter(|(_, rule)| rule.action() == Action::ScmpActNotify)
        .flat_map(|(i, rule)| rule.names().iter().map(move |name| (i, name.as_str())))
        .peekable();
    notified.peek()?;
    let mut by_number = false;
    for (i, name) in notified {
        by_number |= name == "sendmsg";
        if name == "write" {
            found.problem(
                format!("linux.seccomp.syscalls[{i}].names"),
                "SCMP_ACT_NOTIFY cannot be used for the write syscall: it takes one to begin listening",
                SECTION,
                "leave write out",
            );
        }
    }
    let Some(path) = path else {
        found.problem(
            "linux.seccomp.listenerPath",
            "is missing, and there are syscalls with SCMP_ACT_NOTIFY",
            SECTION,
            "name the socket of the agent that decides",
        );
        return None;
    };
    let path = found.cstring("linux.seccomp.listenerPath", path.as_os_str().as_encoded_bytes());
    let metadata = profile.listener_metadata().clone().unwrap_or_default();
    Some(Listener { filter: Filter { program: Vec::new(), flags: 0 }, path, metadata, by_number })
}

/// An errno belongs to actions that return one; a number that is too large would come back as another. seccomp(2).
fn check_errno(action: Action, errno: Option<u32>, at: String, found: &mut Findings) {
    let Some(errno) = errno else { return };
    let most = match action {
        Action::ScmpActErrno => 4095,
        Action::ScmpActTrace => u16::MAX.into(),
        _ => {
            let what = format!("{} returns no errno", word(action));
            return found.problem(at, what, SECTION, "remove it, or use SCMP_ACT_ERRNO");
        }
    };
    if errno > most {
        let what = format!("{errno} is more than the {most} that {} can return", word(action));
        found.problem(at, what, SECTION, "write an errno, such as 1 for EPERM");
    }
}

/// crun's annotation: refuse a profile that names a syscall which libseccomp does not know.
pub(crate) const STRICT: &str = "run.oci.seccomp_fail_unknown_syscall";

/// Whether a call that the profile does not name is let through, or is for a tracer that may know it.
fn permissive(default: Action) -> bool {
    matches!(default, Action::ScmpActAllow | Action::ScmpActLog | Action::ScmpActTrace)
}

/// libseccomp's tree for many rules is wrong for none, up to 2.5.4; and pays for many only.
const MANY: usize = 32;

/// What libseccomp gives; what it refuses is a mistake at this place of the profile.
fn given<T>(result: Result<T, SeccompError>, at: &str, found: &mut Findings) -> Option<T> {
    result.map_err(|e| found.problem(at, format!("libseccomp: {e}"), SECTION, "correct it")).ok()
}

/// A filter that is being made.
struct Building {
    part: Part,
    context: ScmpFilterContext,
    default: ScmpAction,
    rules: usize,
}

impl Building {
    fn new(part: Part, profile: &LinuxSeccomp, found: &mut Findings) -> Option<Building> {
        let default = part.says(profile.default_action(), profile.default_errno_ret());
        let default = default.unwrap_or(ScmpAction::Allow);
        let context = given(ScmpFilterContext::new(default), "linux.seccomp", found)?;
        Some(Building { part, context, default, rules: 0 })
    }

    /// What the filter does by this rule; None: what it does without. libseccomp refuses such a rule.
    fn does(&self, rule: &LinuxSyscall) -> Option<ScmpAction> {
        self.part.says(rule.action(), rule.errno_ret()).filter(|what| *what != self.default)
    }

    fn add(
        &mut self,
        what: ScmpAction,
        call: ScmpSyscall,
        when: &[ScmpArgCompare],
    ) -> Result<(), SeccompError> {
        self.rules += 1;
        match when.is_empty() {
            true => self.context.add_rule(what, call).map(drop),
            false => self.context.add_rule_conditional(what, call, when).map(drop),
        }
    }

    /// The program: 8-byte sock_filter records.
    fn finish(&mut self) -> Result<Vec<u8>, String> {
        if self.rules > MANY {
            // A balanced tree instead of a list: the filter runs at every syscall of the workload. seccomp_attr_set(3).
            let _ = self.context.set_ctl_optimize(2);
        }
        export(&self.context)
    }
}

/// The programs of these parts. What is wrong with the profile is said once.
fn build(profile: &LinuxSeccomp, parts: &[Part], strict: bool, found: &mut Findings) -> Option<Vec<Vec<u8>>> {
    let errno = profile.default_errno_ret();
    check_errno(profile.default_action(), errno, "linux.seccomp.defaultErrnoRet".into(), found);
    let all = parts.iter().map(|part| Building::new(*part, profile, found));
    let mut all = all.collect::<Option<Vec<_>>>()?;
    let mut architectures = Vec::new();
    for (i, arch) in profile.architectures().iter().flatten().enumerate() {
        let (name, at) = (word(arch), format!("linux.seccomp.architectures[{i}]"));
        let Ok(arch) = name.parse::<ScmpArch>() else {
            let what = format!("libseccomp {} does not know {name}", libseccomp_version());
            found.problem(at, what, SECTION, "remove it");
            continue;
        };
        for one in &mut all {
            given(one.context.add_arch(arch), &at, found)?;
        }
        architectures.push(arch);
    }
    for (i, rule) in profile.syscalls().iter().flatten().enumerate() {
        let at = format!("linux.seccomp.syscalls[{i}]");
        let passes = !strict && (!permissive(profile.default_action()) || permissive(rule.action()));
        add(&mut all, rule, passes, &at, found)?;
    }
    let denies = !permissive(profile.default_action()) && errno != Some(ENOSYS);
    let finish = |one: &mut Building| {
        let filter =
            one.finish().map_err(|what| found.problem("linux.seccomp", what, SECTION, "correct the profile"));
        let newer = match one.part == Part::Rest && denies {
            true => newer::prefix(profile, &architectures),
            false => Vec::new(),
        };
        Some([newer, filter.ok()?].concat())
    };
    all.iter_mut().map(finish).collect()
}

/// Adds a rule where it changes anything. Names that libseccomp does not know pass where `passes`.
fn add(
    all: &mut [Building],
    rule: &LinuxSyscall,
    passes: bool,
    at: &str,
    found: &mut Findings,
) -> Option<()> {
    check_errno(rule.action(), rule.errno_ret(), format!("{at}.errnoRet"), found);
    if rule.names().is_empty() {
        found.problem(
            format!("{at}.names"),
            "names no syscall",
            SECTION,
            "name at least one, or remove the rule",
        );
    }
    let mut changed: Vec<_> = all.iter_mut().filter_map(|one| Some((one.does(rule)?, one))).collect();
    if changed.is_empty() {
        return Some(());
    }
    let groups = groups(rule.args().as_deref().unwrap_or(&[]), at, found);
    for (j, name) in rule.names().iter().enumerate() {
        let Ok(call) = ScmpSyscall::from_name(name) else {
            // Every engine's profile allows what an older libseccomp does not know: it stays forbidden. But what is to be
            // forbidden would be allowed.
            if !passes {
                unknown(name, format!("{at}.names[{j}]"), found);
            }
            continue;
        };
        for (what, one) in &mut changed {
            for comparisons in &groups {
                given(one.add(*what, call, comparisons), &format!("{at}.names[{j}]"), found)?;
            }
        }
    }
    Some(())
}

fn unknown(name: &str, at: String, found: &mut Findings) {
    found.problem(
        at,
        format!(
            "{name:?} is not a syscall that libseccomp {} knows, so the rule cannot hold",
            libseccomp_version()
        ),
        SECTION,
        "correct the name, or deny by default and allow what is needed",
    );
}

/// Conditions that must hold together. libseccomp takes one condition an argument; where one argument is named twice, each
/// condition becomes a rule of its own, as peers do.
fn groups(args: &[LinuxSeccompArg], at: &str, found: &mut Findings) -> Vec<Vec<ScmpArgCompare>> {
    let mut count = [0; 6];
    let mut all = Vec::new();
    for (j, arg) in args.iter().enumerate() {
        let Some(seen) = count.get_mut(arg.index()) else {
            let what = format!("{} is not from 0 to 5: a syscall has six arguments", arg.index());
            found.problem(
                format!("{at}.args[{j}].index"),
                what,
                SECTION,
                "write 0 for the first to 5 for the last",
            );
            continue;
        };
        *seen += 1;
        let (op, value) = operator(arg);
        all.push(ScmpArgCompare::new(arg.index() as u32, op, value));
    }
    let twice = count.iter().any(|n| *n > 1);
    if twice { all.into_iter().map(|c| vec![c]).collect() } else { vec![all] }
}

fn export(context: &ScmpFilterContext) -> Result<Vec<u8>, String> {
    let failed = |e: &dyn std::fmt::Display| format!("exporting the filter: {e}");
    let file = coracle_sys::fs::memfd_create(c"seccomp", 0).map_err(|e| failed(&e))?;
    let mut file = std::fs::File::from(file);
    context.export_bpf(&mut file).map_err(|e| failed(&e))?;
    use std::io::{Read, Seek};
    let mut program = Vec::new();
    file.rewind().and_then(|()| file.read_to_end(&mut program)).map_err(|e| failed(&e))?;
    Ok(program)
}

/// What `features` says of seccomp; `known` tells whether the kernel knows a filter flag.
pub fn seccomp_features(known: &dyn Fn(u64) -> bool) -> serde_json::Value {
    let flags = [
        ("SECCOMP_FILTER_FLAG_TSYNC", 1),
        ("SECCOMP_FILTER_FLAG_LOG", 2),
        ("SECCOMP_FILTER_FLAG_SPEC_ALLOW", 4),
        // Known only together with the flag that it changes.
        ("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", WAIT_KILLABLE | NEW_LISTENER),
    ];
    serde_json::json!({
        "enabled": true,
        "actions": ["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_LOG", "SCMP_ACT_NOTIFY", "SCMP_ACT_TRACE", "SCMP_ACT_TRAP"],
        "operators": ["SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT", "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE"],
        "archs": ARCHS.split_whitespace().filter(|a| joins(a)).collect::<Vec<_>>(),
        "knownFlags": flags.map(|f| f.0),
        "supportedFlags": flags.iter().filter(|f| known(f.1)).map(|f| f.0).collect::<Vec<_>>(),
    })
}

/// Those of the specification.
const ARCHS: &str = "SCMP_ARCH_AARCH64 SCMP_ARCH_ARM SCMP_ARCH_LOONGARCH64 SCMP_ARCH_M68K SCMP_ARCH_MIPS SCMP_ARCH_MIPS64 \
    SCMP_ARCH_MIPS64N32 SCMP_ARCH_MIPSEL SCMP_ARCH_MIPSEL64 SCMP_ARCH_MIPSEL64N32 SCMP_ARCH_PARISC SCMP_ARCH_PARISC64 SCMP_ARCH_PPC \
    SCMP_ARCH_PPC64 SCMP_ARCH_PPC64LE SCMP_ARCH_RISCV64 SCMP_ARCH_S390 SCMP_ARCH_S390X SCMP_ARCH_SH SCMP_ARCH_SHEB SCMP_ARCH_X32 \
    SCMP_ARCH_X86 SCMP_ARCH_X86_64";

/// Whether a filter of this machine can have the architecture beside its own: libseccomp takes those that it knows and that
/// order bytes as this one does. seccomp_arch_add(3).
fn joins(name: &str) -> bool {
    let Ok(arch) = name.parse::<ScmpArch>() else { return false };
    ScmpFilterContext::new(ScmpAction::Allow).is_ok_and(|mut filter| filter.add_arch(arch).is_ok())
}

/// The version of the libseccomp that is linked in.
pub fn libseccomp_version() -> String {
    libseccomp::ScmpVersion::current().map(|v| v.to_string()).unwrap_or_default()
}

/// To be changed with whatever this module makes of a profile.
const COMPILER: &str = "5";

/// A name for the program that this build makes of a profile: equal only for equal profiles, builds and libseccomp.
pub fn seccomp_key(profile: &LinuxSeccomp) -> String {
    use sha2::{Digest, Sha256};
    let mut hash = Sha256::new();
    hash.update(env!("CARGO_PKG_VERSION"));
    hash.update(COMPILER);
    hash.update(libseccomp_version());
    hash.update(std::env::consts::ARCH);
    hash.update(serde_json::to_vec(profile).unwrap_or_default());
    hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
}
