"""What the operating system knows of files: metadata, holes, clones, durability.

Everything here works relative to directory descriptors and never follows a symbolic link, so that
a name can only ever mean the entry of that very directory.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import stat
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

from failpoints import failpoint
from snapshots.errors import SnapshotError, Unsupported, shown

MAX_DEPTH = 200  # directories inside directories; one descriptor is open for each

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOATIME
WRITE = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
CREATE = WRITE | os.O_CREAT | os.O_EXCL
ALIGNED = 4096  # bytes, of what is written past the page cache
ENTRY_ONLY = getattr(os, "O_PATH", 0o10000000) | os.O_NOFOLLOW | os.O_CLOEXEC

_FICLONE, _FICLONERANGE = 0x40049409, 0x4020940D
_CANNOT_CLONE = (
    errno.EOPNOTSUPP,
    errno.ENOTTY,
    errno.EXDEV,
    errno.EINVAL,
    errno.ENOSYS,
    errno.EPERM,
)
_KEEP_SIZE = 0x01
_PUNCH_HOLE_KEEP_SIZE = 0x02 | _KEEP_SIZE
_WRITE = 2
_DONT_CACHE = 0x80
_WRITE_AND_WAIT = 1 | _WRITE | 4
# Before Linux 5.2 it left out pages that somebody else was just writing.
_RANGES_ARE_WAITED_FOR = tuple(int(n) for n in re.findall(r"\d+", os.uname().release)[:2]) >= (5, 2)

# File systems on which a write through mmap changes the modification time no later than the next
# write fault after an fsync. Elsewhere (tmpfs, network and FUSE file systems) times prove nothing.
_EXT4, _XFS, _BTRFS = 0xEF53, 0x58465342, 0x9123683E
_HONEST_TIMES = (_EXT4, _XFS, _BTRFS)
_FUSE = 0x65735546

# What opening a name reports when the entry was removed or exchanged since it was listed.
EXCHANGED = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.ESTALE)

# Two writes within one clock tick leave the same time. A file that changed this shortly before it
# was looked at is looked at again next time.
SETTLE_NS = 50_000_000

_libc = ctypes.CDLL(None, use_errno=True)
_libc.memcmp.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
_libc.sync_file_range.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


@dataclass(frozen=True, slots=True)
class Meta:
    """Owner, permission bits (with setuid, setgid, sticky), time and extended attributes."""

    mode: int
    uid: int
    gid: int
    mtime_ns: int
    xattrs: tuple[tuple[str, bytes], ...] = ()


class Key(NamedTuple):
    """By what an unchanged file is recognised. `settled`: not changed just before the look."""

    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, st: os.stat_result) -> Key:
        return cls(st.st_ino, st.st_size, st.st_mtime_ns, st.st_ctime_ns)

    def settled(self, now_ns: int) -> bool:
        return self.ctime_ns + SETTLE_NS < now_ns


@dataclass(frozen=True)
class Size:
    """What a folder takes: allocated bytes, the sum of file sizes, and how many files."""

    bytes: int
    apparent_bytes: int
    files: int


def entry_path(dir_fd: int, name: bytes) -> bytes:
    """A path for calls that take no directory descriptor; its parent cannot be exchanged."""
    return b"/proc/self/fd/%d/%s" % (dir_fd, name)


def names_in(dir_fd: int) -> list[bytes]:
    """The names in a directory, in byte order: the one order of walks, trees and indexes."""
    return sorted(os.listdir(b"/proc/self/fd/%d" % dir_fd))


def entries_in(dir_fd: int) -> list[tuple[bytes, os.stat_result | None]]:
    """What a directory holds, in byte order of names; None for what vanished meanwhile.

    Looked at in the order of inodes, which is how they lie on a disk.
    """
    with os.scandir(b"/proc/self/fd/%d" % dir_fd) as listing:
        found = sorted((entry.inode(), entry.name) for entry in listing)
    entries: list[tuple[bytes, os.stat_result | None]] = []
    for _, name in found:
        try:
            st = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
        except FileNotFoundError:
            st = None
        entries.append((name, st))
    return sorted(entries, key=itemgetter(0))


def lstat(dir_fd: int, name: bytes) -> os.stat_result:
    return os.stat(name, dir_fd=dir_fd, follow_symlinks=False)


def open_file(dir_fd: int, name: bytes, flags: int) -> int:
    """Open without following links; O_NOATIME is dropped where it is not allowed."""
    try:
        return os.open(name, flags, 0o600, dir_fd=dir_fd)
    except PermissionError:
        if not flags & os.O_NOATIME:
            raise
        return os.open(name, flags & ~os.O_NOATIME, 0o600, dir_fd=dir_fd)


@contextmanager
def opened(dir_fd: int, name: bytes, flags: int) -> Iterator[int]:
    fd = open_file(dir_fd, name, flags)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def opened_root(path: Path) -> Iterator[int]:
    """A descriptor of a folder given by the caller; its own path may lead through links."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def deeper(depth: int, path: bytes) -> int:
    """One level down, or Unsupported at the limit."""
    if depth >= MAX_DEPTH:
        raise Unsupported(f"{shown(path)} lies more than {MAX_DEPTH} directories deep")
    return depth + 1


