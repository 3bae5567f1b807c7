"""Packs and unpacks tar streams inside a container's root, as a program of its own. Standard library only.

    python -I confined_tar.py '{"verb": "get", "path": "/etc", "process": 4711, "cgroup": "<container id>"}'

The program enters the root (``chroot``) before it looks at any path of the tenant's, so that neither a link in the
container nor one in a tar can lead out. Names of users are never looked up there: that would load the container's
libraries into a privileged process. A tar with device nodes is refused.

Inside, Python itself must not look for files either. It would import a module, or read the source of one for a
traceback, from the tenant's root: all that is needed is imported before, the ways to import are taken away, and
whatever fails is answered and ends the program without a traceback. It keeps the capabilities that files need, and
may not use much memory.

A running container's root is taken from its first process, after which it is checked by its control group that the
process is still that container's; with ``"users": true`` its user namespace is entered too, so that owners are those
that the container sees. A stopped container's snapshot is mounted in a mount namespace of this program's
own, with its volumes, and goes away with it.

The first line on standard output is JSON: ``{"stat": …}``, ``{"done": true}`` or ``{"error": kind, "message": …}``.
"""

# Paths here are a stranger's text, which must reach the system calls as it is.
# ruff: noqa: PTH108, PTH110, PTH112, PTH114, PTH115, PTH118, PTH119, PTH120, PTH123, PTH208

import bz2  # noqa: F401  the decompressors are imported while the host's files are still seen
import ctypes
import gzip  # noqa: F401
import json
import lzma  # noqa: F401
import os
import resource
import stat
import sys
import tarfile
import time
import zlib  # noqa: F401
from pathlib import Path
from typing import IO, Any, BinaryIO, NoReturn

_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNS, _MS_BIND, _MS_REC, _MS_PRIVATE = 0x20000, 4096, 16384, 1 << 18
_OPENAT2, _RESOLVE_IN_ROOT = 437, 0x10
_MOUNT_FLAGS = {"ro": 1, "nosuid": 2, "nodev": 4, "noexec": 8, "bind": _MS_BIND, "rbind": _MS_BIND | _MS_REC}
_BLOCK = 1 << 18
#: Bytes: of address space, and of one entry's long name or extended header, which are read whole.
_MEMORY, _HEADER = 512 << 20, 1 << 20
#: CHOWN, DAC_OVERRIDE, FOWNER and FSETID (linux/capability.h); a named pipe needs none.
_CAPABILITIES = 1 << 0 | 1 << 1 | 1 << 3 | 1 << 4
_PR_CAPBSET_READ, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 23, 24, 38
_CAPABILITY_VERSION_3 = 0x20080522

#: Go's os.FileMode bits for the types that ``stat`` knows.
_GO_TYPES = {
    stat.S_IFDIR: 1 << 31,
    stat.S_IFLNK: 1 << 27,
    stat.S_IFBLK: 1 << 26,
    stat.S_IFIFO: 1 << 25,
    stat.S_IFSOCK: 1 << 24,
    stat.S_IFCHR: 1 << 26 | 1 << 21,
}
_libc = ctypes.CDLL(None, use_errno=True)


class Refused(Exception):
    """``kind`` is not-found, not-a-directory, gone or failed."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Entry(tarfile.TarInfo):
    """An entry of a stranger's tar, whose name and extended headers are not longer than any that is meant."""

    def _proc_pax(self, archive: tarfile.TarFile) -> Any:
        self._bound()
        return super()._proc_pax(archive)  # type: ignore[misc]

    def _proc_gnulong(self, archive: tarfile.TarFile) -> Any:
        self._bound()
        return super()._proc_gnulong(archive)  # type: ignore[misc]

    def _bound(self) -> None:
        if self.size > _HEADER:
            raise Refused("failed", "the tar has a header that is too long")


def go_mode(mode: int) -> int:
    """A mode as Go's os.FileMode has it."""
    special = {stat.S_ISUID: 1 << 23, stat.S_ISGID: 1 << 22, stat.S_ISVTX: 1 << 20}
    bits = sum(go for unix, go in special.items() if mode & unix)
    return mode & 0o777 | bits | _GO_TYPES.get(stat.S_IFMT(mode), 0)


def path_stat(path: str) -> dict[str, Any]:
    """Docker's description of a path."""
    found = os.lstat(path)
    # Not strftime(), which reads the zone's file, and so the tenant's.
    year, month, day, hour, minute, second = time.gmtime(found.st_mtime)[:6]
    moment = f"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"
    link = stat.S_ISLNK(found.st_mode)
    return {
        "name": os.path.basename(os.path.normpath(path)) or "/",
        "size": found.st_size,
        "mode": go_mode(found.st_mode),
        "mtime": moment,
        "link_target": os.path.join(os.path.dirname(path), os.readlink(path)) if link else "",
    }


