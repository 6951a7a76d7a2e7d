//! `update`: new limits for a container that exists. What is absent, zero or empty in the new ones stays as it was, as with
//! runc; pairs that the kernel or systemd takes together (quota and period, memory and swap) are completed from the old.

use super::{resources, systemd};
use crate::inputs::{CgroupMode, Systemd};
use crate::problem::{Findings, Refusal};
use crate::steps::Update;
use crate::{config, devices};
use oci_spec::runtime::LinuxResources;
use serde_json::{Map, Value};

const SECTION: &str = "config-linux.md, Control groups";

/// Decides an update. `old` and `new` are `linux.resources` as JSON; `systemd` is the one that has the unit, if one has.
/// Errors: what is wrong with the new limits.
pub fn update(
    old: &Value,
    new: &Value,
    mode: CgroupMode,
    systemd: Option<&Systemd>,
) -> Result<Update, Refusal> {
    let mut found = Findings::default();
    let (new, amended) = config::resources(new)?;
    found.warnings = amended;
    let (old, new) = (object(old), object(&new));
    let mut change = meant(&new);
    let mut limits = old.clone();
    forget_swap(&change, &mut limits);
    merge(&mut limits, &change);
    complete(&mut change, &limits);
    let mut out = Update { limits: Value::Object(limits), ..Update::default() };
    // A list that is the one in force changes nothing: what others attached since (GPU tools do) stays.
    let devices = change.remove("devices").filter(|d| Some(d) != old.get("devices"));
    match serde_json::from_value::<LinuxResources>(Value::Object(change)) {
        Ok(resources) => out.writes = resources::writes(&resources, mode, &mut found),
        Err(e) => found.problem("resources", e.to_string(), SECTION, "correct the value"),
    }
    if let Some(list) = devices {
        match serde_json::from_value::<Vec<_>>(list) {
            Ok(list) => {
                set_devices(&devices::rules_of(&list, &mut found), mode, systemd, &mut out, &mut found)
            }
            Err(e) => found.problem("linux.resources.devices", e.to_string(), SECTION, "correct the list"),
        }
    }
    if let Some(host) = systemd {
        out.properties.extend(systemd::properties(&mut out.writes, host));
        // A scope takes it at its beginning only.
        out.properties.retain(|(name, _)| name != "OOMPolicy");
    }
    if new.get("memory").and_then(|m| m.get("checkBeforeUpdate")) == Some(&Value::Bool(true)) {
        let number = |name: &str| new.get("memory").and_then(|m| m.get(name)).and_then(Value::as_i64);
        out.unused = Some((number("limit").unwrap_or(0), number("swap").unwrap_or(0)));
    }
    out.warnings = std::mem::take(&mut found.warnings);
    if found.problems.is_empty() { Ok(out) } else { Err(Refusal(found.problems)) }
}

fn set_devices(
    rules: &[devices::Rule],
    mode: CgroupMode,
    systemd: Option<&Systemd>,
    out: &mut Update,
    found: &mut Findings,
) {
    if mode == CgroupMode::Unified {
        out.devices = devices::filter_or_problem(rules, found);
    } else {
        out.device_lines = devices::lines(rules);
        if systemd.is_some() {
            out.properties = devices::systemd_rules(rules, found);
        }
    }
}

fn object(value: &Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap_or_default()
}

/// Fields whose zero means something.
const COUNTS: [&str; 3] = ["idle", "burst", "swappiness"];

/// The change without what stands for "as it was".
fn meant(new: &Map<String, Value>) -> Map<String, Value> {
    let mut out = new.clone();
    for (topic, value) in &mut out {
        let Value::Object(fields) = value else { continue };
        if topic == "unified" {
            continue;
        }
        fields.retain(|name, v| {
            let zero_counts = COUNTS.contains(&name.as_str()) || (topic == "pids" && name == "limit");
            !(v.is_null() || v.as_str() == Some("") || (v.as_i64() == Some(0) && !zero_counts))
        });
    }
    out.retain(|_, v| !v.is_null() && v.as_object().is_none_or(|o| !o.is_empty()));
    out
}

/// A new unlimited memory without a word of swap lifts that limit too.
fn forget_swap(change: &Map<String, Value>, limits: &mut Map<String, Value>) {
    let Some(memory) = change.get("memory") else { return };
    let unlimited = memory.get("limit").and_then(Value::as_i64).is_some_and(|n| n < 0);
    if let (true, Some(Value::Object(old))) =
        (unlimited && memory.get("swap").is_none(), limits.get_mut("memory"))
    {
        old.remove("swap");
    }
}

/// Puts the change over the old: fields one by one, lists of devices by their numbers, other lists as a whole.
fn merge(into: &mut Map<String, Value>, change: &Map<String, Value>) {
    for (name, value) in change {
        match (into.get_mut(name), value) {
            (Some(Value::Object(old)), Value::Object(new)) => merge(old, new),
            (Some(Value::Array(old)), Value::Array(new)) if name != "devices" && name != "hugepageLimits" => {
                let number = |v: &Value| (v.get("major").cloned(), v.get("minor").cloned());
                for one in new {
                    old.retain(|o| number(o) != number(one));
                    old.push(one.clone());
                }
            }
            _ => {
                into.insert(name.clone(), value.clone());
            }
        }
    }
}

