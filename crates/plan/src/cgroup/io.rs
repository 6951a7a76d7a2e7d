//! config-linux.md, Block IO. Weights belong to an I/O scheduler: BFQ has files of its own, v2's io.weight is the cost
//! model's (iocost), v1's blkio.weight was CFQ's.

use super::SECTION;
use super::resources::{Writes, write};
use crate::problem::Findings;
use crate::steps::Absent;
use oci_spec::runtime::LinuxBlockIo;

pub(super) fn writes(io: &LinuxBlockIo, out: &mut Writes, found: &mut Findings) {
    let mut weights = Vec::new();
    if let Some(w) = io.weight().filter(|w| *w != 0) {
        weights.push((String::new(), w, "blockIO.weight".to_owned()));
    }
    let mut leaves = Vec::new();
    if let Some(w) = io.leaf_weight().filter(|w| *w != 0) {
        leaves.push((String::new(), w, "blockIO.leafWeight".to_owned()));
    }
    for (i, d) in io.weight_device().iter().flatten().enumerate() {
        let (device, origin) =
            (format!("{}:{} ", d.major(), d.minor()), format!("blockIO.weightDevice[{i}]"));
        if d.weight().is_none() && d.leaf_weight().is_none() {
            found.problem(
                format!("linux.resources.{origin}"),
                "has no weight",
                "config-linux.md, Block IO",
                "add weight, or remove it",
            );
        }
        weights.extend(d.weight().filter(|w| *w != 0).map(|w| (device.clone(), w, origin.clone())));
        leaves.extend(d.leaf_weight().filter(|w| *w != 0).map(|w| (device, w, origin)));
    }
    for (device, w, origin) in weights {
        weight(&device, w, &origin, out);
    }
    for (device, w, origin) in leaves {
        if out.v2 {
            found.problem(
                format!("linux.resources.{origin}"),
                "cgroup v2 has no leaf weights",
                SECTION,
                "remove leafWeight",
            );
        }
        let file = if device.is_empty() { "blkio.leaf_weight" } else { "blkio.leaf_weight_device" };
        out.add("", file, format!("{device}{w}"), &origin);
    }
    throttles(io, out);
}

/// BFQ's file, or the other one where BFQ is not there.
fn weight(device: &str, w: u16, origin: &str, out: &mut Writes) {
    let suffix = if device.is_empty() { "" } else { "_device" };
    let instead = if out.v2 {
        // 10 to 1000 of v1 onto 1 to 10000 of v2, linearly.
        let scaled = 1 + (u64::from(w).max(10) - 10) * 9999 / 990;
        write("io.weight", format!("{device}{scaled}"), origin)
    } else {
        write(&format!("blkio.weight{suffix}"), format!("{device}{w}"), origin)
    };
    let v1 = format!("blkio.bfq.weight{suffix}");
    out.add("io.bfq.weight", &v1, format!("{device}{w}"), origin).absent = Absent::Instead(Box::new(instead));
}

fn throttles(io: &LinuxBlockIo, out: &mut Writes) {
    for (list, key, old, name) in [
        (io.throttle_read_bps_device(), "rbps", "read_bps_device", "throttleReadBpsDevice"),
        (io.throttle_write_bps_device(), "wbps", "write_bps_device", "throttleWriteBpsDevice"),
        (io.throttle_read_iops_device(), "riops", "read_iops_device", "throttleReadIOPSDevice"),
        (io.throttle_write_iops_device(), "wiops", "write_iops_device", "throttleWriteIOPSDevice"),
    ] {
        for (i, d) in list.iter().flatten().enumerate() {
            let key = if out.v2 { format!("{key}=") } else { String::new() };
            let value = format!("{}:{} {key}{}", d.major(), d.minor(), d.rate());
            out.add("io.max", &format!("blkio.throttle.{old}"), value, &format!("blockIO.{name}[{i}]"));
        }
    }
}
