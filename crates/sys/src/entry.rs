//! Where the program begins, before the C library.
//!
//! A command that starts processes for a container begins again from a read-only copy of its own file (`seal` in the apply
//! crate says why). The C library of the first of the two programs would start for nothing: on a virtual machine that is
//! half a millisecond, each CPUID instruction in it a trip to the hypervisor. So the usual way of doing it comes first of
//! all, and whatever is not usual, or fails, is left to `seal`, which runs in any case.
//!
//! Nothing of the C library may be used here: its thread-local storage is not there, and its memcpy, memcmp and strlen are
//! not yet resolved. Bytes are read one by one and volatile, lest the compiler calls them in our place; a build without
//! optimization, where it calls them for less, begins at the C library's own entry (`build.rs` of the binary).
//!
//! After the C library comes [`start`], in the place of Rust's own start. That one reads /proc/self/maps and maps a stack for
//! the message that a stack overflow would have; a twentieth of the time of `state`.

use crate::process;
use std::io::Write;

/// Makes a function, `fn() -> u8`, the program: it gives the exit code.
#[macro_export]
macro_rules! program {
    ($run:path) => {
        #[unsafe(no_mangle)]
        extern "C" fn main() -> core::ffi::c_int {
            $crate::entry::start($run)
        }
    };
}

/// Runs the program and ends the process, without destructors: the kernel takes all back at once. What Rust's own start does for
/// safety is done here too: descriptors 0 to 2 are open, so that no file of ours is taken for a stream, and a write to a pipe that
/// nobody reads is an error.
pub fn start(run: fn() -> u8) -> ! {
    if !streams_open() {
        process::exit_now(1);
    }
    // SAFETY: a disposition, no handler.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    let code = run();
    let _ = std::io::stdout().flush();
    process::exit_now(code.into())
}

