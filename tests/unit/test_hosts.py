"""The file of instances: what is ours in it changes as asked, what is the app's stays, and no secret gets out."""

from __future__ import annotations

import errno
import fcntl
import itertools
import json
import logging
import os
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.pretty import pretty_repr

from sidecar.errors import HostUnknown, InvalidParams, SidecarError, SourceUnreadable, as_sidecar_error
from sidecar.limits import MAX_HOST_FILE_BYTES, MAX_HOST_FILE_TRIES
from sidecar.remote import hosts, private_file
from sidecar.remote.hosts import SshHost, delete_host, find_host, list_hosts, upsert_host
from sidecar.server.schema import HostParams, parse
from sidecar.stores import file_lock, index_rewrite
from sidecar.wire.messages import encode

SECRETS = {"password": "hunter2-p", "passphrase": "hunter2-q"}


def a_host(host: str = "box.example", **fields: Any) -> SshHost:
    usual: dict[str, Any] = {
        "id": "",
        "label": "Box",
        "host": host,
        "port": 22,
        "username": "root",
        "auth_method": "key",
    }
    return SshHost(**usual | fields)


def a_config(host_id: str = "ssh:a", **fields: Any) -> dict[str, Any]:
    usual = {"id": host_id, "label": "A", "host": "a.example", "port": 22, "username": "root", "authMethod": "key"}
    return usual | fields


def an_entry(host_id: str = "ssh:a", config: Any = None, **fields: Any) -> dict[str, Any]:
    usual = {"id": host_id, "instanceType": "remote_ssh", "label": "A", "openclawHome": None, "clawpalDataDir": None}
    return usual | {"sshHostConfig": a_config(host_id) if config is None else config} | fields


LOCAL = {"id": "local", "instanceType": "local", "label": "Here", "openclawHome": None, "clawpalDataDir": None}
DOCKER = {"id": "docker:1", "instanceType": "docker", "label": "D", "openclawHome": "~/d", "sshHostConfig": None}


