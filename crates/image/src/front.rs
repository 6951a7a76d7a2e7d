//! The front door: an image into a bundle, with whatever privileges the caller has.

use crate::bundle;
use crate::config::{self, Ids, Wishes};
use crate::error::{Doing, Error, Kind, Result};
use crate::events::Events;
use crate::layer::apply::{Owners, Style, Summary};
use crate::limits::Limits;
use crate::rootless::{self, Privilege};
use crate::source::Image;
use crate::store::containers::Container;
use crate::store::layers::Kept;
use crate::store::{Removed, Store};
use crate::unpack::{How, highest_ids};
use coracle_sys::Errno;
use serde::{Deserialize, Serialize};
use std::os::fd::AsFd;
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
    let how = How { owners, style: Style::Flat, lower: None, limits, events };
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

/// The caller's subordinate ids, or its own; `None` for root.
pub fn own_ids() -> Option<Ids> {
    Privilege::of_caller().ids().cloned()
}

/// How the caller keeps layers in a store.
pub fn kept() -> Kept {
    match Privilege::of_caller() {
        // Root of the host alone may set the attributes that overlayfs uses by default.
        Privilege::Root => Kept { owners: Owners::Kept, user: !is_host_root() },
        Privilege::Subordinate(_) => Kept { owners: Owners::Kept, user: true },
        Privilege::Single(..) => Kept { owners: Owners::Caller, user: true },
    }
}

fn is_host_root() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// What a container is to be made from.
pub struct Order<'a> {
    /// Its id, already reserved.
    pub id: &'a str,
    /// The image's name.
    pub name: &'a str,
    /// Where the runtime will keep its state.
    pub state: &'a Path,
    /// Whether it goes when its program has ended.
    pub remove: bool,
}

/// Makes a container's bundle in a store: layers unpacked once and shared, a configuration, nothing mounted. `image` is
/// called where it can be read without this process growing. Errors: as of [`unpack`].
pub fn make(
    store: &Store,
    order: &Order,
    image: impl FnOnce() -> Result<Image>,
    wishes: &Wishes,
    limits: &Limits,
    events: &dyn Events,
) -> Result<(Container, Vec<String>)> {
    let (ids, kept) = (own_ids(), kept());
    let wishes = Wishes { ids: ids.clone(), ..wishes.clone() };
    rootless::workshop(ids.as_ref(), || {
        let _hold = store.hold()?;
        let image = image()?;
        let explained = |e| explain(e, &image, &wishes, limits);
        let container =
            |layers| store.container(order.id, order.name, layers, kept, order.state, order.remove);
        // From shared layers, joined by overlayfs.
        let joined = || -> Result<_> {
            let (layers, summary) = store.unpack(&image, kept, limits, events).map_err(explained)?;
            let container = container(layers);
            let made = store.look_into(&container, kept, |root| config::config(&image, &wishes, root))?;
            Ok((container, made, summary))
        };
        // From a copy: a kernel without overlayfs, one that refuses it to users, a file system that it does not work on.
        let copied = |why: Error| {
            let (root, summary) = store.copy(order.id, &image, kept, limits, events).map_err(explained)?;
            let container = container(Vec::new());
            let mut made = config::config(&image, &wishes, root.as_fd())?;
            made.1.insert(0, format!("{why}; the container gets a copy of the image, unpacked for it alone"));
            Ok((container, made, summary))
        };
        let made = joined().or_else(|e| if e.kind() == Kind::Overlay { copied(e) } else { Err(e) });
        let (container, (mut spec, mut notes), summary) = made?;
        let bundle = store.container_path(order.id);
        spec["annotations"][PLACE] = bundle.to_string_lossy().into();
        let text =
            serde_json::to_string_pretty(&spec).map_err(|e| Error::new(Kind::Corrupt, e.to_string()))?;
        std::fs::write(bundle.join("config.json"), text).doing(|| format!("write {}", bundle.display()))?;
        store.note(&container)?;
        notes.extend(skipped(&summary));
        Ok((container, notes))
    })
}

/// The annotation by which `delete` finds a container's directory in a store. No image can set it.
pub const PLACE: &str = "coracle.container";

/// Removes a container's directory, which the caller has reserved or claimed ([`Store::leftovers`]).
pub fn forget(store: &Store, id: &str) -> Result<()> {
    rootless::workshop(own_ids().as_ref(), || store.forget_container(id))
}

/// Removes a bundle, or what is left of an unpacking; its files may be of the caller's subordinate ids. Errors: it is none.
pub fn remove_bundle(bundle: &Path) -> Result<()> {
    if !bundle::is_one(bundle) {
        return Err(Error::new(
            Kind::Usage,
            format!(
                "{} is no bundle that coracle unpack made (its config.json would name the image's architecture): it is left alone",
                bundle.display()
            ),
        ));
    }
    match own_ids() {
        Some(ids) => rootless::inside(&ids, || bundle::remove(bundle)),
        None => bundle::remove(bundle),
    }
}

/// Collects a store's garbage; `None`: someone is at work there.
pub fn collect(store: &Store) -> Result<Option<Removed>> {
    rootless::workshop(own_ids().as_ref(), || store.collect())
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
