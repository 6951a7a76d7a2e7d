//! For tests: a word on what is skipped, and memory that ends where an unmapped page begins, so that a kernel (or a wrapper) that reads or writes past the
//! structure it was given is refused with EFAULT instead of corrupting what stands behind it.

use std::ptr::null_mut;

const PAGE: usize = 64 * 1024; // the largest page size of any Linux machine: a multiple of every other

/// Says why (a part of) a test did not run; past the test harness, which would swallow it.
pub(crate) fn skip(test: &str, why: &str) {
    let line = format!("SKIP {test}: {why}\n");
    crate::fs::write_all(crate::fs::inherited(2).expect("stderr"), line.as_bytes()).expect("stderr");
}

/// A value whose last byte is the last byte that is mapped.
pub(crate) struct Guarded<T: Copy> {
    base: *mut libc::c_void,
    value: *mut T,
}

impl<T: Copy> Guarded<T> {
    /// Puts the value at the end of a page; the next page is not accessible.
    pub(crate) fn new(value: T) -> Guarded<T> {
        assert!(size_of::<T>() <= PAGE && size_of::<T>() % align_of::<T>() == 0);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a fresh anonymous mapping, placed by the kernel, that only this value uses.
        let base =
            unsafe { libc::mmap(null_mut(), 2 * PAGE, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
        assert_ne!(base, libc::MAP_FAILED);
        // SAFETY: the second half of the mapping just made; nothing refers to it yet.
        assert_eq!(unsafe { libc::mprotect(base.byte_add(PAGE), PAGE, libc::PROT_NONE) }, 0);
        // SAFETY: inside the first half, writable, and aligned because PAGE and the size are multiples of the alignment.
        let at = unsafe { base.byte_add(PAGE - size_of::<T>()) }.cast::<T>();
        // SAFETY: as above; the place is as large as a T.
        unsafe { at.write(value) };
        Guarded { base, value: at }
    }

    /// Where the value stands.
    pub(crate) fn pointer(&self) -> *mut T {
        self.value
    }

    /// The value now.
    pub(crate) fn get(&self) -> T {
        // SAFETY: written in `new`; T is Copy, and every user here stores plain integers, of which any bytes are a value.
        unsafe { self.value.read() }
    }
}

impl<T: Copy> Drop for Guarded<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`, which nobody uses after this.
        unsafe { libc::munmap(self.base, 2 * PAGE) };
    }
}

#[test]
fn a_read_past_the_end_is_refused() {
    let word = Guarded::new(0u64);
    let null = crate::fs::open(c"/dev/zero", libc::O_RDONLY, 0).expect("/dev/zero");
    use std::os::fd::AsRawFd;
    let read = |count: usize| {
        // SAFETY: eight bytes are writable; past them is a page without access, where the kernel stops.
        unsafe { crate::syscall!(libc::SYS_read, null.as_raw_fd(), word.pointer(), count) }
    };
    assert_eq!(read(8), Ok(8));
    assert_ne!(read(9), Ok(9), "the guard page must stop the ninth byte");
}
