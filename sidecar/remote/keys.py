"""Private keys for a login, opened with a passphrase if need be: those that were named, else where OpenSSH looks."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field

import asyncssh

from sidecar.errors import SourceUnreadable, describe_os_error
from sidecar.limits import MAX_KEY_FILE_BYTES

DEFAULT_NAMES = ("id_ed25519", "id_ecdsa", "id_rsa", "id_ed25519_sk", "id_ecdsa_sk")


@dataclass(slots=True)
class Keys:
    """The keys that could be opened, and the files of those for which a passphrase is missing or wrong."""

    opened: list[asyncssh.SSHKey] = field(default_factory=list)
    locked: list[str] = field(default_factory=list)

    def public_parts(self) -> list[bytes]:
        """What tells an agent's keys which of them are meant: also those whose own file is locked."""
        parts = [key.public_data for key in self.opened]
        for path in self.locked:
            with suppress(OSError, asyncssh.KeyImportError):
                parts.append(asyncssh.import_public_key(_read(f"{path}.pub")).public_data)
        return parts


def load_keys(paths: Iterable[str], passphrase: str | None, *, required: bool) -> Keys:
    """Open the keys in the files at ``paths``. Runs for up to a second for an encrypted one: call it in a thread.

    A file that isn't there or holds no private key is an error (``SourceUnreadable``) if it is ``required``, else it
    is passed over, as OpenSSH does.
    """
    keys = Keys()
    for path in paths:
        try:
            keys.opened.append(asyncssh.import_private_key(_read(path), passphrase))
        except asyncssh.KeyEncryptionError:
            keys.locked.append(path)
        except asyncssh.KeyImportError as error:
            # asyncssh tells the one from the other by its words alone.
            if "passphrase" in str(error).lower():
                keys.locked.append(path)
            elif required:
                raise SourceUnreadable(f"no private key can be read from {path}") from None
        except OSError as error:
            if required:
                raise SourceUnreadable(describe_os_error(error)) from None
    return keys


def default_paths(home: str) -> list[str]:
    """Where OpenSSH looks for keys if none is named."""
    return [os.path.join(home, ".ssh", name) for name in DEFAULT_NAMES]


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(MAX_KEY_FILE_BYTES)