def below(path: bytes, name: bytes) -> bytes:
    return path + b"/" + name if path else name


def insist_apart(one: Path, other: Path) -> None:
    """Unsupported if one folder is, or lies in, the other: working on both would destroy one."""
    a, b = one.resolve(), other.resolve()
    if a.is_relative_to(b) or b.is_relative_to(a):
        raise Unsupported(f"{one} and {other} lie in each other: name two separate folders")


# -- metadata ------------------------------------------------------------------------------------


def kept_xattr(name: str) -> bool:
    """Whether an attribute belongs to the data.

    Labels of the host's own policy do not, nor does the second face under which XFS shows ACLs.
    """
    if name.startswith("trusted.SGI_ACL_"):
        return False
    return name.startswith(("user.", "trusted.")) or name in (
        "security.capability",
        "system.posix_acl_access",
        "system.posix_acl_default",
    )


def read_xattrs(handle: int | bytes, *, link: bool = False) -> tuple[tuple[str, bytes], ...]:
    follow = not link
    try:
        names = os.listxattr(handle, follow_symlinks=follow)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return ()
        raise
    return tuple(
        (name, os.getxattr(handle, name, follow_symlinks=follow))
        for name in sorted(names)
        if kept_xattr(name)
    )


def meta_of(st: os.stat_result, handle: int | bytes, *, link: bool = False) -> Meta:
    return Meta(
        stat.S_IMODE(st.st_mode),
        st.st_uid,
        st.st_gid,
        st.st_mtime_ns,
        read_xattrs(handle, link=link),
    )


def apply_meta(handle: int | bytes, meta: Meta, *, link: bool = False) -> None:
    """Give an entry exactly this metadata. `handle`: its descriptor, or a path for calls without.

    The order matters: a change of owner clears setuid and capabilities, an ACL changes mode bits,
    and every one of them but the last changes a time.
    """
    follow = not link
    os.chown(handle, meta.uid, meta.gid, follow_symlinks=follow)
    wanted, present = dict(meta.xattrs), dict(read_xattrs(handle, link=link))
    for name in present.keys() - wanted.keys():
        os.removexattr(handle, name, follow_symlinks=follow)
    for name, value in wanted.items():
        if present.get(name) != value or name == "security.capability":
            os.setxattr(handle, name, value, follow_symlinks=follow)
    if not link:
        os.chmod(handle, meta.mode)
    os.utime(handle, ns=(meta.mtime_ns, meta.mtime_ns), follow_symlinks=follow)


def read_entry_meta(dir_fd: int, name: bytes, st: os.stat_result) -> Meta:
    """Metadata of an entry that must not be opened (link, FIFO)."""
    return meta_of(st, entry_path(dir_fd, name), link=True)


def apply_entry_meta(dir_fd: int, name: bytes, meta: Meta, *, link: bool) -> None:
    """Metadata onto an entry that must not be opened. `link`: it is a symbolic link."""
    if link:
        apply_meta(entry_path(dir_fd, name), meta, link=True)
        return
    with opened(dir_fd, name, ENTRY_ONLY) as fd:
        apply_meta(b"/proc/self/fd/%d" % fd, meta)


# -- content -------------------------------------------------------------------------------------


def segments(fd: int, end: int, start: int = 0) -> Iterator[tuple[int, int]]:
    """Where [start, end) of a file holds data, as (offset, length) in order; the rest is holes."""
    while start < end:
        try:
            data = os.lseek(fd, start, os.SEEK_DATA)
            hole = os.lseek(fd, data, os.SEEK_HOLE) if data < end else end
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole up to the end of the file
                return
            raise
        if data >= end:
            return
        start = min(hole, end)
        yield data, start - data


def read_into(fd: int, buffer: memoryview, offset: int) -> int:
    """Fill the buffer from a file; returns fewer bytes only at its end."""
    done = 0
    while done < len(buffer):
        count = os.preadv(fd, [buffer[done:]], offset + done)
        if count == 0:
            break
        done += count
    return done


def read_through(fd: int, buffer: memoryview, offset: int) -> int:
    """As `read_into`, for what nobody is about to read again: where the kernel can (Linux 6.14),
    what was not in the page cache is not kept there either, nor pushes out what others use."""
    try:
        done = os.preadv(fd, [buffer], offset, _DONT_CACHE)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise
        return read_into(fd, buffer, offset)
    return done + read_into(fd, buffer[done:], offset + done) if done < len(buffer) else done