fn complete(change: &mut Map<String, Value>, limits: &Map<String, Value>) {
    for (topic, pair) in [("cpu", ["quota", "period"]), ("memory", ["limit", "swap"])] {
        let Some(Value::Object(fields)) = change.get_mut(topic) else { continue };
        let Some(all) = limits.get(topic).filter(|_| pair.iter().any(|p| fields.contains_key(*p))) else {
            continue;
        };
        for name in pair {
            if let (None, Some(value)) = (fields.get(name), all.get(name)) {
                fields.insert(name.into(), value.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(old: Value, new: Value) -> (String, Value) {
        let done = update(&old, &new, CgroupMode::Unified, None).expect("an update");
        let list: Vec<String> = done.writes.iter().map(|w| format!("{}={}", w.file, w.value)).collect();
        (list.join(" "), done.limits)
    }

    #[test]
    fn what_is_absent_or_zero_stays() {
        let old = json!({"memory": {"limit": 64, "reservation": 8}, "cpu": {"quota": 500, "period": 1000}});
        let new = json!({"memory": {"limit": 0, "checkBeforeUpdate": false}, "cpu": {"shares": 0, "cpus": ""}, "pids": null});
        let (writes, limits) = of(old.clone(), new);
        assert_eq!(writes, "");
        assert_eq!(limits["cpu"], old["cpu"]);
    }

    #[test]
    fn pairs_are_completed_from_before() {
        let old = json!({"memory": {"limit": 64, "swap": 96}, "cpu": {"quota": 500, "period": 1000}});
        assert_eq!(of(old.clone(), json!({"cpu": {"period": 900}})).0, "cpu.max=500 900");
        assert_eq!(of(old.clone(), json!({"cpu": {"quota": -1}})).0, "cpu.max=max 1000");
        assert_eq!(of(old.clone(), json!({"memory": {"limit": 80}})).0, "memory.swap.max=16 memory.max=80");
        assert_eq!(of(old, json!({"memory": {"limit": -1}})).0, "memory.swap.max=max memory.max=max");
    }

    #[test]
    fn zeros_that_mean_something_are_written() {
        let (writes, _) =
            of(json!({"cpu": {"idle": 1}}), json!({"cpu": {"idle": 0, "burst": 0}, "pids": {"limit": 0}}));
        assert_eq!(writes, "cpu.idle=0 cpu.max.burst=0 pids.max=1");
    }

    #[test]
    fn names_in_any_case_and_devices_by_number() {
        assert_eq!(
            of(json!({}), json!({"CPU": {"Cpus": "1"}, "unified": {"memory.high": "9"}})).0,
            "cpuset.cpus=1 memory.high=9"
        );
        let told = update(&json!({}), &json!({"cpu": {"Cpus": "1", "cups": "1"}}), CgroupMode::Unified, None);
        assert_eq!(
            told.expect("an update").warnings,
            [
                "linux.resources.cpu.Cpus: is taken for \"cpus\", as the specification has it",
                "linux.resources.cpu.cups: the specification has no such property (config.md, Extensibility); left out: is \"cpus\" meant?",
            ]
        );
        let device = |rate: u64| json!({"blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": rate}]}});
        let (writes, limits) = of(device(1), device(2));
        assert_eq!((writes.as_str(), limits), ("io.max=8:0 rbps=2", device(2)));
    }

    #[test]
    fn two_spellings_of_one_name_are_put_together() {
        let new =
            json!({"CPU": {"cpus": "0", "quota": 9}, "cpu": {"shares": 1024, "quota": 9, "period": 1000}});
        let limits = of(json!({}), new).1;
        assert_eq!(limits["cpu"], json!({"cpus": "0", "shares": 1024, "quota": 9, "period": 1000}));
        let two = json!({"CPU": {"quota": 7}, "cpu": {"quota": 9}});
        assert!(update(&json!({}), &two, CgroupMode::Unified, None).is_err());
    }

    #[test]
    fn the_device_list_in_force_changes_nothing() {
        let list = json!({"devices": [{"allow": false, "access": "rwm"}]});
        assert!(update(&list, &list, CgroupMode::Unified, None).expect("fine").devices.is_none());
        assert!(update(&json!({}), &list, CgroupMode::Unified, None).expect("fine").devices.is_some());
    }

    #[test]
    fn memory_in_use_is_to_be_checked_only_when_asked() {
        let new = json!({"memory": {"limit": 5, "checkBeforeUpdate": true}});
        assert_eq!(update(&json!({}), &new, CgroupMode::Unified, None).expect("fine").unused, Some((5, 0)));
    }
}
