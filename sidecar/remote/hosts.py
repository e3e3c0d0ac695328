"""The hosts that the app knows: the entries of ``instances.json`` whose ``instanceType`` is ``remote_ssh``.

The file is the app's too. What is not ours in it, other entries and fields that are not known here, is held as the text
it was read as and written back as that, between other white space at most.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple

import msgspec

from sidecar.core.transcript import REJECTED
from sidecar.errors import HostUnknown, InvalidParams, SourceUnreadable
from sidecar.remote import private_file

log = logging.getLogger(__name__)

FILE_NAME = "instances.json"
HOST_TYPE = "remote_ssh"

AuthMethod = Literal["key", "ssh_config", "password"]
Members = dict[str, msgspec.Raw]
"""A JSON object, its values as text."""

_NOT_IN_ID = re.compile("[^a-z0-9.-]+")
_SHOWN_ID_CHARS = 80


class _HostFields(msgspec.Struct, rename="camel", frozen=True, kw_only=True):
    id: str
    label: str
    host: str
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)]
    username: str
    auth_method: AuthMethod
    key_path: str | None = None
    password: str | None = None
    passphrase: str | None = None


class SshHost(_HostFields, rename="camel", frozen=True, kw_only=True):
    """A host and how to log in there. ``host`` is a name or an address, or an alias of ``~/.ssh/config``.

    ``others`` are the fields of the stored object that are not known here. Printing one shows no secret.
    """

    others: Members = {}

    def members(self) -> dict[str, Any]:
        """The object in the file and on the wire: the fields, without those that are ``None``, and the others."""
        names = zip(_HostFields.__struct_encode_fields__, _HostFields.__struct_fields__, strict=True)
        known = {wire_name: getattr(self, name) for wire_name, name in names}
        return {name: value for name, value in known.items() if value is not None} | self.others

    def is_at(self, other: SshHost) -> bool:
        """Whether this is the same user's place on the same machine as ``other``."""
        return (self.host, self.port, self.username) == (other.host, other.port, other.username)

    def __repr__(self) -> str:
        return f"SshHost({self.id!r}, {self.username!r} at {self.host!r}:{self.port} by {self.auth_method})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("id", self.id)]


class Instance(NamedTuple):
    """A host and where OpenClaw and ClawPal keep their files there, if that was chosen."""

    host: SshHost
    openclaw_home: str | None
    clawpal_data_dir: str | None


class _Places(msgspec.Struct, rename="camel"):
    openclaw_home: str | None = None
    clawpal_data_dir: str | None = None


class _RawEntry(msgspec.Struct, rename="camel"):
    id: msgspec.Raw = msgspec.Raw()
    instance_type: msgspec.Raw = msgspec.Raw()
    ssh_host_config: msgspec.Raw = msgspec.Raw()


class _Entry(NamedTuple):
    """An element of ``instances``: all its text, its id, empty if it has none, and that of its host."""

    text: msgspec.Raw
    id: str = ""
    is_host: bool = False
    config: msgspec.Raw = msgspec.Raw()


class _File(msgspec.Struct):
    entries: list[_Entry]
    others: Members


_decode_members = msgspec.json.Decoder(Members).decode
_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_entry = msgspec.json.Decoder(_RawEntry).decode
_decode_text = msgspec.json.Decoder(str).decode
_decode_places = msgspec.json.Decoder(_Places).decode
_decode_fields = msgspec.json.Decoder(_HostFields).decode
_encode = msgspec.json.Encoder().encode


def list_hosts(clawpal_dir: str) -> list[SshHost]:
    """The hosts, by id; none without a file. ``SourceUnreadable`` or ``OSError`` if the file can't be read.

    A host of which a field is missing or of the wrong type is left out, and the log says so.
    """
    hosts = []
    for entry in _parse(private_file.read(_path(clawpal_dir))).entries:
        try:
            instance = _instance(entry)
        except SourceUnreadable as error:
            log.warning("left out: %s", error.message)
        else:
            hosts += [instance.host] if instance else []
    return sorted(hosts, key=lambda host: host.id)


def find_host(clawpal_dir: str, host_id: str) -> Instance:
    """The host of this id. ``HostUnknown`` without one; ``SourceUnreadable`` or ``OSError`` as above, or of its own."""
    for entry in _parse(private_file.read(_path(clawpal_dir))).entries:
        if entry.id == host_id and (instance := _instance(entry)):
            return instance
    raise HostUnknown(host_id[:_SHOWN_ID_CHARS])


def upsert_host(clawpal_dir: str, host: SshHost) -> SshHost:
    """Store ``host`` in place of the one of its id, or as a new one; the host as stored.

    With an empty id it takes the place of the host of the same address, port and user, if there is one. Otherwise its
    id becomes ``ssh:`` and the address: in lower case, each run of characters other than a-z, 0-9, ``.`` and ``-`` as
    one ``-``, and ``-2``, ``-3`` … behind it if another instance has that id. Fields that are not known here stay if
    ``host`` doesn't set them anew. ``InvalidParams`` if the id is that of an instance that is no host; errors as above.
    """
    saved = host

    def change(text: bytes | None) -> bytes:
        nonlocal saved
        file = _parse(text)
        host_id = host.id or _id_for(host, file.entries)
        same = [number for number, entry in enumerate(file.entries) if entry.id == host_id]
        if same and not file.entries[same[0]].is_host:
            raise InvalidParams(f'host.id: the instance "{host_id[:_SHOWN_ID_CHARS]}" is not a host over SSH')
        was = file.entries[same[0]] if same else None
        saved = _merged(host, host_id, was)
        entry = _read_entry(_entry_text(saved, was))
        if same:
            file.entries[same[0]] = entry
        else:
            file.entries.append(entry)
        return _text(file)

    private_file.rewrite(_path(clawpal_dir), change)
    return saved


