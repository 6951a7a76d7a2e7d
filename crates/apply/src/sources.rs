//! What the parent opens for the child: the root file system and the sources of bind mounts that root of another user
//! namespace might not reach by path, those whose ids are mapped, those that stay peers of the host's mounts, and the devices
//! that it cannot make.

use crate::failure::{Doing, Result, text};
use crate::idmap;
use crate::step::attributes::{self, Later};
use crate::step::devices;
use crate::step::mounts::clone_tree;
use coracle_plan::steps::{Act, Bind, MountKind, NOTIFY, Node, Plan};
use coracle_sys::mount::MountAttr;
use coracle_sys::{creds, fs, libc};
use std::os::fd::{AsFd, OwnedFd};

/// Opens them: each with the number of its step.
pub(crate) fn open(plan: &Plan) -> Result<Vec<(usize, OwnedFd)>> {
    let mut out = Vec::new();
    let joins = |kind| plan.namespaces.join.iter().any(|j| j.kind == kind);
    let other_user =
        plan.namespaces.maps.is_some() || joins(libc::CLONE_NEWUSER) && !joins(libc::CLONE_NEWNS);
    let for_stranger = other_user && privileged();
    for (i, step) in plan.setup.iter().enumerate() {
        let opened = match &step.act {
            Act::OpenRoot(path) if for_stranger => {
                let root = Bind { source: path.clone(), recursive: true, ..Bind::default() };
                tree(&root).map(Some)
            }
            // Not there yet; see the notify module.
            Act::Mount(_) if step.origin == NOTIFY => Ok(None),
            Act::Mount(m) => match (&m.what, &m.idmap) {
                (MountKind::Bind(bind), _)
                    if bind.inside || is_copied_link(bind) || is_own_group(plan, bind) =>
                {
                    Ok(None)
                }
                (MountKind::Bind(bind), Some(map)) => tree(bind).and_then(|tree| {
                    idmap::apply(plan, tree.as_fd(), map)?;
                    Ok(Some(tree))
                }),
                (MountKind::Bind(bind), None) if bind.peer => {
                    clone_tree(bind).doing(|| format!("opening {}", text(&bind.source))).map(Some)
                }
                (MountKind::Bind(bind), None) if for_stranger => tree(bind).map(Some),
                _ => Ok(None),
            },
            Act::Device(device) if device.node == Node::Given => devices::give(device).map(Some),
            _ => Ok(None),
        };
        out.extend(opened.map_err(|f| f.at(&step.origin))?.map(|tree| (i, tree)));
    }
    Ok(out)
}

fn privileged() -> bool {
    creds::capget().is_ok_and(|c| c.effective & 1 << 21 != 0)
}

/// The child makes the same link instead.
fn is_copied_link(bind: &Bind) -> bool {
    bind.copy_link && fs::readlinkat(fs::cwd(), &bind.source).is_ok()
}

/// The container's control group is not there yet; the child reaches it by its path, which is open to all.
fn is_own_group(plan: &Plan, bind: &Bind) -> bool {
    let source = bind.source.to_bytes().strip_prefix(b"/sys/fs/cgroup");
    plan.cgroup.path.as_ref().is_some_and(|path| source == Some(path.as_bytes()))
}

pub(crate) fn tree(bind: &Bind) -> Result<OwnedFd> {
    let doing = || format!("opening {}", text(&bind.source));
    let tree = clone_tree(bind).doing(doing)?;
    // Nothing that is mounted in the container is to show on the host.
    let slave = MountAttr { propagation: libc::MS_SLAVE, ..Default::default() };
    attributes::set(tree.as_fd(), true, &slave, &mut Later::default()).doing(doing)?;
    Ok(tree)
}
