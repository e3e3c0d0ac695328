"""The hosts of ``~/.ssh/config`` are what OpenSSH makes of it, and what it stumbles over disables nothing else."""

from __future__ import annotations

import getpass
import logging
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sidecar.errors import SourceUnreadable
from sidecar.limits import MAX_INCLUDE_DEPTH, MAX_SSH_CONFIG_ALIASES, MAX_SSH_CONFIG_BYTES, MAX_SSH_CONFIG_FILES
from sidecar.remote.ssh_config import SshConfigHostSuggestion, list_ssh_config_hosts
from sidecar.wire.messages import encode

needs_ssh = pytest.mark.skipif(shutil.which("ssh") is None, reason="OpenSSH's client is not installed: no ssh -G")


class Home:
    """A home directory with files in ``.ssh``, by name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ssh = path / ".ssh"
        self.ssh.mkdir()

    def write(self, config: str | bytes, **included: str) -> None:
        for name, text in {"config": config, **included}.items():
            (self.ssh / name).write_bytes(text.encode() if isinstance(text, str) else text)
            (self.ssh / name).chmod(0o600)

    def list(self) -> list[SshConfigHostSuggestion]:
        return list_ssh_config_hosts(str(self.path))

    def found(self) -> dict[str, dict[str, Any]]:
        """What is suggested, by alias, with the fields that are there."""
        names = ("host_name", "user", "port", "identity_file")
        return {
            each.host_alias: {name: value for name in names if (value := getattr(each, name)) is not None}
            for each in self.list()
        }

    def by_openssh(self, alias: str) -> dict[str, str]:
        """What OpenSSH would use for an alias, of each setting the first."""
        command = ["ssh", "-G", "-F", str(self.ssh / "config"), "--", alias]
        done = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, "HOME": str(self.path)}, check=False
        )
        assert done.returncode == 0, done.stderr
        values: dict[str, str] = {}
        for line in done.stdout.splitlines():
            keyword, _, value = line.partition(" ")
            values.setdefault(keyword, value)
        return values


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def assert_as_openssh_has_it(home: Home) -> None:
    for each in home.list():
        actual = home.by_openssh(each.host_alias)
        assert (each.host_name or each.host_alias).lower() == actual["hostname"], each
        assert (each.user or getpass.getuser()) == actual["user"], each
        assert str(each.port or 22) == actual["port"], each
        identity = actual["identityfile"].replace("~/", f"{home.path}/")
        if each.identity_file is None:
            assert identity == "none" or identity.endswith("/.ssh/id_rsa"), each
        else:
            assert each.identity_file == identity, each


def test_without_a_file_or_its_folder_there_is_no_host(home: Home) -> None:
    assert home.list() == []
    home.ssh.rmdir()
    assert home.list() == []


def test_each_host_comes_with_what_is_said_of_it_by_alias(home: Home) -> None:
    home.write("""
        Host web
            HostName web.example.org
            User deploy
            Port 2222
            IdentityFile ~/.ssh/web
        Host alpha
    """)
    assert encode(home.list()) == (
        b'[{"hostAlias":"alpha"},{"hostAlias":"web","hostName":"web.example.org","user":"deploy","port":2222,'
        b'"identityFile":"%b/.ssh/web"}]' % bytes(home.path)
    )


CONFIGS = {
    "the first value counts": ("Host a\n User one\nHost a b\n User two\n Port 7\nHost *\n User three\n Port 8\n", "ab"),
    "values before any host": ("User first\nHost a\n User second\n Port 5\n", "a"),
    "patterns": (
        "Host a? *.x !b\n User one\nHost a1 q.x b\n Port 9\nHost [a]*\n Port 3\nHost a\n",
        ["a1", "q.x", "b", "a"],
    ),
    "a negated pattern": ("Host * !a\n User one\nHost !b a b\n Port 1\nHost a b\n User two\n", "ab"),
    "a name and a pattern": ("Host a *\n User one\nHost b\n Port 4\n", "ab"),
    "only negated patterns": ("Host !a\n User one\nHost a b\n", "ab"),
    "keywords in any case, tabs and no indent": ("hOsT a\n\tHOSTNAME\tq\nuser  u  \nPORT 1\f\n", "a"),
    "an equals sign": ("Host=a\nUser = u\nPort= 5\nHostName =q\nIdentityFile\t=\t~/k\n", "a"),
    "quotes": ('Host "a" \'b\'\nUser "u v"\nIdentityFile "~/my key"\nHostName "q"\n', "ab"),
    "escapes in quotes": ("Host a\nUser \"x\\\"\\'y\\z\"\nIdentityFile '~/it\\'s\\\"'\n", "a"),
    "a sharp behind a quote": ('Host a\nUser "u"#v\n', "a"),
    "two equals signs": ("Host a\nUser==u\nHostName = =q\n", "a"),
    "quotes within and escapes": ('Host a\nUser x" y"\\"z\nIdentityFile ~/my\\ \\\'key\\\\\\n\n', "a"),
    "comments": ("# Host z\n  # Host y\nHost a # b c\nUser u#v # w\nPort 4 #5\n#User x\n", "a"),
    "crlf": ("Host a b\r\n  User u\r\n\r\nPort 3\r\n", "ab"),
    "no line feed at the end": ("Host a\nUser u", "a"),
    "several identities": ("Host a\n IdentityFile ~/one\n IdentityFile ~/two\nHost *\n IdentityFile ~/three\n", "a"),
    "no identity": ("Host a\n IdentityFile none\nHost *\n IdentityFile ~/three\n", "a"),
    "the alias in the host name": ("Host a b\n HostName %h.example.%%org\nHost *\n HostName never\n", "ab"),
    "settings of other kinds": (
        "Host a\n ForwardAgent yes\n ProxyJump b\n LocalForward 1 c:2\n User u\nHost b\n",
        "ab",
    ),
    "match all": ("Host a\n User u\nMatch all\n User v\n Port 4\nHost b\n Port 5\n", "ab"),
    "match host": (
        "Host a b\n HostName q.x\nHost c\nMatch host q.x\n User u\n"
        "Match host *.x,c,!c\n Port 4\nMatch !host q.x\n User n\n",
        "abc",
    ),
    "match host where the host name has the alias in it": ("Host a\n HostName %h.x\nMatch host a.x\n Port 4\n", "a"),
    "match host before the host name": ("Match host q\n User u\nHost a q\n HostName q\nMatch host q\n Port 4\n", "aq"),
    "match originalhost": (
        "Host a b\n HostName q\nMatch originalhost a\n User u\nMatch originalhost A host Q\n Port 4\n"
        "Match !originalhost b host q\n IdentityFile ~/k\n",
        "ab",
    ),
    "case of names": ("Host A a\n HostName Q\nHost A\n User u\nMatch host q\n Port 4\n", "Aa"),
    "a host that is named twice": ("Host a a\n User u\nHost a\n Port 4\n", "a"),
}


@needs_ssh
@pytest.mark.parametrize(("config", "aliases"), CONFIGS.values(), ids=CONFIGS)
def test_a_configuration_means_what_it_means_to_openssh(home: Home, config: str, aliases: str | list[str]) -> None:
    home.write(config)
    assert list(home.found()) == sorted(aliases)
    assert_as_openssh_has_it(home)


INCLUDES: dict[str, tuple[str, dict[str, str], list[str]]] = {
    "relative to the folder": ("Include one\nHost b\n Port 5\n", {"one": "Host a\n User u\n"}, ["a", "b"]),
    "below home": ("Include ~/.ssh/one\n", {"one": "Host a\n User u\n"}, ["a"]),
    "several and patterns, in their order": (
        "Include two x*1 missing none*\nHost a\n User last\n",
        {"x21": "Host a\n User x21\nPort 1\n", "x11": "Host a\n User x11\n", "two": "Host b\n User two\n"},
        ["a", "b"],
    ),
    "quoted": ('Include "on"e\n', {"one": "Host a\n User u\n"}, ["a"]),
    "within a host": (
        "Host a b\n Include one\n User u\nHost *\n User v\nHost c\n",
        {"one": "Port 5\nHost b\n Port 6\n User w\n"},
        ["a", "b", "c"],
    ),
    "one that names hosts that the block around it isn't for": (
        "Host a\n Include one\nHost *\n User u\n",
        {"one": "Host a b\n Port 6\nMatch host b\n User w\n"},
        ["a"],
    ),
    "the block goes on after it": ("Host a\n Include one\n User u\n", {"one": "Host b\n User v\n"}, ["a"]),
    "one in another": ("Include one\n", {"one": "Host a\n Include two\n", "two": "User u\nPort 3\n"}, ["a"]),
}


@needs_ssh
@pytest.mark.parametrize(("config", "included", "aliases"), INCLUDES.values(), ids=INCLUDES)
def test_what_is_included_means_what_it_means_to_openssh(
    home: Home, config: str, included: dict[str, str], aliases: list[str]
) -> None:
    home.write(config, **included)
    assert list(home.found()) == aliases
    assert_as_openssh_has_it(home)


def test_files_that_one_pattern_finds_are_included_by_name(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.write("Include *.conf\nHost a\n", **{f"{name}.conf": f"User {name}\n" for name in "bac"})
    found = sorted(map(str, home.ssh.glob("*.conf")))
    monkeypatch.setattr("sidecar.remote.ssh_config_file.glob.glob", lambda pattern: found[::-1])
    assert home.found() == {"a": {"user": "a"}}


def test_includes_are_followed_where_a_home_has_odd_characters_in_its_name(tmp_path: Path) -> None:
    (tmp_path / "[x] *").mkdir()
    home = Home(tmp_path / "[x] *")
    home.write("Include ~/.ssh/on? two\n", one="Host a\n", two="Host b\n")
    assert list(home.found()) == ["a", "b"]


NAMES = ["a", "b", "ab", "a.x", "b.x"]
PATTERNS = st.sampled_from([*NAMES, "*", "a*", "?", "*.x", "!a", "!*.x", "a?b", "*b*"])
SETTINGS = st.one_of(
    st.sampled_from(["u", "v", '"u v"']).map(lambda value: f"User {value}"),
    st.integers(1, 9).map(lambda value: f"  Port={value}"),
    st.sampled_from([*NAMES, "%h.x", "c"]).map(lambda value: f"\tHostName {value}"),
    st.sampled_from(["~/k", "/k", "none"]).map(lambda value: f"IdentityFile {value}"),
)
LINES = st.one_of(
    SETTINGS,
    SETTINGS,
    st.lists(PATTERNS, min_size=1, max_size=3).map(lambda patterns: f"Host {' '.join(patterns)}"),
    st.tuples(
        st.sampled_from(["host", "!host", "originalhost", "!originalhost"]), st.lists(PATTERNS, min_size=1, max_size=3)
    ).map(lambda each: f"Match {each[0]} {','.join(each[1])}"),
    st.sampled_from(["Match all", "Include one", "Include two", "Include t* one"]),
)
TEXTS = st.lists(LINES, max_size=10).map("\n".join)


@needs_ssh
@settings(max_examples=60)
@given(TEXTS, TEXTS, TEXTS)
def test_any_configuration_means_what_it_means_to_openssh(config: str, one: str, two: str) -> None:
    # Files that include each other are an error for OpenSSH.
    assume("Include" not in two and "one" not in one and "t*" not in one)
    with tempfile.TemporaryDirectory() as path:
        home = Home(Path(path))
        home.write(config, one=one, two=two)
        assert_as_openssh_has_it(home)


# What OpenSSH would stop at, or what only a connection tells

ODD_LINES = [
    "Nonsense yes",
    "Nonsense",
    "User",
    "User =",
    'User "u',
    "User 'u",
    'User "u\\"',
    "User 'u\\'",
    'User ""',
    "User u v",
    "User a\0b",
    "Port 0",
    "Port 65536",
    "Port -1",
    "Port ssh",
    "Port \N{SUPERSCRIPT TWO}",
    f"Port {'9' * 5_000}",
    "HostName",
    "IdentityFile a b",
    "Include",
    'Include "',
    "Include .",
    "Include ~nobody-of-this-name/x",
    "Include a\0*",
    "Ciphers +nothing",
    "=",
    '"',
    "\\",
    "\x1b[2J",
]


@pytest.mark.parametrize("line", ODD_LINES, ids=range(len(ODD_LINES)))
def test_a_line_that_is_malformed_is_passed_over_and_disables_nothing(home: Home, line: str) -> None:
    home.write(f"{line}\nHost a\n{line}\n User u\n{line}\n Port 3\nHost b\n{line}\n")
    assert home.found() == {"a": {"user": "u", "port": 3}, "b": {}}


@pytest.mark.parametrize(
    "line", ["Host", 'Host "b', 'Host ""', "Match", "Match host", "Match all host b", "Match nothing"]
)
def test_what_follows_a_malformed_host_or_match_is_for_no_host(home: Home, line: str) -> None:
    home.write(f"Host a\n User u\n{line}\n Port 3\nHost b\n Port 4\n")
    assert home.found() == {"a": {"user": "u"}, "b": {"port": 4}}


@pytest.mark.parametrize(
    "criteria",
    [
        'exec "touch {run}"',
        "!exec false",
        "user root",
        'host a exec "touch {run}"',
        "final all",
        "canonical",
        "localuser root",
    ],
)
def test_a_match_that_only_a_connection_could_decide_is_passed_over_and_nothing_is_run(
    home: Home, criteria: str
) -> None:
    home.write(f"Match {criteria.format(run=home.path / 'run')}\n User u\nHost a\n Port 4\n")
    assert home.found() == {"a": {"port": 4}}
    assert not (home.path / "run").exists()


def test_an_included_file_that_can_not_be_read_is_passed_over(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    home.write("Include dir fifo link big one\nHost b\n", one="Host a\n", big="#" * MAX_SSH_CONFIG_BYTES)
    (home.ssh / "dir").mkdir()
    os.mkfifo(home.ssh / "fifo")
    (home.ssh / "link").symlink_to("nowhere")
    assert list(home.found()) == ["a", "b"]
    assert len(caplog.records) == 4


def test_a_file_that_can_not_be_read_is_an_error(home: Home) -> None:
    (home.ssh / "config").mkdir()
    with pytest.raises(SourceUnreadable, match=r"not a regular file: .*config"):
        home.list()
    (home.ssh / "config").rmdir()
    home.write("#" * (MAX_SSH_CONFIG_BYTES + 1))
    with pytest.raises(SourceUnreadable, match="over 1 MiB"):
        home.list()
    (home.ssh / "config").unlink()
    (home.ssh / "config").symlink_to("config")
    with pytest.raises(OSError, match="symbolic links"):
        home.list()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_one_may_not_read_is_an_error(home: Home) -> None:
    home.write("Host a\n")
    (home.ssh / "config").chmod(0)
    with pytest.raises(PermissionError):
        home.list()


def test_files_that_include_themselves_end(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    home.write("Include config\nHost a\n User u\n")
    assert home.found() == {"a": {"user": "u"}}
    assert f"Include within {MAX_INCLUDE_DEPTH} others" in caplog.text
    home.write("Include config config\nHost a\n User u\n")
    assert home.found() == {"a": {"user": "u"}}
    assert f"{MAX_SSH_CONFIG_FILES} files were read already" in caplog.text


@pytest.mark.parametrize(("depth", "is_read"), [(MAX_INCLUDE_DEPTH, True), (MAX_INCLUDE_DEPTH + 1, False)])
def test_includes_are_followed_as_deep_as_openssh_does(home: Home, depth: int, is_read: bool) -> None:
    files = {f"f{number}": f"Include f{number + 1}\n" for number in range(1, depth)}
    home.write("Include f1\n", **files, **{f"f{depth}": "Host a\n"})
    assert list(home.found()) == (["a"] if is_read else [])
    if is_read and shutil.which("ssh"):
        assert_as_openssh_has_it(home)


def test_more_hosts_than_can_be_shown_are_cut_off_with_a_word(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    home.write("".join(f"Host h{number:05}\n" for number in range(MAX_SSH_CONFIG_ALIASES + 1)))
    found = home.list()
    assert len(found) == MAX_SSH_CONFIG_ALIASES
    assert found[-1].host_alias == f"h{MAX_SSH_CONFIG_ALIASES - 1:05}"
    assert "names 2001 hosts" in caplog.text


def test_a_byte_order_mark_and_bytes_that_are_no_utf_8_are_taken_as_they_are(home: Home) -> None:
    home.write(b"\xef\xbb\xbfHost a\n User \xff\n IdentityFile ~/\xc3\xbc\n")
    assert home.found() == {"a": {"user": "\ufffdff", "identity_file": f"{home.path}/ü"}}


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("~/k", "{home}/k"),
        ("~", "{home}"),
        ("~other/k", "~other/k"),
        ("k", "k"),
        ("%d/%n-%h-%p-%r-%%", "{home}/a-q-7-u-%"),
        ("%u-%z", "%u-%z"),
        ("NONE", None),
    ],
)
def test_an_identity_file_has_its_home_and_the_tokens_that_are_known_in_it(
    home: Home, written: str, meant: str | None
) -> None:
    home.write(f"Host a\n HostName q\n User u\n Port 7\n IdentityFile {written}\n")
    assert home.found()["a"].get("identity_file") == (meant and meant.format(home=home.path))


def test_the_tokens_of_an_identity_file_have_values_where_nothing_is_said(home: Home) -> None:
    home.write("Host a\n IdentityFile %n-%h-%p-%r\n")
    assert home.found()["a"]["identity_file"] == "a-a-22-%r"


def test_many_stars_in_a_pattern_cost_no_time(home: Home) -> None:
    home.write(f"Host {'*a' * 60}b\n User u\nHost {'a' * 200}\n")
    assert home.found() == {"a" * 200: {}}