def pack(path: str, out: IO[bytes]) -> None:
    """Write the path and all below it as a tar, named from its last part on."""
    name = os.path.basename(os.path.normpath(path)) or "."
    if path.endswith("/.") and os.path.isdir(path):
        name = "."
    links: dict[tuple[int, int], str] = {}
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        pending = [(path, name)]
        while pending:
            source, target = pending.pop()
            if _add(archive, source, target, links):
                below = sorted(os.listdir(source), reverse=True)
                pending.extend((os.path.join(source, one), os.path.join(target, one)) for one in below)


def unpack(path: str, data: BinaryIO) -> None:
    """Unpack a tar (plain, gzip, bzip2 or xz) into a directory that exists."""
    if not os.path.exists(path):
        raise Refused("not-found", path)
    if not os.path.isdir(path):
        raise Refused("not-a-directory", path)
    directories = []
    with tarfile.open(fileobj=data, mode="r|*", tarinfo=Entry) as archive:
        # Set here and not given to extract(), which takes it from Python 3.11.4 on only.
        archive.extraction_filter = lambda member, _path: member
        while (member := archive.next()) is not None:
            _forget(archive)
            if member.ischr() or member.isblk():
                raise Refused("failed", f"{member.name} is a device, and none is put into a container")
            target = os.path.join(path, member.name)
            if os.path.islink(target) or (os.path.lexists(target) and not os.path.isdir(target)):
                os.unlink(target)
            if member.islnk():
                # Mode and owner are the file's, which has them already.
                os.link(os.path.join(path, member.linkname), target, follow_symlinks=False)
                continue
            archive.extract(member, path, numeric_owner=True)
            if member.isdir():
                directories.append((target, member.mtime))
    for target, mtime in reversed(directories):
        os.utime(target, (mtime, mtime))


def _forget(archive: tarfile.TarFile) -> None:
    """The entries that went by, which the archive would all keep."""
    archive.members.clear()  # type: ignore[attr-defined]


def enter(job: dict[str, Any]) -> None:
    """Make the container's root this program's own."""
    users = os.open(f"/proc/{job['process']}/ns/user", os.O_RDONLY) if job.get("users") else None
    if job.get("process"):
        root = os.open(f"/proc/{job['process']}/root", os.O_PATH | os.O_DIRECTORY)
        if job["cgroup"] not in Path(f"/proc/{job['process']}/cgroup").read_text():
            raise Refused("gone", "the container has ended")
    else:
        root = _mounted(job["mounts"], job["mount_point"], job["binds"])
    os.fchdir(root)
    for ways in (sys.path, sys.meta_path, sys.path_hooks, sys.path_importer_cache):
        ways.clear()
    os.chroot(".")
    os.chdir("/")
    os.close(root)
    if users is not None:
        _check(_libc.setns(users, _CLONE_NEWUSER), "user namespace")
        os.close(users)
        os.setgroups(())
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
    confine()


def confine() -> None:
    """Keep what files need, and nothing that would serve an intruder."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    for capability in range(64):
        if _libc.prctl(_PR_CAPBSET_READ, capability, 0, 0, 0) == 1 and not _CAPABILITIES & 1 << capability:
            _check(_libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0), "capability")
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    # Effective, permitted and inheritable, of the lower 32 and of the upper.
    kept = (ctypes.c_uint32 * 6)(_CAPABILITIES, _CAPABILITIES, 0, 0, 0, 0)
    _check(_libc.capset(header, kept), "capset")


def _mounted(mounts: list[dict[str, Any]], mount_point: str, binds: list[dict[str, Any]]) -> int:
    _check(_libc.unshare(_CLONE_NEWNS), "unshare")
    _mount("", "/", "", _MS_REC | _MS_PRIVATE, "")
    for mount in mounts:
        flags = sum(_MOUNT_FLAGS.get(option, 0) for option in mount["options"])
        data = ",".join(_short(option) for option in mount["options"] if option not in (*_MOUNT_FLAGS, "rw"))
        _mount(mount["source"], mount_point, mount["type"], flags, data)
    root = os.open(mount_point, os.O_PATH | os.O_DIRECTORY)
    for bind in binds:
        if not os.path.exists(bind["source"]):
            continue  # of a sandbox that has ended
        try:
            place = _open_in(root, bind["destination"])
        except FileNotFoundError:
            continue  # made when the container is started for the first time
        _mount(bind["source"], f"/proc/self/fd/{place}", "", _MS_BIND | _MS_REC, "")
        if bind["read_only"]:
            again = _open_in(root, bind["destination"])
            _mount("", f"/proc/self/fd/{again}", "", _MS_BIND | 32 | 1, "")  # MS_REMOUNT, MS_RDONLY
            os.close(again)
        os.close(place)
    return root


def _short(option: str) -> str:
    """Overlay's lower directories as seen from the one that all are in: the kernel takes one page of options."""
    name, _, value = option.partition("=")
    layers = value.split(":")
    if name != "lowerdir" or len(layers) < 2:
        return option
    base = os.path.commonpath(layers)
    os.chdir(base)
    return f"{name}={':'.join(os.path.relpath(layer, base) for layer in layers)}"