def delete_host(clawpal_dir: str, host_id: str) -> bool:
    """Take the host of this id out; whether there was one. Errors as above."""
    is_gone = False

    def change(text: bytes | None) -> bytes | None:
        nonlocal is_gone
        file = _parse(text)
        kept = [entry for entry in file.entries if not (entry.is_host and entry.id == host_id)]
        is_gone = len(kept) < len(file.entries)
        file.entries = kept
        return _text(file) if is_gone else None

    # Without a file there is nothing to delete, and no reason to create the folder with a lock in it.
    if private_file.read(_path(clawpal_dir)) is not None:
        private_file.rewrite(_path(clawpal_dir), change)
    return is_gone


def _path(clawpal_dir: str) -> str:
    return os.path.join(clawpal_dir, FILE_NAME)


def _parse(text: bytes | None) -> _File:
    if text is None:
        return _File([], {})
    try:
        text.decode()  # msgspec looks only at the strings that it decodes
        members = _decode_members(text)
        entries = _decode_list(members.pop("instances", b"[]"))
    except REJECTED:
        # Without the reason's own words: they may quote what stands in the file.
        raise SourceUnreadable(
            f'{FILE_NAME} is broken: it is not a JSON object with a list "instances"; it was left as it is'
        ) from None
    return _File([_read_entry(entry) for entry in entries], members)


def _read_entry(text: msgspec.Raw) -> _Entry:
    try:
        fields = _decode_entry(text)
    except REJECTED:
        return _Entry(text)
    return _Entry(text, _as_text(fields.id), _as_text(fields.instance_type) == HOST_TYPE, fields.ssh_host_config)


def _as_text(raw: msgspec.Raw) -> str:
    try:
        return _decode_text(raw)
    except REJECTED:
        return ""


def _instance(entry: _Entry) -> Instance | None:
    """The host that an entry tells of; ``None`` if it is another's. ``SourceUnreadable`` if it can't be understood."""
    if not entry.is_host or bytes(entry.config) in {b"", b"null"}:
        return None
    try:
        # The entry's id is the one that commands name; that of the object inside is a copy.
        members = _decode_members(entry.config) | {"id": msgspec.Raw(_encode(entry.id))}
        fields = _decode_fields(_encode(members))
        places = _decode_places(entry.text)
    except REJECTED as error:
        shown = entry.id[:_SHOWN_ID_CHARS]
        raise SourceUnreadable(f'the host "{shown}" in {FILE_NAME} can\'t be read: {_describe(error)}') from None
    host = SshHost(**msgspec.structs.asdict(fields), others=_others(members))
    return Instance(host, *msgspec.structs.astuple(places))


def _describe(error: Exception) -> str:
    """Which field is wrong, without the value that it has."""
    text = str(error)
    return f"the value of {text.rpartition('`$.')[2].rstrip('`')}" if " - at `$." in text else text


def _others(members: Members) -> Members:
    """The members of a host that are not known here, each on one line, as the wire wants it."""
    return {
        name: msgspec.Raw(msgspec.json.format(value, indent=-1))
        for name, value in members.items()
        if name not in _HostFields.__struct_encode_fields__
    }


def _id_for(host: SshHost, entries: Sequence[_Entry]) -> str:
    for entry in sorted(entries, key=lambda entry: entry.id):
        try:
            known = _instance(entry)
        except SourceUnreadable:
            continue
        if known and known.host.id and known.host.is_at(host):
            return known.host.id
    taken = {entry.id for entry in entries}
    first = f"ssh:{_NOT_IN_ID.sub('-', host.host.lower())}"
    number = 1
    while (host_id := first if number == 1 else f"{first}-{number}") in taken:
        number += 1
    return host_id


def _merged(host: SshHost, host_id: str, was: _Entry | None) -> SshHost:
    """``host`` with its id and the fields that only the stored one has."""
    try:
        stored = _decode_members(was.config) if was else {}
    except REJECTED:
        stored = {}
    return msgspec.structs.replace(host, id=host_id, others=_others(stored) | _others(host.others))


def _entry_text(host: SshHost, was: _Entry | None) -> msgspec.Raw:
    entry: dict[str, Any] = {"id": host.id, "instanceType": HOST_TYPE, "label": host.label}
    if was is None:
        entry |= {"openclawHome": None, "clawpalDataDir": None}
    else:
        entry = _decode_members(was.text) | entry
    return msgspec.Raw(_encode(entry | {"sshHostConfig": host.members()}))


def _text(file: _File) -> bytes:
    entries = [entry.text for entry in sorted(file.entries, key=lambda entry: entry.id)]
    return msgspec.json.format(_encode(file.others | {"instances": entries}), indent=2)
