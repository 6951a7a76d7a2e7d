//! Network interfaces of this network namespace: find, set up, move to another namespace, keep their addresses.
//! netdevice(7), rtnetlink(7). What an address or a route means is not for here.

mod route;

use crate::{Errno, Result, own, syscall};
use route::{Body, Route};
use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd};

/// Sets the loopback interface of this network namespace up: netdevice(7), SIOCSIFFLAGS.
pub fn loopback_up() -> Result<()> {
    let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC;
    // SAFETY: integers only.
    let socket = unsafe { syscall!(libc::SYS_socket, libc::AF_INET, kind, 0) }.map(own)?;
    // SAFETY: ifreq is plain data, for which all-zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[..2].copy_from_slice(&[b'l' as libc::c_char, b'o' as libc::c_char]);
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads one ifreq, which lives through the call.
    unsafe { syscall!(libc::SYS_ioctl, socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) }.map(drop)
}

/// `unsigned int if_nametoindex(const char *ifname)`, if_nametoindex(3). Errors: ENODEV when there is none of that name.
pub fn index_of(name: &CStr) -> Result<u32> {
    // SAFETY: name is terminated and outlives the call.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(Errno::last()),
        index => Ok(index),
    }
}

/// RTM_GETLINK: every interface, its index and name.
pub fn interfaces() -> Result<Vec<(u32, CString)>> {
    let links = Route::open()?.dump(libc::RTM_GETLINK, libc::RTM_NEWLINK, Body::link(0, 0))?;
    links
        .iter()
        .map(|link| Some((route::word(link, 4)?, name(link)?)))
        .collect::<Option<_>>()
        .ok_or(Errno::EBADMSG)
}

/// RTM_GETLINK: whether an interface is set up. Errors: ENODEV when there is none of that index.
pub fn is_up(index: u32) -> Result<bool> {
    let links = Route::open()?.dump(libc::RTM_GETLINK, libc::RTM_NEWLINK, Body::link(0, 0))?;
    let link = links.iter().find(|link| route::word(link, 4) == Some(index)).ok_or(Errno::ENODEV)?;
    route::word(link, 8).map(|flags| flags & libc::IFF_UP as u32 != 0).ok_or(Errno::EBADMSG)
}

fn name(link: &[u8]) -> Option<CString> {
    let text = route::attributes(link.get(route::LINK..)?).find(|(kind, _)| *kind == libc::IFLA_IFNAME)?.1;
    CStr::from_bytes_until_nul(text).ok().map(CStr::to_owned)
}

/// RTM_NEWLINK: sets an interface up.
pub fn set_up(index: u32) -> Result<()> {
    Route::open()?.change(libc::RTM_NEWLINK, 0, Body::link(index, libc::IFF_UP as u32))
}

/// RTM_NEWLINK with IFLA_NET_NS_FD and IFLA_IFNAME: moves an interface into another network namespace, under a name there.
/// A `%d` in the name is replaced by the first number that makes it unique.
///
/// The kernel takes the interface down, drops its addresses ([`addresses`] must be called before), and gives it another
/// index if its own is taken there. Errors: EEXIST when the name is taken there: look before, for the kernel moves first and
/// renames then, so that the interface may stand there under its old name. EINVAL for an interface that belongs to its
/// namespace (lo), EPERM without CAP_NET_ADMIN over both, EBUSY.
pub fn move_to_netns(index: u32, netns: BorrowedFd, new_name: &CStr) -> Result<()> {
    let mut body = Body::link(index, 0);
    body.attribute(libc::IFLA_NET_NS_FD, &netns.as_raw_fd().to_ne_bytes())?;
    body.attribute(libc::IFLA_IFNAME, new_name.to_bytes_with_nul())?;
    Route::open()?.change(libc::RTM_NEWLINK, 0, body)
}

/// An address of an interface: struct ifaddrmsg and what is needed to give the same address again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// AF_INET or AF_INET6.
    pub family: u8,
    /// Length of the prefix, in bits.
    pub prefix: u8,
    /// RT_SCOPE_*: 0 is the universe.
    pub scope: u8,
    /// IFA_F_* flags.
    pub flags: u32,
    /// IFA_* attributes: the address, the peer's, the broadcast address, the metric of its route.
    attributes: Vec<(u16, Vec<u8>)>,
}