/// Opens /dev/null as each of the standard streams that is closed. Whether all are open now.
fn streams_open() -> bool {
    let mut streams = [0, 1, 2].map(|fd| libc::pollfd { fd, events: 0, revents: 0 });
    // SAFETY: three structures, writable.
    let polled = unsafe { libc::poll(streams.as_mut_ptr(), streams.len() as libc::nfds_t, 0) };
    // The lowest number that is free is the one that was found closed.
    // SAFETY: a terminated path.
    let open = || unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) };
    polled >= 0 && streams.iter().filter(|s| s.revents & libc::POLLNVAL != 0).all(|s| open() == s.fd)
}

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use core::arch::{asm, global_asm};
    use core::ffi::c_char;
    use core::mem::MaybeUninit;

    // The stack as the kernel left it is what both `begin` and the C library's own entry take: System V ABI, AMD64
    // supplement, 3.4.1. rdx is the C library's, too.
    global_asm!(
        ".globl coracle_entry",
        "coracle_entry:",
        "xor ebp, ebp",
        "mov rbx, rsp",
        "mov r12, rdx",
        "mov rdi, rsp",
        "and rsp, -16",
        "call {begin}",
        "mov rsp, rbx",
        "mov rdx, r12",
        "jmp _start",
        begin = sym begin,
    );

    static COMMANDS: [&[u8]; 4] = [b"create\0", b"run\0", b"exec\0", b"restore\0"];

    /// Returns when there is nothing to do, or when it could not be done.
    unsafe extern "C" fn begin(stack: *const usize) {
        // SAFETY: the kernel puts the count of arguments there, the arguments, a null pointer, and the environment.
        let (argv, env) = unsafe { (stack.add(1), stack.add(stack.read() + 2)) };
        // SAFETY: as above.
        if unsafe { starts_processes(argv.cast()) } {
            // SAFETY: as above.
            unsafe { again(argv, env) };
        }
    }

    /// Whether a word of the command line is such a command. One that is not the command costs a little time.
    unsafe fn starts_processes(argv: *const *const c_char) -> bool {
        let mut at = argv;
        loop {
            // SAFETY: the list ends with a null pointer, after which nothing is read.
            let word = unsafe { at.read() };
            if word.is_null() {
                return false;
            }
            for command in &COMMANDS {
                // SAFETY: a word ends with a zero, where the comparison ends at the latest: so do the commands.
                let same = (0..command.len())
                    .all(|i| unsafe { word.add(i).cast::<u8>().read_volatile() } == command[i]);
                if same {
                    return true;
                }
            }
            // SAFETY: not at the null pointer yet.
            at = unsafe { at.add(1) };
        }
    }

    /// Replaces this program by itself, from a detached read-only mount of its file, if it could write to that file.
    unsafe fn again(argv: *const usize, env: *const usize) {
        const EMPTY: &core::ffi::CStr = c"";
        let empty = EMPTY.as_ptr() as usize;
        let here = libc::AT_EMPTY_PATH as usize;
        let path = c"/proc/self/exe".as_ptr() as usize;
        // SAFETY: a terminated path, and no pointer else.
        let exe = unsafe {
            call(
                libc::SYS_openat,
                [libc::AT_FDCWD as usize, path, (libc::O_PATH | libc::O_CLOEXEC) as usize, 0, 0],
            )
        };
        if exe < 0 {
            return;
        }
        let access = here | libc::AT_EACCESS as usize;
        // SAFETY: a terminated path, and no pointer else.
        let writable =
            unsafe { call(libc::SYS_faccessat2, [exe as usize, empty, libc::W_OK as usize, access, 0]) };
        // SAFETY: a descriptor of ours.
        if writable == 0 || writable == -(libc::EROFS as isize) && unsafe { below_mount(exe as usize, empty) }
        {
            let clone = (libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC) as usize | here;
            // SAFETY: a terminated path, and no pointer else.
            let copy = unsafe { call(libc::SYS_open_tree, [exe as usize, empty, clone, 0, 0]) };
            let read_only = [libc::MOUNT_ATTR_RDONLY, 0, 0, 0];
            let size = size_of_val(&read_only);
            // SAFETY: struct mount_attr is these four words, mount_setattr(2); the last call takes the lists that the kernel made.
            unsafe {
                if copy >= 0
                    && call(
                        libc::SYS_mount_setattr,
                        [copy as usize, empty, here, read_only.as_ptr() as usize, size],
                    ) == 0
                {
                    call(libc::SYS_execveat, [copy as usize, empty, argv as usize, env as usize, here]);
                }
                call(libc::SYS_close, [copy as usize, 0, 0, 0, 0]);
            }
        }
        // SAFETY: a descriptor of ours.
        unsafe { call(libc::SYS_close, [exe as usize, 0, 0, 0, 0]) };
    }

    /// Whether the file is known to lie somewhere below its mount: a read-only one, which others can make writable. The copy
    /// is a mount of its own.
    ///
    /// # Safety
    /// `empty` is the address of an empty terminated string.
    unsafe fn below_mount(file: usize, empty: usize) -> bool {
        const MOUNT_ROOT: u64 = libc::STATX_ATTR_MOUNT_ROOT as u64;
        let mut facts = MaybeUninit::<libc::statx>::uninit();
        let words = [file, empty, libc::AT_EMPTY_PATH as usize, 0, facts.as_mut_ptr() as usize];
        // SAFETY: the kernel writes a struct statx there, statx(2), and reads the caller's empty string.
        let told = unsafe { call(libc::SYS_statx, words) } == 0;
        let facts = facts.as_ptr();
        // SAFETY: written by the kernel, if it answered.
        told && unsafe {
            (*facts).stx_attributes_mask & MOUNT_ROOT != 0 && (*facts).stx_attributes & MOUNT_ROOT == 0
        }
    }

    /// A syscall without errno, which is thread-local: the kernel's own answer, negative for an error.
    ///
    /// # Safety
    /// Every pointer among the words must be valid for what this syscall reads through it.
    unsafe fn call(number: libc::c_long, words: [usize; 5]) -> isize {
        let answer: isize;
        // SAFETY: the caller vouches for the pointers; syscall(2), "Architecture calling conventions": rcx and r11 are lost.
        unsafe {
            asm!(
                "syscall",
                inlateout("rax") number as isize => answer,
                in("rdi") words[0],
                in("rsi") words[1],
                in("rdx") words[2],
                in("r10") words[3],
                in("r8") words[4],
                lateout("rcx") _,
                lateout("r11") _,
                options(nostack),
            );
        }
        answer
    }
}
