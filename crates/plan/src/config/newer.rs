//! What the specification has and oci-spec 0.10's types lack, said in words that these types know and that mean the same.

use serde_json::{Value, json};

/// Changes config.json so. For the second reading only: the first one failed.
pub(super) fn respell(whole: &mut Value) {
    scheduler_flags(whole);
    huge_limits(whole);
    empty_affinity(whole);
    no_user(whole);
    no_pids_limit(whole);
}

/// A word of these types as the specification has it.
pub(super) fn spelled(word: &str) -> String {
    match word {
        "SCHED_RESET_ON_FORK" => "SCHED_FLAG_RESET_ON_FORK",
        "SCHED_FLAG_D_L_OVERRUN" => "SCHED_FLAG_DL_OVERRUN",
        other => other,
    }
    .to_owned()
}

fn strings<'a>(whole: &'a mut Value, pointer: &str) -> impl Iterator<Item = &'a mut Value> {
    whole.pointer_mut(pointer).and_then(Value::as_array_mut).into_iter().flatten()
}

/// config.md, Linux Process, `scheduler`: two of its flags have other names there.
fn scheduler_flags(whole: &mut Value) {
    for flag in strings(whole, "/process/scheduler/flags") {
        let known = match flag.as_str() {
            Some("SCHED_FLAG_RESET_ON_FORK") => "SCHED_RESET_ON_FORK",
            Some("SCHED_FLAG_DL_OVERRUN") => "SCHED_FLAG_D_L_OVERRUN",
            _ => continue,
        };
        *flag = known.into();
    }
}

/// config-linux.md, Huge page limits: a uint64, read as an int64. What does not fit is no limit to the kernel, and so is the
/// largest that does (PAGE_COUNTER_MAX pages, in include/linux/page_counter.h).
fn huge_limits(whole: &mut Value) {
    for limit in strings(whole, "/linux/resources/hugepageLimits") {
        if let Some(number) = limit.get_mut("limit").filter(|n| n.as_u64() > Some(i64::MAX as u64)) {
            *number = i64::MAX.into();
        }
    }
}

/// config.md, Linux Process, `execCPUAffinity`: an empty list is none.
fn empty_affinity(whole: &mut Value) {
    if let Some(lists) = whole.pointer_mut("/process/execCPUAffinity").and_then(Value::as_object_mut) {
        lists.retain(|_, list| list != "");
    }
}

/// config.md, User: the members are REQUIRED, the object around them is not, and to programs in Go its absence is root.
fn no_user(whole: &mut Value) {
    if let Some(process) = whole.get_mut("process").and_then(Value::as_object_mut) {
        let user = process.entry("user").or_insert(Value::Null);
        if user.is_null() {
            *user = json!({"uid": 0, "gid": 0});
        }
    }
}

/// config-linux.md, PIDs: the limit is OPTIONAL.
fn no_pids_limit(whole: &mut Value) {
    if let Some(pids) = whole.pointer_mut("/linux/resources/pids").and_then(Value::as_object_mut) {
        pids.retain(|_, limit| !limit.is_null());
    }
}