class Folder:
    """A ClawPal directory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = path / "instances.json"

    def __str__(self) -> str:
        return str(self.path)

    def write(self, *entries: Any, **others: Any) -> None:
        self.write_text(json.dumps({"instances": entries, **others}))

    def write_text(self, text: str | bytes) -> None:
        self.path.mkdir(exist_ok=True)
        self.file.write_bytes(text.encode() if isinstance(text, str) else text)

    def read(self) -> Any:
        return json.loads(self.file.read_bytes())

    def names(self) -> set[str]:
        return set(os.listdir(self.path))

    def mode(self) -> int:
        return stat.S_IMODE(self.file.stat().st_mode)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "clawpal")


@contextmanager
def temporary_folder() -> Iterator[Folder]:
    with tempfile.TemporaryDirectory() as path:
        yield Folder(Path(path))


# What is stored


def test_without_a_file_there_are_no_hosts_and_none_is_made_by_asking(folder: Folder) -> None:
    assert list_hosts(str(folder)) == []
    assert delete_host(str(folder), "ssh:a") is False
    with pytest.raises(HostUnknown):
        find_host(str(folder), "ssh:a")
    assert not folder.path.exists()


def test_a_new_host_is_stored_as_the_app_stores_it(folder: Folder) -> None:
    saved = upsert_host(str(folder), a_host(label="Büro", key_path="~/.ssh/id", auth_method="key"))

    config = a_config("ssh:box.example", label="Büro", host="box.example", keyPath="~/.ssh/id")
    entry = an_entry("ssh:box.example", config, label="Büro")
    assert folder.read() == {"instances": [entry]}
    assert list(folder.read()["instances"][0]) == list(entry)
    assert folder.file.read_text().startswith('{\n  "instances": [\n    {\n      "id": "ssh:box.example",')
    assert saved == a_host(id="ssh:box.example", label="Büro", key_path="~/.ssh/id")
    assert list_hosts(str(folder)) == [saved]
    assert saved.members() == config


def test_fields_that_are_absent_or_null_are_none_and_are_absent_when_stored(folder: Folder) -> None:
    folder.write(an_entry(config=a_config(keyPath=None, password=None)))
    (host,) = list_hosts(str(folder))
    assert (host.key_path, host.password, host.passphrase) == (None, None, None)
    upsert_host(str(folder), host)
    assert folder.read()["instances"][0]["sshHostConfig"] == a_config()


def test_a_secret_that_is_not_sent_again_is_forgotten(folder: Folder) -> None:
    upsert_host(str(folder), a_host(id="ssh:a", **SECRETS))
    upsert_host(str(folder), a_host(id="ssh:a"))
    assert "hunter2" not in folder.file.read_text()


def test_entries_are_sorted_by_id_whatever_order_they_had(folder: Folder) -> None:
    folder.write(an_entry("ssh:z"), LOCAL, an_entry("ssh:b"), DOCKER)
    assert [host.id for host in list_hosts(str(folder))] == ["ssh:b", "ssh:z"]
    upsert_host(str(folder), a_host("m"))
    assert [entry["id"] for entry in folder.read()["instances"]] == ["docker:1", "local", "ssh:b", "ssh:m", "ssh:z"]
    assert [host.id for host in list_hosts(str(folder))] == ["ssh:b", "ssh:m", "ssh:z"]


def test_a_host_is_found_with_the_places_that_were_chosen_on_it(folder: Folder) -> None:
    folder.write(an_entry("ssh:a", openclawHome="/srv/claw", clawpalDataDir="~/pal"), an_entry("ssh:b"))
    found = find_host(str(folder), "ssh:a")
    assert found.host.host == "a.example"
    assert (found.openclaw_home, found.clawpal_data_dir) == ("/srv/claw", "~/pal")
    assert find_host(str(folder), "ssh:b")[1:] == (None, None)


def test_the_places_on_a_host_stay_when_it_is_stored_again(folder: Folder) -> None:
    folder.write(an_entry("ssh:a", openclawHome="/srv/claw", clawpalDataDir="~/pal"))
    upsert_host(str(folder), a_host(id="ssh:a", label="New"))
    assert find_host(str(folder), "ssh:a")[1:] == ("/srv/claw", "~/pal")
    assert folder.read()["instances"][0]["label"] == "New"


@pytest.mark.parametrize("host_id", ["ssh:b", "local", ""])
def test_a_host_that_is_not_there_is_an_error_that_names_it(folder: Folder, host_id: str) -> None:
    folder.write(an_entry("ssh:a"), LOCAL, an_entry("ssh:b", config={}) | {"sshHostConfig": None})
    with pytest.raises(HostUnknown, match=f'no such host: "{host_id}"'):
        find_host(str(folder), host_id)


def test_only_the_named_host_is_deleted_and_only_once(folder: Folder) -> None:
    folder.write(an_entry("ssh:a"), an_entry("ssh:b"), LOCAL)
    assert delete_host(str(folder), "ssh:a") is True
    assert delete_host(str(folder), "ssh:a") is False
    assert folder.read() == {"instances": [LOCAL, an_entry("ssh:b")]}


def test_an_instance_that_is_no_host_is_neither_deleted_nor_replaced(folder: Folder) -> None:
    folder.write(LOCAL, DOCKER)
    before = folder.file.read_bytes()
    assert delete_host(str(folder), "local") is False
    with pytest.raises(InvalidParams, match="local"):
        upsert_host(str(folder), a_host(id="local"))
    assert folder.file.read_bytes() == before


def test_nothing_is_written_when_nothing_is_deleted(folder: Folder) -> None:
    folder.write(an_entry("ssh:a"))
    was = folder.file.stat()
    assert delete_host(str(folder), "ssh:b") is False
    assert folder.file.stat().st_ino == was.st_ino


def test_the_id_of_the_entry_is_that_of_its_host(folder: Folder) -> None:
    folder.write(an_entry("ssh:a", a_config("ssh:old")))
    assert [host.id for host in list_hosts(str(folder))] == ["ssh:a"]
    assert find_host(str(folder), "ssh:a").host.id == "ssh:a"


# Ids


@pytest.mark.parametrize(
    ("host", "host_id"),
    [
        ("Box.Example", "ssh:box.example"),
        ("10.0.0.7", "ssh:10.0.0.7"),
        ("fe80::1%eth0", "ssh:fe80-1-eth0"),
        ("my box_2", "ssh:my-box-2"),
        ("größe", "ssh:gr-e"),
        ("--x--", "ssh:--x--"),
        ("../../etc", "ssh:..-..-etc"),
    ],
)
def test_an_empty_id_becomes_the_sanitised_address(folder: Folder, host: str, host_id: str) -> None:
    assert upsert_host(str(folder), a_host(host)).id == host_id


def test_the_same_place_without_an_id_is_updated_and_another_one_gets_an_id_of_its_own(folder: Folder) -> None:
    def upsert(**fields: Any) -> str:
        return upsert_host(str(folder), a_host(**fields)).id

    assert upsert() == "ssh:box.example"
    assert upsert(label="New") == "ssh:box.example"
    assert upsert(port=2222) == "ssh:box.example-2"
    assert upsert(username="me") == "ssh:box.example-3"
    assert upsert(host="BOX.example") == "ssh:box.example-4"
    assert upsert(port=2222, label="Second") == "ssh:box.example-2"
    labels = {host.id: host.label for host in list_hosts(str(folder))}
    assert labels == {
        "ssh:box.example": "New",
        "ssh:box.example-2": "Second",
        "ssh:box.example-3": "Box",
        "ssh:box.example-4": "Box",
    }


def test_an_id_that_another_kind_of_instance_has_is_not_given_again(folder: Folder) -> None:
    folder.write({**LOCAL, "id": "ssh:box.example"}, an_entry("ssh:box.example-2", config={"port": "?"}))
    assert upsert_host(str(folder), a_host()).id == "ssh:box.example-3"


def test_a_host_without_an_id_takes_the_place_of_one_whose_id_was_chosen_otherwise(folder: Folder) -> None:
    upsert_host(str(folder), a_host(id="mine"))
    assert upsert_host(str(folder), a_host()).id == "mine"


def test_of_two_hosts_at_the_same_place_the_first_by_id_is_updated(folder: Folder) -> None:
    folder.write(an_entry("ssh:b"), an_entry("ssh:a"))
    assert upsert_host(str(folder), a_host("a.example", label="New")).id == "ssh:a"


def test_a_stored_host_without_an_id_is_nobodys_place(folder: Folder) -> None:
    folder.write(an_entry(""))
    assert upsert_host(str(folder), a_host("a.example")).id == "ssh:a.example"


# What belongs to the app

NUMBERS = st.sampled_from(["12345678901234567890123456789", "1.50", "1e5", "-0.0", "0.1000000000000000055", "1E+400"])
TEXTS = st.text(max_size=6).map(json.dumps) | st.sampled_from([r'"\/"', r'"\u00e9"', r'"\ud83d\ude00"', '" "'])
VALUES = st.recursive(
    NUMBERS | TEXTS | st.sampled_from(["true", "null", "{}", "[ ]", "[\n1]"]),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")
        | st.dictionaries(TEXTS, inner, max_size=3).map(lambda items: _object(items))
    ),
    max_leaves=6,
)


def _object(members: dict[str, str]) -> str:
    return "{ " + ", ".join(f"{key} :{value}" for key, value in members.items()) + " }"


def others(*known: str) -> st.SearchStrategy[dict[str, str]]:
    """Members of an object, none of them one of ``known``, as JSON texts."""
    return st.dictionaries(
        TEXTS.filter(lambda key: json.loads(key) not in known) | st.sampled_from(['"others"', '"key_path"', '"id2"']),
        VALUES,
        max_size=3,
    )


CONFIG_NAMES = ("id", "label", "host", "port", "username", "authMethod", "keyPath", "password", "passphrase")
ENTRY_NAMES = ("id", "instanceType", "label", "openclawHome", "clawpalDataDir", "sshHostConfig")


def exact(text: str | bytes) -> Any:
    """A JSON text as a value in which numbers are their spelling."""
    return json.loads(text, parse_int=str, parse_float=str)


def with_members(value: dict[str, Any], more: dict[str, str]) -> str:
    return _object({json.dumps(key): json.dumps(each) for key, each in value.items()} | more)


@given(
    others("instances"),
    others(*ENTRY_NAMES),
    others(*CONFIG_NAMES),
    st.lists(VALUES | others(*ENTRY_NAMES).map(lambda more: with_members(LOCAL, more)), max_size=3),
    st.permutations(range(4)),
    st.sampled_from(["upsert", "insert", "delete"]),
)
def test_other_entries_and_unknown_fields_are_kept_to_the_spelling_of_their_numbers(
    top: dict[str, str],
    in_entry: dict[str, str],
    in_config: dict[str, str],
    foreign: list[str],
    order: list[int],
    act: str,
) -> None:
    config = with_members(a_config(), in_config)
    ours = with_members(
        {k: v for k, v in an_entry().items() if k != "sshHostConfig"}, in_entry | {'"sshHostConfig"': config}
    )
    entries = [ours, *foreign]
    entries = [entries[number] for number in order if number < len(entries)]
    with temporary_folder() as folder:
        folder.write_text(_object({'"instances"': f"[{','.join(entries)}]"} | top))
        match act:
            case "upsert":
                saved = upsert_host(str(folder), list_hosts(str(folder))[0])
                kept = [ours, *foreign]
                assert exact(msgspec.json.encode(saved.members())) == exact(config)
                again = upsert_host(str(folder), saved)
                for host in (saved, again, *list_hosts(str(folder))):
                    assert b"\n" not in encode(host.members())
            case "insert":
                upsert_host(str(folder), a_host())
                config = json.dumps(a_config("ssh:box.example", label="Box", host="box.example"))
                new = an_entry("ssh:box.example", json.loads(config), label="Box")
                kept = [ours, *foreign, json.dumps(new)]
            case _:
                assert delete_host(str(folder), "ssh:a")
                kept = foreign
        found = exact(folder.file.read_bytes())

    def by_text(values: list[Any]) -> list[str]:
        return sorted(json.dumps(value, sort_keys=True) for value in values)

    assert by_text(found.pop("instances")) == by_text([exact(each) for each in kept])
    assert found == exact(_object(top))


@given(others(*CONFIG_NAMES), others(*CONFIG_NAMES))
def test_unknown_fields_that_are_sent_replace_those_of_their_name_and_the_rest_stays(
    stored: dict[str, str], sent: dict[str, str]
) -> None:
    with temporary_folder() as folder:
        folder.write_text(_object({'"instances"': f"[{with_members(an_entry(), {})}]"}))
        for fields in (stored, sent):
            given_others = {key: msgspec.Raw(value.encode()) for key, value in _named(fields).items()}
            saved = upsert_host(str(folder), a_host(id="ssh:a", others=given_others))
        wanted = exact(_object(stored)) | exact(_object(sent))
        config = exact(folder.file.read_bytes())["instances"][0]["sshHostConfig"]
        assert {key: value for key, value in config.items() if key not in CONFIG_NAMES} == wanted
        assert exact(msgspec.json.encode(saved.members())) == config


def _named(members: dict[str, str]) -> dict[str, str]:
    return {json.loads(key): value for key, value in members.items()}


def test_a_field_that_is_known_is_never_taken_from_the_others(folder: Folder) -> None:
    sent = {"password": msgspec.Raw(b'"x"'), "port": msgspec.Raw(b"1"), "id": msgspec.Raw(b'"y"')}
    upsert_host(str(folder), a_host(id="ssh:a", others=sent))
    assert list_hosts(str(folder)) == [a_host(id="ssh:a")]


# Broken files

BROKEN = [
    "",
    "null",
    "[]",
    "{",
    '{"instances": null}',
    '{"instances": {}}',
    '{"instances": [1,]}',
    '{"instances": []} x',
    "\ufeff{}",
    b'{"instances": [], "\xff": 1}',
    b'{"instances": [{"x": "\xff"}]}',
    '{"instances": ' + "[" * 100_000 + "]" * 100_000 + "}",
]


@pytest.mark.parametrize("text", BROKEN, ids=range(len(BROKEN)))
def test_a_broken_file_is_an_error_and_is_left_as_it_is(folder: Folder, text: str | bytes) -> None:
    folder.write_text(text)
    before = folder.file.read_bytes()
    for act in ALL_ACTS:
        with pytest.raises(SourceUnreadable, match=r"instances\.json is broken"):
            act(str(folder))
    assert folder.file.read_bytes() == before
    assert folder.names() == {"instances.json", "instances.json.lock"}


ALL_ACTS: list[Callable[[str], object]] = [
    list_hosts,
    lambda path: find_host(path, "ssh:a"),
    lambda path: upsert_host(path, a_host()),
    lambda path: delete_host(path, "ssh:a"),
]


def test_what_is_no_file_or_too_large_or_forbidden_is_an_error(folder: Folder) -> None:
    folder.file.mkdir(parents=True)
    for act in ALL_ACTS:
        with pytest.raises(SourceUnreadable, match=r"not a regular file: .*instances\.json"):
            act(str(folder))
    folder.file.rmdir()
    os.mkfifo(folder.file)
    for act in ALL_ACTS:
        with pytest.raises(SourceUnreadable, match="not a regular file"):
            act(str(folder))
    folder.file.unlink()
    folder.write_text('{"instances": []}' + " " * MAX_HOST_FILE_BYTES)
    for act in ALL_ACTS:
        with pytest.raises(SourceUnreadable, match="over 4096 KiB"):
            act(str(folder))


def test_a_host_that_would_make_the_file_too_large_is_refused(folder: Folder) -> None:
    upsert_host(str(folder), a_host("a"))
    before = folder.file.read_bytes()
    with pytest.raises(SourceUnreadable, match="over 4096 KiB"):
        upsert_host(str(folder), a_host("b", label="x" * MAX_HOST_FILE_BYTES))
    assert folder.file.read_bytes() == before


WRONG = [
    {"port": 0},
    {"port": 65_536},
    {"port": "22"},
    {"authMethod": "telepathy"},
    {"host": None},
    {"password": 5},
    {"label": []},
]


@pytest.mark.parametrize("wrong", [*WRONG, "a text", []])
def test_a_host_that_can_not_be_understood_is_left_out_told_of_and_kept(
    folder: Folder, wrong: Any, caplog: pytest.LogCaptureFixture
) -> None:
    config = a_config(**SECRETS) | wrong if isinstance(wrong, dict) else wrong
    folder.write(an_entry("ssh:a", config), an_entry("ssh:b"))
    assert [host.id for host in list_hosts(str(folder))] == ["ssh:b"]
    assert 'the host "ssh:a" in instances.json can\'t be read' in caplog.text
    assert "hunter2" not in caplog.text
    with pytest.raises(SourceUnreadable, match="ssh:a"):
        find_host(str(folder), "ssh:a")
    upsert_host(str(folder), a_host())
    assert an_entry("ssh:a", config) in folder.read()["instances"]
    upsert_host(str(folder), a_host("a.example", id="ssh:a"))
    assert find_host(str(folder), "ssh:a").host == a_host("a.example", id="ssh:a")


def test_a_host_whose_place_is_no_text_says_which(folder: Folder) -> None:
    folder.write(an_entry("ssh:a", openclawHome=5))
    with pytest.raises(SourceUnreadable, match="the value of openclawHome"):
        find_host(str(folder), "ssh:a")


# Secrets


@given(st.text("hunter2", min_size=4), st.sampled_from(["password", "passphrase", "others"]))
def test_no_way_to_print_a_host_shows_its_secrets(secret: str, field: str) -> None:
    value: Any = {"token": msgspec.Raw(json.dumps(secret).encode())} if field == "others" else secret
    host = a_host(id="ssh:a", **{field: value})
    found = hosts.Instance(host, None, None)
    for text in (repr(host), str(host), f"{host}", repr([host]), repr(found), pretty_repr(host), pretty_repr(found)):
        assert secret not in text
        assert "ssh:a" in text


@pytest.mark.parametrize("wrong", [*WRONG, {"passphrase": {"hunter2": 1}}])
def test_no_error_shows_a_secret_even_with_its_traceback(
    folder: Folder, wrong: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    folder.write(an_entry("ssh:a", a_config(**SECRETS) | wrong))
    whole = folder.file.read_bytes()
    for text in (
        whole,
        whole[:-1],
        whole + b"\xff",
        whole.replace(b'"', b"'"),
        whole.replace(b"hunter2", b"hunter2\xff"),
    ):
        folder.write_text(text)
        for act in ALL_ACTS:
            if error := error_of(act, folder):
                logging.getLogger("test").error("failed", exc_info=error)
                assert "hunter2" not in error.message + str(error.details)
    assert "Traceback" in caplog.text
    assert "hunter2" not in caplog.text


def error_of(act: Callable[[str], object], folder: Folder) -> SidecarError | None:
    try:
        act(str(folder))
    except SidecarError as error:
        return error
    return None


@pytest.mark.parametrize(
    "wrong", [{"port": 0}, {"host": "a\0"}, {"authMethod": "x"}, {"password": ["hunter2"]}, {"passphrase": 5}]
)
def test_a_host_that_is_sent_wrong_is_refused_without_a_word_of_its_secrets(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidParams, match=f"^host.{next(iter(wrong))}: ") as caught:
        parse("HostParams", {"host": a_config() | SECRETS | wrong})
    shown = (caught.value, caught.value.__context__, caught.value.details)
    assert "hunter2" not in " ".join(map(str, shown))


def test_a_host_that_is_sent_keeps_the_fields_that_are_not_known_and_shows_none_of_its_secrets() -> None:
    more = {"token": "hunter2-t", "auth_method": 1, "others": {"a": [1.5, None]}}
    params = parse("HostParams", {"host": a_config("") | SECRETS | more})
    assert isinstance(params, HostParams)
    assert params.host.ssh_host().members() == a_config("") | SECRETS | {
        name: msgspec.Raw(json.dumps(value, separators=(",", ":")).encode()) for name, value in more.items()
    }
    assert "hunter2" not in f"{params!r} {params} {pretty_repr(params)}"


# The file's mode, links, and who may write at once


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_the_file_is_only_for_its_owner_whatever_the_umask_and_so_is_a_new_folder(tmp_path: Path, umask: int) -> None:
    folder = Folder(tmp_path / "clawpal")
    was = os.umask(umask)
    try:
        if umask == 0o777 and os.geteuid():
            folder.path.mkdir()
            folder.path.chmod(0o700)
        upsert_host(str(folder), a_host())
    finally:
        os.umask(was)
    assert folder.mode() == 0o600
    assert stat.S_IMODE(folder.path.stat().st_mode) & 0o077 == 0


def test_a_file_that_all_could_read_is_closed_when_it_is_rewritten(folder: Folder) -> None:
    folder.write(an_entry())
    folder.file.chmod(0o644)
    delete_host(str(folder), "ssh:a")
    assert folder.mode() == 0o600


def test_the_file_was_never_open_to_others_while_it_was_written(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes: list[int] = []
    faulty = Watched(lambda: modes.extend(stat.S_IMODE(path.stat().st_mode) for path in folder.path.glob("*")))
    for module in (private_file, index_rewrite, file_lock):
        monkeypatch.setattr(module, "os", faulty)
    was = os.umask(0)
    try:
        upsert_host(str(folder), a_host())
    finally:
        os.umask(was)
    assert len(modes) > 10
    assert set(modes) == {0o600}


def test_a_system_that_writes_a_few_bytes_at_a_time_gets_them_all(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    patched = Watched(lambda: None)
    patched.write = lambda fd, data: os.write(fd, data[:7])  # type: ignore[attr-defined]
    monkeypatch.setattr(private_file, "os", patched)
    saved = upsert_host(str(folder), a_host())
    assert list_hosts(str(folder)) == [saved]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_the_file_keeps_its_owner_when_root_changes_it(folder: Folder) -> None:
    folder.write(LOCAL)
    os.chown(folder.file, 1_234, 5_678)
    upsert_host(str(folder), a_host())
    found = folder.file.stat()
    assert (found.st_uid, found.st_gid, folder.mode()) == (1_234, 5_678, 0o600)


@pytest.mark.parametrize("is_there", [True, False])
def test_a_link_is_followed_and_its_target_replaced(folder: Folder, tmp_path: Path, is_there: bool) -> None:
    elsewhere = Folder(tmp_path / "elsewhere")
    elsewhere.path.mkdir()
    folder.path.mkdir()
    folder.file.symlink_to("../elsewhere/instances.json")
    if is_there:
        elsewhere.write(LOCAL)
    upsert_host(str(folder), a_host())
    assert folder.file.is_symlink()
    assert not elsewhere.file.is_symlink()
    assert elsewhere.mode() == 0o600
    assert [host.id for host in list_hosts(str(folder))] == ["ssh:box.example"]
    assert len(elsewhere.read()["instances"]) == 1 + is_there
    assert folder.names() == {"instances.json"}


def test_while_another_holds_the_lock_nothing_is_written_and_after_a_while_that_is_an_error(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(private_file, "HOST_LOCK_WAIT_S", 0.05)
    folder.write(an_entry())
    before = folder.file.read_bytes()
    with (folder.path / "instances.json.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for act in ALL_ACTS[2:]:
            with pytest.raises(SourceUnreadable, match=r"another process holds the lock .*instances\.json\.lock"):
                act(str(folder))
        assert [host.id for host in list_hosts(str(folder))] == ["ssh:a"]
    assert folder.file.read_bytes() == before
    assert delete_host(str(folder), "ssh:a")


def test_a_change_waits_for_the_lock(folder: Folder) -> None:
    folder.write(LOCAL)
    done: list[SshHost] = []
    with (folder.path / "instances.json.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        thread = threading.Thread(target=lambda: done.append(upsert_host(str(folder), a_host())))
        thread.start()
        thread.join(0.1)
        assert not done
    thread.join(20)
    assert done == list_hosts(str(folder))


HOSTS_EACH = 25
UPSERTING = """
import sys
from sidecar.remote.hosts import SshHost, delete_host, upsert_host
folder, user, count = sys.argv[1:]
sys.stdin.read()
for number in range(int(count)):
    for name in (f"{user}{number}", "gone"):
        host = SshHost(id="", label="", host=name, port=22, username=user, auth_method="key")
        saved = upsert_host(folder, host)
    delete_host(folder, saved.id)
