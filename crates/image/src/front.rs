//! The front door: an image into a bundle, with whatever privileges the caller has.

use crate::bundle;
use crate::config::{self, Wishes};
use crate::error::{Error, Kind, Result};
use crate::events::Events;
use crate::layer::apply::{Owners, Style, Summary};
use crate::limits::Limits;
use crate::rootless::{self, Privilege};
use crate::source::Image;
use crate::unpack::{How, highest_ids};
use coracle_sys::Errno;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// What came of it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Report {
    /// What was unpacked.
    pub summary: Summary,
    /// Whether the kernel confined the extraction, and by what.
    pub confined: Vec<String>,
    /// What the user should know: wishes of the image that were not followed, what was left out.
    pub notes: Vec<String>,
}

/// Unpacks an image into a new bundle, verified whole or not there at all. The caller must have no threads yet.
/// Errors: everything that can be wrong with the image, the bundle's directory, or the caller's ids.
pub fn unpack(
    image: &Image,
    to: &Path,
    wishes: &Wishes,
    limits: &Limits,
    events: &dyn Events,
) -> Result<Report> {
    let privilege = Privilege::of_caller();
    let wishes = Wishes { ids: privilege.ids().cloned(), ..wishes.clone() };
    match &privilege {
        Privilege::Root => fill(image, to, Owners::Kept, &wishes, limits, events),
        Privilege::Subordinate(ids) => {
            rootless::inside(ids, || fill(image, to, Owners::Kept, &wishes, limits, events))
        }
        Privilege::Single(_, why) => {
            let mut report = fill(image, to, Owners::Caller, &wishes, limits, events)?;
            report.notes.push(format!("all files belong to you alone: {why}"));
            Ok(report)
        }
    }
}

fn fill(
    image: &Image,
    to: &Path,
    owners: Owners,
    wishes: &Wishes,
    limits: &Limits,
    events: &dyn Events,
) -> Result<Report> {
    let mut notes = Vec::new();
    let how = How { owners, style: Style::Flat, limits, events };
    let filled = bundle::fill(image, to, &how, |root| {
        let (spec, said) = config::config(image, wishes, root)?;
        notes = said;
        let text =
            serde_json::to_string_pretty(&spec).map_err(|e| Error::new(Kind::Corrupt, e.to_string()))?;
        Ok(format!("{text}\n").into_bytes())
    });
    let (summary, wall) = filled.map_err(|e| explain(e, image, wishes, limits))?;
    notes.extend(skipped(&summary));
    let parts = [(wall.landlock, "landlock"), (wall.root, "chroot")];
    let confined = parts.iter().filter(|(stands, _)| *stands).map(|(_, name)| (*name).to_owned()).collect();
    Ok(Report { summary, confined, notes })
}

/// The kernel says only EINVAL of an owner that is not mapped: say which ids the image needs, and what would give them.
pub(crate) fn explain(e: Error, image: &Image, wishes: &Wishes, limits: &Limits) -> Error {
    let Some(ids) = wishes.ids.as_ref().filter(|_| e.kind() == Kind::Os(Errno::EINVAL)) else { return e };
    let highest = highest_ids(&image.layers, limits).ok();
    match highest.and_then(|highest| rootless::too_few(ids, highest)) {
        Some(text) => Error::new(Kind::Unsupported, text),
        None => e,
    }
}

fn skipped(summary: &Summary) -> Vec<String> {
    let counts = [
        (
            summary.devices_skipped,
            "device nodes were left out: only root makes them, and containers get their own",
        ),
        (summary.xattrs_skipped, "extended attributes were left out"),
        (summary.duplicates, "entries came twice in one layer; the last ones count"),
    ];
    counts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect()
}