def _open_in(root: int, path: str) -> int:
    """Open a path with links read as inside ``root``: openat2(2), since Linux 5.6."""
    how = (ctypes.c_uint64 * 3)(os.O_PATH | os.O_CLOEXEC, 0, _RESOLVE_IN_ROOT)
    found: int = _libc.syscall(_OPENAT2, root, path.encode(), how, ctypes.sizeof(how))
    return _check(found, path)


def _mount(source: str, target: str, kind: str, flags: int, data: str) -> None:
    arguments = (source.encode(), target.encode(), kind.encode() or None, ctypes.c_ulong(flags), data.encode() or None)
    _check(_libc.mount(*arguments), f"mount of {source or target}")


def _check(result: int, what: str) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), what)
    return result


def _add(archive: tarfile.TarFile, source: str, target: str, links: dict[tuple[int, int], str]) -> bool:
    """Write one entry. Whether it is a directory. Sockets and what vanished meanwhile are left out."""
    try:
        found = os.lstat(source)
    except FileNotFoundError:
        return False
    entry = tarfile.TarInfo(target)
    entry.mode, entry.uid, entry.gid = stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid
    entry.mtime = int(found.st_mtime)
    key = found.st_dev, found.st_ino
    if stat.S_ISDIR(found.st_mode):
        entry.type = tarfile.DIRTYPE
    elif stat.S_ISLNK(found.st_mode):
        entry.type, entry.linkname = tarfile.SYMTYPE, os.readlink(source)
    elif key in links:
        entry.type, entry.linkname = tarfile.LNKTYPE, links[key]
    elif stat.S_ISREG(found.st_mode):
        if found.st_nlink > 1:
            links[key] = target
        with open(source, "rb", buffering=0) as file:
            entry.size = os.fstat(file.fileno()).st_size
            archive.addfile(entry, _Exactly(file, entry.size))  # type: ignore[arg-type]
        _forget(archive)
        return False
    elif stat.S_ISFIFO(found.st_mode):
        entry.type = tarfile.FIFOTYPE
    elif stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode):
        entry.type = tarfile.CHRTYPE if stat.S_ISCHR(found.st_mode) else tarfile.BLKTYPE
        entry.devmajor, entry.devminor = os.major(found.st_rdev), os.minor(found.st_rdev)
    else:
        return False
    archive.addfile(entry)
    _forget(archive)
    return entry.isdir()


class _Exactly:
    """A file of exactly so many bytes: one that shrinks while it is read is filled up, as its length is told before."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file, self._left = file, size

    def read(self, size: int) -> bytes:
        wanted = min(size, self._left)
        data = b""
        while len(data) < wanted:
            part = self._file.read(min(_BLOCK, wanted - len(data)))
            data += part if part else bytes(wanted - len(data))
        self._left -= wanted
        return data


def main() -> NoReturn:
    """Do the job. Ends the process without what Python does at its end, and without a traceback: see the module."""
    tarfile.pwd = tarfile.grp = None  # type: ignore[attr-defined]
    sys.excepthook = lambda *_: None
    sys.unraisablehook = lambda _: None
    answered = False
    try:
        job = json.loads(sys.argv[1])
        enter(job)
        if job["verb"] == "put":
            unpack(job["path"], sys.stdin.buffer)
            _tell({"done": True})
        else:
            described = path_stat(job["path"])
            answered = True  # what fails from here on can only be told by the exit code: the tar begins
            _tell({"stat": described})
            pack(job["path"], sys.stdout.buffer)
            sys.stdout.buffer.flush()
    except BaseException as error:
        try:
            if not answered:
                _tell(_failure(error))
        finally:
            os._exit(1)
    os._exit(0)


def _failure(error: BaseException) -> dict[str, Any]:
    missing = isinstance(error, FileNotFoundError | NotADirectoryError)
    kind = error.kind if isinstance(error, Refused) else "not-found" if missing else "failed"
    return {"error": kind, "message": str(error) or type(error).__name__}


def _tell(answer: dict[str, Any]) -> None:
    sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
