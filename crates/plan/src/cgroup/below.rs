//! Groups below the container's own, in which its processes are to be: crun's annotations (crun(1)). The limits stay on the
//! container's group, and so on all of them.

use crate::inputs::CgroupMode;
use crate::problem::Findings;
use crate::steps::Cgroup;
use oci_spec::runtime::Spec;

const SUBGROUP: &str = "run.oci.systemd.subgroup";
const DELEGATED: &str = "run.oci.delegate-cgroup";

/// Fills in `subgroup` and `delegated`. The first is for systemd's scopes, both are for v2: on v1 a group cannot be handed to a
/// container safely.
pub(super) fn plan(spec: &Spec, out: &mut Cgroup, found: &mut Findings) {
    for name in [SUBGROUP, DELEGATED] {
        let asked = spec.annotations().as_ref().and_then(|a| a.get(name)).filter(|path| !path.is_empty());
        let Some(asked) = asked.filter(|_| name == DELEGATED || out.unit.is_some()) else { continue };
        let at = format!("annotations[{name:?}]");
        if asked.split('/').any(|word| word == "..") {
            found.problem(
                &at,
                format!("{asked:?} leaves its place by .."),
                super::SECTION,
                "write the path without ..",
            );
        }
        let path = super::words(asked, &at, found);
        if out.mode != CgroupMode::Unified || out.path.is_none() {
            found.warn(format!(
                "{at}: it takes cgroup v2, and a control group of the container's own; left out"
            ));
        } else if name == SUBGROUP {
            out.subgroup = path;
        } else {
            out.delegated = path;
        }
    }
}

/// Whether the container's processes are, or may be, in a group below its own. The configuration was accepted before.
pub fn in_group_below(spec: &Spec) -> bool {
    [SUBGROUP, DELEGATED]
        .iter()
        .any(|name| spec.annotations().as_ref().is_some_and(|a| a.contains_key(*name)))
}