def write_all(fd: int, data: bytes | memoryview, offset: int) -> None:
    view, done = memoryview(data), 0
    while done < len(view):
        done += os.pwrite(fd, view[done:], offset + done)


def write_buffers(fd: int, buffers: Sequence[bytes | memoryview], offset: int) -> int:
    """Write neighbouring buffers with one call where possible; returns how many bytes."""
    if not buffers:
        return 0
    wanted = sum(map(len, buffers))
    done = os.pwritev(fd, buffers, offset)
    if done < wanted:  # a signal or a full disk: the rest tells which
        write_all(fd, memoryview(b"".join(buffers))[done:], offset + done)
    return wanted


def past_the_cache(fd: int) -> int | None:
    """Another descriptor of an open file, whose writes go from memory to the disk and leave the
    page cache to others. They begin, end, and lie in memory at multiples of ALIGNED.

    None where the file system would take them through the cache all the same.
    """
    if _kind_of_filesystem(fd) not in (_EXT4, _XFS):
        return None
    try:
        return os.open(b"/proc/self/fd/%d" % fd, os.O_WRONLY | os.O_DIRECT | os.O_CLOEXEC)
    except OSError:
        return None


def punch_hole(fd: int, offset: int, length: int) -> None:
    """Make a range a hole; where the file system cannot, make it zero."""
    if _libc.fallocate(fd, _PUNCH_HOLE_KEEP_SIZE, offset, length) == 0:
        return
    code = ctypes.get_errno()
    if code not in (errno.EOPNOTSUPP, errno.ENOSYS):
        raise OSError(code, os.strerror(code))
    zeros = bytes(1 << 16)
    for at in range(offset, offset + length, len(zeros)):
        write_all(fd, memoryview(zeros)[: min(len(zeros), offset + length - at)], at)


def punch_where_data(fd: int, start: int, end: int) -> None:
    """Make [start, end) a hole, touching the file only where it has data there."""
    for offset, length in list(segments(fd, end, start)):
        punch_hole(fd, offset, length)


def same_bytes(a: memoryview, b: memoryview) -> bool:
    """memcmp: memoryview's own comparison goes byte by byte."""
    if len(a) != len(b):
        return False
    pointers = [ctypes.addressof(ctypes.c_char.from_buffer(view)) for view in (a, b)] if a else []
    return not a or _libc.memcmp(*pointers, len(a)) == 0


def clone_file(src_fd: int, dst_fd: int) -> bool:
    """Reflink the whole content; False where the file systems cannot."""
    return _cloned(dst_fd, _FICLONE, src_fd)


def clone_range(src_fd: int, dst_fd: int, offset: int, length: int) -> bool:
    """Reflink a range into the same place. `length` 0: up to the end of the source.

    Both are multiples of the file system's blocks. False where the file systems cannot, and if the
    source is not that long.
    """
    return _cloned(dst_fd, _FICLONERANGE, struct.pack("=qQQQ", src_fd, offset, length, offset))


def _cloned(dst_fd: int, how: int, what: int | bytes) -> bool:
    try:
        fcntl.ioctl(dst_fd, how, what)
    except OSError as error:
        if error.errno in _CANNOT_CLONE:
            return False
        raise
    return True


def times_are_honest(fd: int) -> bool:
    """Whether unchanged times prove unchanged content here, mmap writers included."""
    return _kind_of_filesystem(fd) in _HONEST_TIMES


def _kind_of_filesystem(fd: int) -> int:
    """Its magic number; 0 if it cannot be told."""
    buffer = ctypes.create_string_buffer(256)
    if _libc.fstatfs(fd, buffer) != 0:
        return 0
    return ctypes.c_ulong.from_buffer(buffer).value


# -- changes of directories ----------------------------------------------------------------------


def link_entry(root: int, names: Sequence[bytes], dir_fd: int, name: bytes, inode: int) -> None:
    """Make `name` a hard link of the entry at `names` below `root`, which has this inode.

    Goes down from the root following nothing, so that only entries below it can be reached.
    """
    fds = [os.dup(root)]
    try:
        for step in names[:-1]:
            fds.append(os.open(step, DIRECTORY, dir_fd=fds[-1]))
        os.link(names[-1], name, src_dir_fd=fds[-1], dst_dir_fd=dir_fd, follow_symlinks=False)
    finally:
        for fd in fds:
            os.close(fd)
    if lstat(dir_fd, name).st_ino != inode:
        os.unlink(name, dir_fd=dir_fd)
        raise SnapshotError(f"{shown(name)}: somebody else changes the target; stop that first")


