//! Seccomp: from the profile to a finished BPF program, compiled by libseccomp. config-linux.md, Seccomp.

use crate::limits::word;
use crate::problem::Findings;
use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompFilterFlag as Flag,
    LinuxSeccompOperator as Operator, LinuxSyscall,
};

const SECTION: &str = "config-linux.md, Seccomp";
const EPERM: u32 = 1;

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

/// The program (8-byte sock_filter records) and the flags for seccomp(2).
pub(crate) fn compile(
    profile: &LinuxSeccomp,
    kept: Option<&Vec<u8>>,
    found: &mut Findings,
) -> Option<(Vec<u8>, u64)> {
    let notify = |a: Action| a == Action::ScmpActNotify;
    if notify(profile.default_action())
        || profile.syscalls().iter().flatten().any(|s| notify(s.action()))
        || profile.listener_path().is_some()
    {
        found.problem(
            "linux.seccomp.listenerPath",
            "a seccomp listener (SCMP_ACT_NOTIFY) is not built yet",
            SECTION,
            "use another action",
        );
        return None;
    }
    let flags = profile.flags().iter().flatten().map(flag).fold(0, |all, f| all | f);
    if let Some(program) = kept {
        return Some((program.clone(), flags));
    }
    match build(profile, found).and_then(|context| export(&context)) {
        Ok(program) => Some((program, flags)),
        Err(what) => {
            found.problem("linux.seccomp", what, SECTION, "correct the profile");
            None
        }
    }
}

fn flag(asked: &Flag) -> u64 {
    match word(asked).as_str() {
        "SECCOMP_FILTER_FLAG_TSYNC" => 1,
        "SECCOMP_FILTER_FLAG_LOG" => 2,
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => 4,
        _ => 1 << 5, // WAIT_KILLABLE_RECV
    }
}

fn build(profile: &LinuxSeccomp, found: &mut Findings) -> Result<ScmpFilterContext, String> {
    let default = action(profile.default_action(), profile.default_errno_ret());
    let mut context = ScmpFilterContext::new(default).map_err(|e| format!("libseccomp: {e}"))?;
    for arch in profile.architectures().iter().flatten() {
        let name = word(arch);
        let arch: ScmpArch =
            name.parse().map_err(|_| format!("architectures: {name} is not known to this libseccomp"))?;
        context.add_arch(arch).map_err(|e| format!("architectures: {name}: {e}"))?;
    }
    // A balanced tree instead of a list: the filter runs at every syscall of the workload. seccomp_attr_set(3).
    let _ = context.set_ctl_optimize(2);
    for (i, rule) in profile.syscalls().iter().flatten().enumerate() {
        add(&mut context, rule, default, &format!("linux.seccomp.syscalls[{i}]"), found)?;
    }
    Ok(context)
}

fn add(
    context: &mut ScmpFilterContext,
    rule: &LinuxSyscall,
    default: ScmpAction,
    at: &str,
    found: &mut Findings,
) -> Result<(), String> {
    let what = action(rule.action(), rule.errno_ret());
    if rule.names().is_empty() {
        found.problem(
            format!("{at}.names"),
            "names no syscall",
            SECTION,
            "name at least one, or remove the rule",
        );
    }
    if what == default {
        return Ok(()); // the default says the same; libseccomp refuses such a rule
    }
    for name in rule.names() {
        // A name that libseccomp does not know is passed over, as every engine's profile expects: such a syscall has no number here.
        let Ok(call) = ScmpSyscall::from_name(name) else { continue };
        for comparisons in groups(rule.args().as_deref().unwrap_or(&[]), at)? {
            let added = if comparisons.is_empty() {
                context.add_rule(what, call)
            } else {
                context.add_rule_conditional(what, call, &comparisons)
            };
            added.map_err(|e| format!("{at}: {name}: {e}"))?;
        }
    }
    Ok(())
}

/// Conditions that must hold together. libseccomp takes one condition an argument; where one argument is named twice, each
/// condition becomes a rule of its own, as peers do.
fn groups(args: &[LinuxSeccompArg], at: &str) -> Result<Vec<Vec<ScmpArgCompare>>, String> {
    let mut count = [0; 6];
    let mut all = Vec::new();
    for (j, arg) in args.iter().enumerate() {
        let seen = count
            .get_mut(arg.index())
            .ok_or(format!("{at}.args[{j}].index: {} is not from 0 to 5", arg.index()))?;
        *seen += 1;
        let (op, value) = operator(arg);
        all.push(ScmpArgCompare::new(arg.index() as u32, op, value));
    }
    let twice = count.iter().any(|n| *n > 1);
    Ok(if twice { all.into_iter().map(|c| vec![c]).collect() } else { vec![all] })
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
        ("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", 1 << 5),
    ];
    let archs = "SCMP_ARCH_AARCH64 SCMP_ARCH_ARM SCMP_ARCH_MIPS SCMP_ARCH_MIPS64 SCMP_ARCH_MIPS64N32 SCMP_ARCH_MIPSEL SCMP_ARCH_MIPSEL64 \
        SCMP_ARCH_MIPSEL64N32 SCMP_ARCH_PARISC SCMP_ARCH_PARISC64 SCMP_ARCH_PPC SCMP_ARCH_PPC64 SCMP_ARCH_PPC64LE SCMP_ARCH_RISCV64 SCMP_ARCH_S390 \
        SCMP_ARCH_S390X SCMP_ARCH_X32 SCMP_ARCH_X86 SCMP_ARCH_X86_64";
    serde_json::json!({
        "enabled": true,
        "actions": ["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_LOG", "SCMP_ACT_TRACE", "SCMP_ACT_TRAP"],
        "operators": ["SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT", "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE"],
        "archs": archs.split_whitespace().filter(|a| a.parse::<ScmpArch>().is_ok()).collect::<Vec<_>>(),
        "knownFlags": flags.map(|f| f.0),
        "supportedFlags": flags.iter().filter(|f| known(f.1)).map(|f| f.0).collect::<Vec<_>>(),
    })
}

/// The version of the libseccomp that is linked in.
pub fn libseccomp_version() -> String {
    libseccomp::ScmpVersion::current().map(|v| v.to_string()).unwrap_or_default()
}

/// A name for the program that this build makes of a profile: equal only for equal profiles, builds and libseccomp.
pub fn seccomp_key(profile: &LinuxSeccomp) -> String {
    use sha2::{Digest, Sha256};
    let mut hash = Sha256::new();
    hash.update(env!("CARGO_PKG_VERSION"));
    hash.update(libseccomp_version());
    hash.update(std::env::consts::ARCH);
    hash.update(serde_json::to_vec(profile).unwrap_or_default());
    hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
}
