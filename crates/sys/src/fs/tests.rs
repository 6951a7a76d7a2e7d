use super::*;
use crate::guard::{Guarded, skip};
use std::os::fd::AsFd;
use std::path::PathBuf;

/// A directory of the test's own, removed at its end.
struct Place {
    path: PathBuf,
    dir: OwnedFd,
}

impl Place {
    fn new(name: &str) -> Place {
        let path = std::env::temp_dir().join(format!("coracle-fs-{name}-{}", std::process::id()));
        std::fs::create_dir(&path).expect("mkdir");
        let c = CString::new(path.as_os_str().as_encoded_bytes()).expect("no NUL");
        let dir = open(&c, libc::O_DIRECTORY | libc::O_RDONLY, 0).expect("open");
        Place { path, dir }
    }

    fn file(&self, name: &CStr, content: &[u8]) -> OwnedFd {
        let flags = libc::O_CREAT | libc::O_EXCL | libc::O_RDWR;
        let file = openat(self.dir.as_fd(), name, flags, 0o600).expect("create");
        write_all(file.as_fd(), content).expect("write");
        file
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

fn flags_of(fd: BorrowedFd) -> i32 {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).expect("fdinfo");
    let flags = info.lines().find_map(|l| l.strip_prefix("flags:")).expect("flags").trim();
    i32::from_str_radix(flags, 8).expect("octal")
}

#[test]
fn everything_opened_closes_at_exec() {
    let place = Place::new("cloexec");
    let file = place.file(c"f", b"");
    let copy = dup_from(file.as_fd(), 100).expect("dup");
    assert!(copy.as_raw_fd() >= 100);
    let memory = memfd_create(c"m", 0).expect("memfd");
    let beneath = openat2(place.dir.as_fd(), c"f", libc::O_RDONLY, 0, RESOLVE_BENEATH).expect("openat2");
    for fd in [&place.dir, &file, &copy, &memory, &beneath] {
        assert_ne!(flags_of(fd.as_fd()) & libc::O_CLOEXEC, 0);
    }
    set_cloexec(copy.as_fd(), false).expect("F_SETFD");
    assert_eq!(flags_of(copy.as_fd()) & libc::O_CLOEXEC, 0);
}

#[test]
fn resolution_stays_where_it_is_told() {
    let place = Place::new("resolve");
    let dir = place.dir.as_fd();
    mkdirat(dir, c"etc", 0o700).expect("mkdir");
    drop(place.file(c"etc/passwd", b"mine"));
    symlinkat(c"/etc/passwd", dir, c"absolute").expect("symlink");
    symlinkat(c"../../../../etc/passwd", dir, c"climbing").expect("symlink");
    let look = |path: &CStr, resolve| openat2(dir, path, libc::O_RDONLY, 0, resolve);
    for link in [c"absolute", c"climbing"] {
        let inside = look(link, RESOLVE_IN_ROOT).expect("inside");
        assert_eq!(read_to_end(inside.as_fd(), 100).expect("read"), b"mine");
        assert_eq!(look(link, RESOLVE_BENEATH).err(), Some(Errno::EXDEV));
        assert_eq!(look(link, RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS).err(), Some(Errno::ELOOP));
    }
    let root = open(c"/", libc::O_PATH, 0).expect("/");
    let proc = |resolve| openat2(root.as_fd(), c"proc/self/exe", libc::O_PATH, 0, resolve).err();
    assert_eq!(proc(RESOLVE_NO_XDEV), Some(Errno::EXDEV));
    assert_eq!(proc(RESOLVE_NO_MAGICLINKS), Some(Errno::ELOOP));
    assert_eq!(look(c"etc", 1 << 40).err(), Some(Errno::EINVAL));
}

#[test]
fn the_kernel_stays_within_open_how() {
    let how = Guarded::new([libc::O_PATH as u64, 0, RESOLVE_BENEATH]);
    assert_eq!(size_of::<libc::open_how>(), 24);
    let root = open(c"/", libc::O_PATH, 0).expect("/");
    // SAFETY: a whole open_how (three u64) of the size said, at the end of what is mapped.
    let fd = unsafe { syscall!(libc::SYS_openat2, root.as_raw_fd(), c".".as_ptr(), how.pointer(), 24) };
    drop(own(fd.expect("openat2 within the page")));
}

#[test]
fn names_come_and_go() {
    let place = Place::new("names");
    let dir = place.dir.as_fd();
    drop(place.file(c"a", b"x"));
    linkat(dir, c"a", dir, c"b", 0).expect("link");
    assert_eq!(fstatat(dir, c"a", 0).expect("stat").nlink, 2);
    renameat(dir, c"b", dir, c"c").expect("rename");
    symlinkat(c"a", dir, c"l").expect("symlink");
    assert_eq!(readlinkat(dir, c"l").expect("readlink"), b"a");
    let link = openat(dir, c"l", libc::O_PATH | libc::O_NOFOLLOW, 0).expect("open the link");
    assert_eq!(readlinkat(link.as_fd(), c"").expect("readlink"), b"a");
    assert_eq!(fstat(link.as_fd()).expect("stat").kind(), libc::S_IFLNK);
    assert_eq!(mknodat(dir, c"p", libc::S_IFIFO | 0o600, 0, 0), Ok(()));
    let mut names = read_dir(dir).expect("list");
    names.sort();
    assert_eq!(names, [c"a".to_owned(), c"c".to_owned(), c"l".to_owned(), c"p".to_owned()]);
    assert_eq!(unlinkat(dir, c"a", libc::AT_REMOVEDIR), Err(Errno::ENOTDIR));
    unlinkat(dir, c"a", 0).expect("unlink");
    assert_eq!(fstatat(dir, c"a", 0), Err(Errno::ENOENT));
}

#[test]
fn a_large_directory_is_read_whole() {
    let place = Place::new("large");
    for i in 0..1500 {
        drop(place.file(&CString::new(format!("{i:0>100}")).expect("no NUL"), b""));
    }
    let names = read_dir(place.dir.as_fd()).expect("list");
    assert_eq!(names.len(), 1500);
}

#[test]
fn entries_that_are_cut_are_an_error() {
    let entry = [&[0; 16][..], &24u16.to_ne_bytes(), &[8], b"name\0"].concat();
    let mut names = Vec::new();
    assert_eq!((add_names(&entry, &mut names), names.len()), (Some(()), 1));
    for end in 1..entry.len() {
        assert_eq!(add_names(&entry[..end], &mut names), None, "cut at {end}");
    }
    assert_eq!(names.len(), 1);
}

#[test]
fn device_numbers_are_not_cut() {
    let place = Place::new("mknod");
    for (major, minor) in [(1 << 12, 0), (0, 1 << 20), (u32::MAX, 3)] {
        assert_eq!(mknodat(place.dir.as_fd(), c"n", libc::S_IFCHR, major, minor), Err(Errno::EINVAL));
    }
    assert_eq!(read_dir(place.dir.as_fd()).expect("list").len(), 0);
}

#[test]
fn modes_and_times_are_set_on_what_is_meant() {
    let place = Place::new("modes");
    let dir = place.dir.as_fd();
    let file = place.file(c"f", b"");
    let mode = || fstat(file.as_fd()).expect("stat").mode & 0o7777;
    fchmod(file.as_fd(), 0o640).expect("fchmod");
    assert_eq!(mode(), 0o640);
    fchmodat(dir, c"f", 0o604).expect("fchmodat");
    assert_eq!(mode(), 0o604);
    let path = openat(dir, c"f", libc::O_PATH, 0).expect("O_PATH");
    assert_eq!(fchmod(path.as_fd(), 0o600), Err(Errno::EBADF));
    match fchmodat2(path.as_fd(), c"", 0o4711, libc::AT_EMPTY_PATH) {
        Ok(()) => assert_eq!(mode(), 0o4711),
        Err(Errno::ENOSYS) => skip("fs fchmodat2", "it came with Linux 6.6"),
        Err(e) => panic!("{e}"),
    }
    assert_eq!(fchownat(path.as_fd(), c"", u32::MAX, u32::MAX, libc::AT_EMPTY_PATH), Ok(()));
    utimensat(dir, c"f", [(1, 2), (3, 4)], 0).expect("utimensat");
    use std::os::unix::fs::MetadataExt;
    let seen = std::fs::metadata(place.path.join("f")).expect("metadata");
    assert_eq!((seen.atime(), seen.atime_nsec(), seen.mtime(), seen.mtime_nsec()), (1, 2, 3, 4));
}

#[test]
fn access_is_asked_of_the_file() {
    let root = open(c"/", libc::O_PATH, 0).expect("/");
    assert_eq!(faccessat2(root.as_fd(), c"", libc::X_OK, libc::AT_EMPTY_PATH), Ok(()));
    assert_eq!(faccessat2(root.as_fd(), c"no-such-file", libc::F_OK, 0), Err(Errno::ENOENT));
}

#[test]
fn file_systems_are_known_by_their_number() {
    let proc = open(c"/proc/self", libc::O_PATH, 0).expect("/proc");
    assert_eq!(file_system(proc.as_fd()), Ok(PROCFS));
    let info = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let line = info.lines().rfind(|l| l.split(' ').nth(4) == Some("/proc")).expect("/proc");
    let nosuid = line.split(' ').nth(5).expect("options").split(',').any(|o| o == "nosuid");
    let flags = fstatfs(proc.as_fd()).expect("statfs").flags;
    assert_eq!(flags & libc::ST_NOSUID != 0, nosuid);
}

#[test]
fn reading_and_writing() {
    let place = Place::new("bytes");
    let file = place.file(c"f", &[b"0123456789".as_slice(), &[b'x'; 10_000]].concat());
    let mut four = [0; 4];
    assert_eq!((pread(file.as_fd(), &mut four, 3), four), (Ok(4), *b"3456"));
    let again = openat(place.dir.as_fd(), c"f", libc::O_RDONLY, 0).expect("open");
    assert_eq!(read_to_end(again.as_fd(), 10_010).expect("whole").len(), 10_010);
    let again = openat(place.dir.as_fd(), c"f", libc::O_RDONLY, 0).expect("open");
    assert_eq!(read_to_end(again.as_fd(), 10_009), Err(Errno::EFBIG));
    ftruncate(file.as_fd(), 5).expect("truncate");
    fsync(file.as_fd()).expect("fsync");
    assert_eq!(fstat(file.as_fd()).expect("stat").size, 5);
    let (again, memory) = (openat(place.dir.as_fd(), c"f", libc::O_RDONLY, 0), memfd_create(c"m", 0));
    let (again, memory) = (again.expect("open"), memory.expect("memfd"));
    assert_eq!(sendfile(memory.as_fd(), again.as_fd(), 100), Ok(5));
    assert_eq!((pread(memory.as_fd(), &mut four, 0), four), (Ok(4), *b"0123"));
    assert_eq!(write_all(again.as_fd(), b"x"), Err(Errno::EBADF));
}

#[test]
fn a_sealed_file_does_not_change() {
    let file = memfd_create(c"m", libc::MFD_ALLOW_SEALING).expect("memfd");
    let all = libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE;
    assert_eq!(seals(file.as_fd()).expect("seals") & all, 0);
    add_seals(file.as_fd(), all).expect("seal");
    assert_eq!(seals(file.as_fd()).expect("seals") & all, all);
    assert_eq!(write(file.as_fd(), b"x"), Err(Errno::EPERM));
    assert_eq!(add_seals(file.as_fd(), libc::F_SEAL_WRITE), Err(Errno::EPERM));
}

#[test]
fn a_lock_excludes_another_opener_and_ends_with_the_last_copy() {
    let place = Place::new("lock");
    let first = place.file(c"f", b"");
    let second = openat(place.dir.as_fd(), c"f", libc::O_RDONLY, 0).expect("open");
    let try_lock = || flock(second.as_fd(), libc::LOCK_EX | libc::LOCK_NB);
    flock(first.as_fd(), libc::LOCK_EX).expect("lock");
    let copy = dup_from(first.as_fd(), 3).expect("dup");
    drop(first);
    assert_eq!(try_lock(), Err(Errno::EWOULDBLOCK));
    drop(copy);
    assert_eq!(try_lock(), Ok(()));
}

#[test]
fn what_is_not_open_cannot_be_borrowed() {
    assert!(inherited(2).is_ok());
    for number in [-1, libc::AT_FDCWD, i32::MAX] {
        assert_eq!(inherited(number).err(), Some(Errno::EBADF));
    }
}

#[test]
fn the_working_directory_is_the_kernels_word() {
    let told = getcwd().expect("getcwd");
    assert_eq!(told, std::env::current_dir().expect("cwd").as_os_str().as_encoded_bytes());
}

#[test]
fn attributes_of_a_file_and_never_of_what_a_link_names() {
    let place = Place::new("xattr");
    let file = place.file(c"f", b"");
    symlinkat(c"f", place.dir.as_fd(), c"l").expect("symlink");
    let at = |name: &str| {
        CString::new(format!("{}/{name}", proc_fd_path(&place.dir).to_str().expect("ASCII"))).expect("no NUL")
    };
    let long = vec![7u8; 1000];
    match fsetxattr(file.as_fd(), c"user.one", &long) {
        Err(Errno::EOPNOTSUPP) => {
            return skip("fs xattr", "the temporary directory's file system has no user attributes");
        }
        other => other.expect("fsetxattr"),
    }
    lsetxattr(&at("f"), c"user.two", b"").expect("lsetxattr");
    assert_eq!(lgetxattr(&at("f"), c"user.one").as_ref(), Ok(&long));
    assert_eq!(lgetxattr(&at("f"), c"user.two"), Ok(Vec::new()));
    let mut names = llistxattr(&at("f")).expect("list");
    names.retain(|name| name.to_bytes().starts_with(b"user."));
    names.sort();
    assert_eq!(names, [c"user.one".to_owned(), c"user.two".to_owned()]);
    assert_eq!(lgetxattr(&at("f"), c"user.three"), Err(Errno::ENODATA));
    // user.* is not for links: EPERM, or ENODATA for reading, never the file's.
    assert_eq!(lsetxattr(&at("l"), c"user.one", b"x"), Err(Errno::EPERM));
    assert!(lgetxattr(&at("l"), c"user.one").is_err());
}