def remove_entry(dir_fd: int, name: bytes) -> None:
    """Remove an entry with everything in it, following nothing."""
    if not stat.S_ISDIR(lstat(dir_fd, name).st_mode):
        os.unlink(name, dir_fd=dir_fd)
        return
    with opened(dir_fd, name, DIRECTORY) as fd:
        if os.fstat(fd).st_dev != os.fstat(dir_fd).st_dev:
            raise Unsupported(f"{shown(name)} is a mount point: unmount it first")
        for inner in names_in(fd):
            remove_entry(fd, inner)
    os.rmdir(name, dir_fd=dir_fd)


def sync_filesystem(fd: int) -> None:
    """Everything written so far below this folder is durable, with its name, or an error is raised.

    By syncfs, which the kernel does not pass on to file systems of FUSE: there, one by one.
    """
    if _kind_of_filesystem(fd) == _FUSE:
        sync_each(fd)
        with opened(fd, b"..", DIRECTORY) as above:
            os.fsync(above)
    elif _libc.syncfs(fd) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def sync_each(fd: int) -> None:
    """Sync a folder and everything in it."""
    for name, st in entries_in(fd):
        if st is None or not (stat.S_ISREG(st.st_mode) or stat.S_ISDIR(st.st_mode)):
            continue
        with opened(fd, name, DIRECTORY if stat.S_ISDIR(st.st_mode) else READ) as inner:
            if stat.S_ISDIR(st.st_mode):
                sync_each(inner)
            else:
                os.fsync(inner)
    os.fsync(fd)


def writes_out_ranges(fd: int) -> bool:
    """Whether `write_out` can do without a sync on the file system of this file."""
    return _RANGES_ARE_WAITED_FOR and _kind_of_filesystem(fd) in (_EXT4, _XFS)


def write_out(fd: int, offset: int, length: int, *, ranges: bool | None = None) -> None:
    """Write what is dirty in a range: later writes to it through mmap change the file's times.

    Unlike a sync it makes nothing durable, and so waits for nobody else's writes. `ranges`: what
    `writes_out_ranges` said of the file system, if that is known.
    """
    if writes_out_ranges(fd) if ranges is None else ranges:
        if _libc.sync_file_range(fd, offset, length, _WRITE_AND_WAIT) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
    else:
        os.fsync(fd)


def start_writing(fd: int, offset: int, length: int) -> None:
    """Write a range and wait for it, where the system can: a later sync has less to do."""
    _libc.sync_file_range(fd, offset, length, _WRITE_AND_WAIT)


def begin_writing(fd: int, offset: int, length: int) -> None:
    """Have the system begin to write a range, without waiting: a later sync has less to do."""
    _libc.sync_file_range(fd, offset, length, _WRITE)


def preallocate(fd: int, offset: int, length: int) -> None:
    """Reserve room for a range, in one piece where the file system can; the size stays."""
    if _libc.fallocate(fd, _KEEP_SIZE, offset, length) != 0:
        code = ctypes.get_errno()
        if code not in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINTR):
            raise OSError(code, os.strerror(code))


def sync_folder(path: Path) -> None:
    with opened_root(path) as fd:
        os.fsync(fd)


def write_durably(path: Path, data: bytes) -> None:
    """A file of ours (0600) that is there whole or not at all, also after a power cut."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        write_all(fd, data, 0)
        failpoint("store.fsync")
        os.fsync(fd)
    finally:
        os.close(fd)
    failpoint("store.rename")
    os.replace(temporary, path)
    failpoint("store.renamed")
    sync_folder(path.parent)


def measure_fd(dir_fd: int, seen: set[tuple[int, int]]) -> Size:
    allocated = apparent = files = 0
    for name in names_in(dir_fd):
        try:
            st = lstat(dir_fd, name)
            if stat.S_ISDIR(st.st_mode):
                with opened(dir_fd, name, DIRECTORY) as fd:
                    inner = measure_fd(fd, seen)
                allocated, apparent, files = (
                    allocated + inner.bytes + st.st_blocks * 512,
                    apparent + inner.apparent_bytes,
                    files + inner.files,
                )
                continue
        except FileNotFoundError:
            continue
        files += 1
        if st.st_nlink > 1:
            if (st.st_dev, st.st_ino) in seen:
                continue
            seen.add((st.st_dev, st.st_ino))
        allocated += st.st_blocks * 512
        apparent += st.st_size
    return Size(allocated, apparent, files)


def is_special(st: os.stat_result) -> bool:
    """Sockets and devices: never captured, copied or restored."""
    return stat.S_ISSOCK(st.st_mode) or stat.S_ISBLK(st.st_mode) or stat.S_ISCHR(st.st_mode)


def kind_of(st: os.stat_result) -> str:
    """What a special entry is called in a message."""
    return "socket" if stat.S_ISSOCK(st.st_mode) else "device"
