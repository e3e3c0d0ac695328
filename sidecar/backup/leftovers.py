"""Whether a crash has left something to end: for a start, which loads what would end it only then."""

from __future__ import annotations

import os
from contextlib import suppress

from sidecar.backup.names import DELETED, MANIFEST_SUFFIX, STAGED
from sidecar.backup.rules import RESTORE_FOLDER


def has_leftovers(root: bytes, backups: bytes) -> bool:
    """Whether there may be some, in the tree at ``root`` or in the folder of its snapshots.

    They may turn out to be what another process is working on. What can't be read has none.
    """
    names: set[bytes] = set()
    with suppress(OSError):
        names.update(os.listdir(backups))
    return os.path.lexists(os.path.join(root, RESTORE_FOLDER)) or any(
        name.startswith((STAGED, DELETED))
        or (name.endswith(MANIFEST_SUFFIX) and name[: -len(MANIFEST_SUFFIX)] not in names)
        for name in names
    )
