//! Network devices on their way into the container, and back again when create fails: config-linux.md, Network Devices;
//! network_namespaces(7), rtnetlink(7).
//!
//! Once the container exists, its network namespace has the devices; when that ends, the kernel gives physical ones back.

use crate::failure::{Doing, Failure, Result, text};
use crate::network::Home;
use coracle_plan::steps::NetDevice;
use coracle_sys::net::{self, Address};
use coracle_sys::{Errno, libc, namespace};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Devices that were moved.
pub(crate) struct Moved {
    here: Home,
    there: OwnedFd,
    list: Vec<Device>,
}

/// A device by its names on both sides, and whether it was set up here.
struct Device {
    here: CString,
    there: CString,
    up: bool,
    origin: String,
}

impl Moved {
    /// None so far, from this process's network namespace into `there`.
    pub(crate) fn into(there: OwnedFd) -> Result<Moved> {
        Ok(Moved { here: Home::here()?, there, list: Vec::new() })
    }

    /// Moves them. Errors: which could not be moved; those before it have moved.
    pub(crate) fn all(&mut self, devices: &[NetDevice]) -> Result<()> {
        for device in devices {
            let carried = self.one(device).map_err(|f| f.at(&device.origin))?;
            self.list.push(carried);
        }
        Ok(())
    }

    fn one(&self, device: &NetDevice) -> Result<Device> {
        let name = &device.name;
        let index = net::index_of(name).map_err(|e| {
            Failure::errno(format!("finding the network device {} of the runtime's namespace", text(name)), e)
        })?;
        let up = net::is_up(index).doing(|| format!("looking at the network device {}", text(name)))?;
        let carry = Carry { from: self.here.as_fd(), to: self.there.as_fd(), here: &self.here };
        let there = carry.device(name, &device.new_name, true)?;
        Ok(Device { here: name.clone(), there, up, origin: device.origin.clone() })
    }

    /// Gives every device back, under its old name and with its addresses. Errors: which could not be given back.
    pub(crate) fn take_back(&mut self) -> Result<()> {
        let carry = Carry { from: self.there.as_fd(), to: self.here.as_fd(), here: &self.here };
        let back = |d: Device| carry.device(&d.there, &d.here, d.up).map(drop).map_err(|f| f.at(&d.origin));
        // Each is tried, whatever became of those before it.
        let tried: Vec<Result<()>> = self.list.drain(..).rev().map(back).collect();
        tried.into_iter().collect()
    }
}

/// From one network namespace to another, by a process that belongs to `here`.
struct Carry<'a> {
    from: BorrowedFd<'a>,
    to: BorrowedFd<'a>,
    here: &'a Home,
}

impl Carry<'_> {
    /// Moves a device with its addresses, sets it up, and says what it is called there.
    fn device(&self, name: &CStr, new_name: &CStr, up: bool) -> Result<CString> {
        let moving = |what: &str| format!("{what} network device {}", text(name));
        let (index, addresses) = self.within(self.from, || {
            let index = net::index_of(name).doing(|| moving("finding the"))?;
            Ok((index, lasting(index).doing(|| moving("reading the addresses of the"))?))
        })?;
        let before = self.within(self.to, || free(new_name))?;
        self.within(self.from, || {
            net::move_to_netns(index, self.to, new_name).map_err(|e| {
                let why = if e == Errno::EINVAL { " (it belongs to its namespace for good)" } else { "" };
                Failure::errno(format!("{} as {}{why}", moving("moving the"), text(new_name)), e)
            })
        })?;
        self.within(self.to, || {
            let (index, now) = arrived(new_name, &before).doing(|| moving("finding again the"))?;
            for address in &addresses {
                match net::add_address(index, address) {
                    Ok(()) | Err(Errno::EEXIST) => {}
                    Err(e) => return Err(Failure::errno(moving("giving its addresses back to the"), e)),
                }
            }
            if up {
                net::set_up(index).doing(|| moving("setting up the"))?;
            }
            Ok(now)
        })
    }

    /// Does something in a network namespace.
    fn within<T>(&self, place: BorrowedFd, act: impl FnOnce() -> Result<T>) -> Result<T> {
        let enter = || {
            namespace::setns(place, libc::CLONE_NEWNET)
                .doing(|| "entering the other network namespace".into())
        };
        self.here.away(enter, act)
    }
}

/// The addresses that the specification wants to stay: permanent, of global scope.
fn lasting(index: u32) -> coracle_sys::Result<Vec<Address>> {
    const IFA_F_PERMANENT: u32 = 0x80;
    const RT_SCOPE_UNIVERSE: u8 = 0;
    let stays = |a: &Address| a.flags & IFA_F_PERMANENT != 0 && a.scope == RT_SCOPE_UNIVERSE;
    Ok(net::addresses(index)?.into_iter().filter(stays).collect())
}

fn is_pattern(name: &CStr) -> bool {
    name.to_bytes().windows(2).any(|w| w == b"%d")
}

/// Makes sure that the name is not taken; of a pattern, all the devices that there are.
fn free(name: &CStr) -> Result<Vec<(u32, CString)>> {
    let all = net::interfaces().doing(|| "listing the network devices of the other namespace".into())?;
    // By the kernel's word too, which knows alternative names.
    if !is_pattern(name) && (all.iter().any(|(_, n)| n.as_c_str() == name) || net::index_of(name).is_ok()) {
        return Err(Failure::says(format!(
            "there is a network device {} in the other namespace already; choose another name, or one that ends with %d",
            text(name)
        )));
    }
    Ok(all)
}

/// The device that was not there before.
fn arrived(name: &CStr, before: &[(u32, CString)]) -> coracle_sys::Result<(u32, CString)> {
    if !is_pattern(name) {
        return Ok((net::index_of(name)?, name.to_owned()));
    }
    net::interfaces()?.into_iter().find(|one| !before.contains(one)).ok_or(Errno::ENODEV)
}
