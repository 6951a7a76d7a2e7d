//! Intel's Resource Director Technology: cache and memory bandwidth. config-linux.md, IntelRdt; the kernel's
//! filesystems/resctrl.rst. Whether the host has it is not known here.

use crate::problem::Findings;
use crate::steps::{Class, Rdt};
use oci_spec::runtime::Spec;

const SECTION: &str = "config-linux.md, IntelRdt";

/// Decides the group of the container with this id.
pub(crate) fn plan(spec: &Spec, id: &str, found: &mut Findings) -> Option<Rdt> {
    let asked = spec.linux().as_ref()?.intel_rdt().as_ref()?;
    let line = |text: &Option<String>, name: &str, prefix: &str, found: &mut Findings| {
        let text = text.clone().filter(|t| !t.is_empty())?;
        check_line(&text, &format!("linux.intelRdt.{name}"), prefix, found);
        Some(text)
    };
    let cache = line(asked.l3_cache_schema(), "l3CacheSchema", "", found);
    let bandwidth = line(asked.mem_bw_schema(), "memBwSchema", "MB:", found);
    let schemata = asked.schemata().clone().unwrap_or_default();
    for (i, text) in schemata.iter().enumerate() {
        check_line(text, &format!("linux.intelRdt.schemata[{i}]"), "", found);
    }
    let first: Vec<String> = cache.into_iter().chain(bandwidth).collect();
    let named = asked.clos_id().as_deref().filter(|c| !c.is_empty());
    let class = match named {
        None => Class::Own,
        Some(_) if first.is_empty() && schemata.is_empty() => Class::Existing,
        Some(_) => Class::Shared,
    };
    check_class(named.unwrap_or_default(), found);
    Some(Rdt {
        directory: named.map_or(id, |c| c.trim_start_matches('/')).to_owned(),
        class,
        first,
        schemata,
        monitor: (asked.enable_monitoring() == &Some(true)).then(|| id.to_owned()),
    })
}

fn check_line(text: &str, at: &str, prefix: &str, found: &mut Findings) {
    if text.contains('\n') {
        found.problem(at, format!("{text:?} is more than one line"), SECTION, "write each line by itself");
    }
    if !text.starts_with(prefix) {
        found.problem(
            at,
            format!("{text:?} does not begin with {prefix}"),
            SECTION,
            format!("write a line such as {prefix}0=…"),
        );
    }
}

/// A directory below the root of the file system, and none that the kernel has there already for something else.
fn check_class(name: &str, found: &mut Findings) {
    let taken = matches!(name, "." | ".." | "info" | "mon_groups" | "mon_data");
    if name != "/" && (name.contains('/') || name.contains('\n') || taken) {
        found.problem(
            "linux.intelRdt.closID",
            format!("{name:?} cannot be the name of a class of service"),
            SECTION,
            "use one word, or / for the default class",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(fields: &str) -> (Option<Rdt>, String) {
        let text = format!(r#"{{"ociVersion":"1.3.0","linux":{{"intelRdt":{{{fields}}}}}}}"#);
        let (spec, _) = crate::config::parse(text.as_bytes()).expect("read");
        let mut found = Findings::default();
        let out = plan(&spec, "c1", &mut found);
        (out, found.problems.iter().map(|p| format!("{p}\n")).collect())
    }

    #[test]
    fn without_a_name_the_class_is_the_containers_own() {
        let (rdt, _) = decide(
            r#""memBwSchema":"MB:0=20","l3CacheSchema":"L3:0=f","schemata":["L2:0=3"],"enableMonitoring":true"#,
        );
        let rdt = rdt.expect("asked for");
        assert_eq!((rdt.directory.as_str(), rdt.class), ("c1", Class::Own));
        assert_eq!(
            (rdt.first, rdt.schemata),
            (vec!["L3:0=f".into(), "MB:0=20".into()], vec!["L2:0=3".into()])
        );
        assert_eq!(rdt.monitor.as_deref(), Some("c1"));
    }

    #[test]
    fn a_class_with_a_name_is_shared_and_without_schemata_it_must_be_there() {
        let class = |fields| decide(fields).0.map(|r| (r.directory, r.class, r.monitor));
        assert_eq!(class(r#""closID":"gold""#), Some(("gold".into(), Class::Existing, None)));
        assert_eq!(
            class(r#""closID":"gold","schemata":["MB:0=9"]"#),
            Some(("gold".into(), Class::Shared, None))
        );
        assert_eq!(class(r#""closID":"/""#), Some((String::new(), Class::Existing, None)));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (fields, at) in [
            (r#""closID":"a/b""#, "closID"),
            (r#""closID":"..""#, "closID"),
            (r#""closID":"info""#, "closID"),
            (r#""memBwSchema":"L3:0=1""#, "memBwSchema"),
            (r#""l3CacheSchema":"L3:0=1\nMB:0=1""#, "l3CacheSchema"),
            (r#""schemata":["a","b\nc"]"#, "schemata[1]"),
        ] {
            let problems = decide(fields).1;
            assert!(problems.starts_with(&format!("linux.intelRdt.{at}: ")), "{fields}: {problems}");
        }
        assert_eq!(decide(r#""closID":"a","memBwSchema":"MB:0=1""#).1, "");
    }
}