"""


def test_two_processes_that_write_at_the_same_time_lose_nothing(folder: Folder) -> None:
    folder.write(LOCAL, other="kept")
    users = ("one", "two", "three")
    processes = [
        subprocess.Popen([sys.executable, "-c", UPSERTING, str(folder), user, str(HOSTS_EACH)], stdin=subprocess.PIPE)
        for user in users
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
    assert [process.wait(60) for process in processes] == [0] * len(users)
    assert {host.host for host in list_hosts(str(folder))} == {f"{u}{n}" for u in users for n in range(HOSTS_EACH)}
    assert folder.read()["other"] == "kept"
    assert folder.names() == {"instances.json", "instances.json.lock"}


class Watched:
    """The ``os`` of a module, with something to do before each call."""

    def __init__(self, before: Callable[[], None]) -> None:
        self.called: list[str] = []
        self._before = before

    def __getattr__(self, name: str) -> Any:
        found = getattr(os, name)
        if not callable(found) or isinstance(found, type):
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            self.called.append(name)
            self._before()
            return found(*args, **kwargs)

        return call


@pytest.mark.parametrize("in_place", [False, True])
def test_what_the_app_writes_without_the_lock_is_not_lost(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, in_place: bool
) -> None:
    entries: list[Any] = [LOCAL]
    folder.write(*entries)

    def fsync(fd: int) -> None:
        if len(entries) < 3 and stat.S_ISREG(os.fstat(fd).st_mode):
            entries.append(an_entry(f"ssh:{len(entries)}"))
            text = json.dumps({"instances": entries})
            if in_place:
                folder.file.write_text(text)
            else:
                (folder.path / "app").write_text(text)
                (folder.path / "app").replace(folder.file)

    patched = Watched(lambda: None)
    patched.fsync = fsync  # type: ignore[attr-defined]
    monkeypatch.setattr(private_file, "os", patched)
    upsert_host(str(folder), a_host())
    assert [entry["id"] for entry in folder.read()["instances"]] == ["local", "ssh:1", "ssh:2", "ssh:box.example"]


def test_a_file_that_changes_without_end_is_an_error(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.write(LOCAL)
    patched = Watched(lambda: None)
    patched.fsync = lambda fd: folder.write(LOCAL, x="x" * len(patched.called))  # type: ignore[attr-defined]
    monkeypatch.setattr(private_file, "os", patched)
    with pytest.raises(SourceUnreadable, match=f"changed {MAX_HOST_FILE_TRIES} times"):
        upsert_host(str(folder), a_host())
    assert folder.read()["instances"] == [LOCAL]
    assert folder.names() == {"instances.json", "instances.json.lock"}


# Faults and crashes


class Faulty(Watched):
    """The ``os`` of a module, whose call number ``fails_at`` does nothing, or writes but half, and fails."""

    def __init__(self, fails_at: int, fail: Callable[[], None]) -> None:
        super().__init__(lambda: None)
        self.fails_at = fails_at
        self._fail = fail

    def __getattr__(self, name: str) -> Any:
        found = super().__getattr__(name)
        if not callable(found) or isinstance(found, type):
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            if len(self.called) == self.fails_at:
                self.called.append(name)
                if name == "write":
                    os.write(args[0], args[1][: len(args[1]) // 2])
                if name == "close":  # one that fails has closed nevertheless
                    os.close(args[0])
                self._fail()
            return found(*args, **kwargs)

        return call


def disk_full() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def change(folder: Folder) -> None:
    upsert_host(str(folder), a_host(**SECRETS))


@pytest.fixture
def old_and_new(tmp_path: Path) -> tuple[bytes, bytes]:
    model = Folder(tmp_path / "model")
    model.write(LOCAL, an_entry())
    old = model.file.read_bytes()
    change(model)
    return old, model.file.read_bytes()


def test_whatever_fails_while_the_file_is_written_leaves_the_old_one_or_the_new_one(
    folder: Folder, old_and_new: tuple[bytes, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    while True:
        folder.write_text(old_and_new[0])
        faulty = Faulty(len(calls), disk_full)
        for module in (private_file, index_rewrite, file_lock):
            monkeypatch.setattr(module, "os", faulty)
        with suppress(OSError):
            change(folder)
        if len(calls) == len(faulty.called):
            break
        calls.append(faulty.called[len(calls)])
        assert folder.file.read_bytes() in old_and_new, calls
        monkeypatch.undo()
        change(folder)
        assert folder.file.read_bytes() == old_and_new[1]
        assert folder.names() == {"instances.json", "instances.json.lock"}
    assert set(calls) >= {"makedirs", "open", "write", "fsync", "fchmod", "close", "replace", "unlink", "stat"}


def test_wherever_a_process_dies_the_file_is_the_old_one_or_the_new_one_and_the_next_change_works(
    tmp_path: Path, old_and_new: tuple[bytes, bytes]
) -> None:
    outcomes = []
    for number in itertools.count():
        folder = Folder(tmp_path / str(number))
        folder.write_text(old_and_new[0])
        pid = os.fork()
        if not pid:
            try:
                faulty = Faulty(number, lambda: os._exit(9))
                for module in (private_file, index_rewrite, file_lock):
                    vars(module)["os"] = faulty
                change(folder)
            finally:
                os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert folder.file.read_bytes() in old_and_new
        outcomes.append(folder.file.read_bytes() == old_and_new[1])
        for path in folder.path.glob("*.new"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
        if not code:
            break
        assert code == 9
        change(folder)
        assert folder.file.read_bytes() == old_and_new[1]
        assert folder.names() == {"instances.json", "instances.json.lock"}
    assert outcomes == sorted(outcomes)
    assert outcomes[-1]
    assert number > 15


def test_a_system_error_reaches_the_wire_in_the_words_of_the_system(folder: Folder) -> None:
    folder.path.write_text("a file where the folder should be")
    for act in ALL_ACTS:
        with pytest.raises(OSError, match=r"Not a directory|File exists") as caught:
            act(str(folder))
        assert as_sidecar_error(caught.value).kind == "source_unreadable"