/// What [`add_address`] repeats. Not the label, which holds the old name, nor the lifetime: see its doc.
const REPEATED: [u16; 4] = [libc::IFA_ADDRESS, libc::IFA_LOCAL, libc::IFA_BROADCAST, IFA_RT_PRIORITY];
const IFA_FLAGS: u16 = 8;
const IFA_RT_PRIORITY: u16 = 9;

/// RTM_GETADDR: the addresses of an interface, of every family.
pub fn addresses(index: u32) -> Result<Vec<Address>> {
    let all = Route::open()?.dump(libc::RTM_GETADDR, libc::RTM_NEWADDR, Body::address(0, 0, 0, 0, 0))?;
    let parsed =
        all.iter().map(|message| address(message)).collect::<Option<Vec<_>>>().ok_or(Errno::EBADMSG)?;
    Ok(parsed.into_iter().filter(|(of, _)| *of == index).map(|(_, address)| address).collect())
}

/// struct ifaddrmsg (family, prefix, eight flags, scope, index) and its attributes.
fn address(message: &[u8]) -> Option<(u32, Address)> {
    let (head, tail) = message.split_at_checked(route::ADDRESS)?;
    let mut flags = u32::from(head[2]);
    let mut kept = Vec::new();
    for (kind, value) in route::attributes(tail) {
        match kind {
            IFA_FLAGS => flags = route::word(value, 0)?,
            kind if REPEATED.contains(&kind) => kept.push((kind, value.to_vec())),
            _ => {}
        }
    }
    let address = Address { family: head[0], prefix: head[1], scope: head[3], flags, attributes: kept };
    Some((route::word(head, 4)?, address))
}

/// RTM_NEWADDR: gives an interface an address for ever, with what of its flags is the user's to set.
/// Errors: EEXIST when it has it already, EACCES where IPv6 is off.
pub fn add_address(index: u32, address: &Address) -> Result<()> {
    // nodad, homeaddress, mngtmpaddr, noprefixroute, autojoin: ip-address(8). The others tell a state.
    const OF_THE_USER: u32 = 0x02 | 0x10 | 0x100 | 0x200 | 0x400;
    let mut body = Body::address(address.family, address.prefix, 0, address.scope, index);
    for (kind, value) in &address.attributes {
        body.attribute(*kind, value)?;
    }
    body.attribute(IFA_FLAGS, &(address.flags & OF_THE_USER).to_ne_bytes())?;
    Route::open()?.change(libc::RTM_NEWADDR, libc::NLM_F_CREATE | libc::NLM_F_EXCL, body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_are_what_sysfs_and_the_index_say() {
        let all = interfaces().expect("dump");
        assert!(!all.is_empty());
        for (index, name) in all {
            assert_eq!(index_of(&name), Ok(index));
        }
        assert_eq!(index_of(c"no-such-if"), Err(Errno::ENODEV));
    }

    #[test]
    fn a_message_that_is_cut_is_no_address() {
        let mut body = Body::address(libc::AF_INET as u8, 8, 0x80, 0xfe, 7);
        body.attribute(libc::IFA_LOCAL, &[127, 0, 0, 1]).expect("fits");
        body.attribute(libc::IFA_LABEL, b"lo\0").expect("fits");
        let whole = body.bytes();
        let (index, parsed) = address(whole).expect("whole");
        assert_eq!((index, parsed.family, parsed.prefix, parsed.scope, parsed.flags), (7, 2, 8, 0xfe, 0x80));
        assert_eq!(parsed.attributes, [(libc::IFA_LOCAL, vec![127, 0, 0, 1])]);
        for end in 0..whole.len() {
            if let Some((_, cut)) = address(&whole[..end]) {
                assert!(cut.attributes.len() <= 1, "cut at {end}");
            }
        }
        assert_eq!(address(&whole[..7]), None);
    }
}
