"""What kind of file system a path lies on, as far as the system tells."""

from __future__ import annotations

import os

_MOUNTS = "/proc/self/mountinfo"
# File systems on which another kernel may hold a file open: neither its locks nor its clock are ours to see.
_SHARED = frozenset(
    ("9p", "afs", "ceph", "cifs", "drvfs", "lustre", "nfs", "nfs4", "prl_fs", "smb3", "smbfs", "vboxsf", "virtiofs")
)


def is_on_shared_file_system(path: str) -> bool:
    """Whether another kernel than ours may write to what lies there, as far as the system tells."""
    if path.startswith("\\\\"):  # a Windows share, or the files of WSL
        return True
    if not os.path.exists(_MOUNTS):
        return False
    device = os.stat(path).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    with open(_MOUNTS, encoding="utf-8", errors="surrogateescape") as mounts:
        for mount in mounts:
            if mount.split(" ", 3)[2] == wanted:
                kind = mount.partition(" - ")[2].split(" ", 1)[0]
                return kind in _SHARED or kind.startswith("fuse.")
    return False
