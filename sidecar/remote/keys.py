"""Private keys for a login, opened with a passphrase if need be: those that were named, else where OpenSSH looks.

And those that an agent holds, which stay there: it signs with them.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import asyncssh

from sidecar.errors import SourceUnreadable, describe_os_error
from sidecar.limits import AGENT_S, MAX_KEY_FILE_BYTES

DEFAULT_NAMES = ("id_ed25519", "id_ecdsa", "id_rsa", "id_ed25519_sk", "id_ecdsa_sk")


@dataclass(slots=True)
class Keys:
    """The keys that could be opened, and the files of those for which a passphrase is missing or wrong."""

    opened: list[asyncssh.SSHKey] = field(default_factory=list)
    locked: list[str] = field(default_factory=list)
    public_parts: list[bytes] = field(default_factory=list)
    """Of all that were named, also of those whose private part is locked, or with an agent alone."""
    certificates: list[asyncssh.SSHCertificate] = field(default_factory=list)


def load_keys(
    paths: Iterable[str], passphrase: str | None, *, required: bool, certificate_paths: Iterable[str] = ()
) -> Keys:
    """Open the keys in the files at ``paths``. Runs for up to a second for an encrypted one: call it in a thread.

    A file that isn't there or holds no key is an error (``SourceUnreadable``) if it is ``required``, else it is passed
    over, as OpenSSH does. Where only the public part is, the private one may be with an agent.
    """
    keys = Keys()
    for path in paths:
        public_part = _public_part(path)
        try:
            keys.opened.append(asyncssh.import_private_key(_read(path), passphrase))
        except asyncssh.KeyEncryptionError:
            keys.locked.append(path)
        except asyncssh.KeyImportError as error:
            # asyncssh tells the one from the other by its words alone.
            if any(word in str(error) for word in ("assphrase", "decrypt")):
                keys.locked.append(path)
            elif required and public_part is None:
                raise SourceUnreadable(f"no private key can be read from {path}") from None
        except OSError as error:
            if required and public_part is None:
                raise SourceUnreadable(describe_os_error(error)) from None
        else:
            public_part = keys.opened[-1].public_data
        keys.public_parts += [public_part] if public_part is not None else []
        keys.certificates += _certificates(f"{path}-cert.pub")
    for path in certificate_paths:
        keys.certificates += _certificates(path)
    return keys


def default_paths(home: str) -> list[str]:
    """Where OpenSSH looks for keys if none is named."""
    return [os.path.join(home, ".ssh", name) for name in DEFAULT_NAMES]


class Agent(asyncssh.SSHAgentClient):
    """An agent, that remembers whether it has refused to sign."""

    has_refused = False

    async def keys(self) -> list[asyncssh.SSHKeyPair]:
        """What it holds; nothing if there is no agent, or it doesn't answer."""
        try:
            async with asyncio.timeout(AGENT_S):
                return list(await self.get_keys())
        except (TimeoutError, ValueError, OSError):
            return []

    async def sign(self, key_blob: bytes, data: bytes, flags: int = 0) -> bytes:
        try:
            return await super().sign(key_blob, data, flags)
        except ValueError:
            self.has_refused = True
            raise


def in_order(
    keys: Keys, held: Sequence[asyncssh.SSHKeyPair], *, only_named: bool
) -> list[asyncssh.SSHKey | asyncssh.SSHKeyPair]:
    """The keys to offer: an agent's that were named, those that were opened, an agent's others.

    A host ends a login after a few keys that it doesn't know, so what was named must not stand behind what was not.
    """
    named = [key for key in held if key.public_data in keys.public_parts]
    with_agent = {key.public_data for key in named}
    opened = [key for key in keys.opened if key.public_data not in with_agent]
    others = [] if only_named else [key for key in held if key.public_data not in keys.public_parts]
    return [*named, *opened, *others]


def _public_part(path: str) -> bytes | None:
    """The public key beside or in a private one's file, which says it also of some that are locked."""
    for place in (f"{path}.pub", path):
        with suppress(OSError, ValueError):
            return asyncssh.import_public_key(_read(place)).public_data
    return None


def _certificates(path: str) -> list[asyncssh.SSHCertificate]:
    with suppress(OSError, ValueError):
        return [asyncssh.import_certificate(_read(path))]
    return []


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(MAX_KEY_FILE_BYTES)
