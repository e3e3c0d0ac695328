"""What goes into a snapshot, row by row of the table; and walks, which have everything once, in a manifest's order."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.backup import manifest, tree
from sidecar.backup.folder import BackupFolder
from sidecar.backup.rules import LEFT_OUT, PHASES, TRANSCRIPTS, Rule, Selection, order_of, phase_of
from sidecar.backup.tree import Found, walk, walk_all
from tests.unit.restore_trees import Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path)
    made.root.mkdir()
    return made


def files(home: Home, *, include_sessions: bool = True) -> set[str]:
    """Which files a snapshot has, as its manifest and its folder say."""
    snapshot = home.backup(include_sessions=include_sessions)
    assert snapshot.status == "complete"
    with manifest.opened(home.folder.manifest_of(snapshot.name)) as reader:
        named = {os.fsdecode(entry.path) for entry in reader.entries() if entry.kind == "file"}
    top = Path(os.fsdecode(snapshot.path))
    assert {str(path.relative_to(top)) for path in top.rglob("*") if path.is_file()} == named
    return named


def left_out(home: Home, *, include_sessions: bool = True) -> dict[str, str]:
    """What the manifest of a snapshot says is left out, and why."""
    snapshot = home.backup(include_sessions=include_sessions)
    with manifest.opened(home.folder.manifest_of(snapshot.name)) as reader:
        return {os.fsdecode(entry.path): entry.text for entry in reader.entries() if entry.kind == "leftOut"}


def of_rule(rule: Rule, part: str = "x y") -> str:
    return rule.path.replace("*", part)


@pytest.mark.parametrize("rule", LEFT_OUT, ids=lambda rule: rule.path)
@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_what_the_table_leaves_out_is_left_out_and_named_whatever_it_is(home: Home, rule: Rule, kind: str) -> None:
    name = of_rule(rule)
    if kind == "file":
        home.write(name, "1")
    elif kind == "folder":
        home.write(f"{name}/deep/file", "1")
    else:
        (home.root / name).parent.mkdir(parents=True, exist_ok=True)
        (home.root / name).symlink_to("/")
    home.write("openclaw.json", "{}")
    assert files(home) == {"openclaw.json"}
    assert left_out(home) == {name: rule.reason}


@pytest.mark.parametrize("rule", LEFT_OUT + TRANSCRIPTS, ids=lambda rule: rule.path)
@pytest.mark.parametrize("where", ["workspace", "extensions/x", "agents/main/agent", "workspace/agents", "x"])
def test_the_same_names_deep_inside_go_in(home: Home, rule: Rule, where: str) -> None:
    name = f"{where}/{of_rule(rule)}"
    home.write(name, "mine")
    assert files(home, include_sessions=False) == {name}
    assert not left_out(home)


NEARLY = [
    "cache.json",
    "my cache",
    "Cache/x",
    "tmpfile",
    "logs.old/gateway.log",
    "plugin-skills.json",
    "agents/cache/x",
    "agents/main/sessions/s.jsonl.lock.bak",
    "agents/main/sessions/sessions.json",
    "agents/main/sessions/sessions.json.bak",
    "agents/main/sessions/sessions.json.x.tmp.old",
    "agents/main/sessions/deep/s.jsonl.lock",
    "agents/main/sessions/.usage-cost-cache.json",
    "agents/main/agent/openclaw-agent.sqlite.backup",
    "agents/main/agent/deep/openclaw-agent.sqlite.reindex-lock.sqlite",
    "agents/a/b/sessions/s.jsonl.lock",
    "agents/main/sessions\n/s.jsonl.lock",
]


@pytest.mark.parametrize("name", NEARLY)
def test_what_is_only_nearly_called_so_goes_in(home: Home, name: str) -> None:
    home.write(name, "1")
    assert files(home) == {name}


@pytest.mark.parametrize("part", ["", ".", "a.b", "*", "\n", os.fsdecode(b"\xff"), "[a-z]"])
def test_a_star_stands_for_any_part_of_a_name(home: Home, part: str) -> None:
    name = f"agents/{part or 'x'}x/sessions/{part}.jsonl.lock"
    home.write(name, "1")
    assert left_out(home) == {name: "lock of a running process"}


def test_without_sessions_transcripts_stay_out_and_all_else_goes_in(home: Home) -> None:
    kept = {
        "openclaw.json",
        "agents/main/sessions/sessions.json",
        "agents/main/sessions/notes.md",
        "agents/main/agent/openclaw-agent.sqlite",
        "workspace/sessions/s.jsonl",
        "agents/main/sessions/deep/s.jsonl",
    }
    transcripts = {
        "agents/main/sessions/s.jsonl",
        "agents/main/sessions/s.jsonl.deleted.2026-01-01T00-00-00.000Z",
        "agents/main/sessions/s.jsonl.zst",
        "agents/other/sessions/s-topic-5.jsonl",
        "agents/main/sessions_archive/s.jsonl",
    }
    for name in kept | transcripts:
        home.database(name, "one") if name.endswith(".sqlite") else home.write(name, "{}")
    assert files(home) == kept | transcripts
    assert files(home, include_sessions=False) == kept
    assert set(left_out(home, include_sessions=False)) == transcripts
    with manifest.opened(home.folder.manifest_of(home.backup(include_sessions=False).name)) as reader:
        assert reader.head.include_sessions is False


@pytest.mark.parametrize("named", ["as it is", "through a link", "through a link inside the tree", "renamed"])
def test_clawpals_directory_is_left_out_by_what_it_is_and_not_by_its_name(
    home: Home, tmp_path: Path, named: str
) -> None:
    clawpal = home.root / "deep/own"
    home.write("deep/own/instances.json", "[]")
    home.write("workspace/own/instances.json", "mine")
    if named == "renamed":
        clawpal = clawpal.rename(home.root / "deep/other")
        home.write("deep/own/instances.json", "mine too")
    given_as = clawpal
    if named.startswith("through"):
        given_as = (home.root if named.endswith("tree") else tmp_path) / "link"
        given_as.symlink_to(clawpal)
    home.folder = BackupFolder(os.fsencode(given_as))
    home.backup()
    expected = {"workspace/own/instances.json", *(["deep/own/instances.json"] if named == "renamed" else [])}
    assert files(home) == expected
    assert left_out(home) == {str(clawpal.relative_to(home.root)): "ClawPal's own directory"}


def test_a_tree_that_is_clawpals_directory_itself_has_its_top_alone(home: Home) -> None:
    # Nothing tells what in it is the user's; what would be left out is asked of what lies in the tree.
    home.write("openclaw.json", "{}")
    selection = Selection(True, os.fsencode(home.root))
    assert [found.path for found in walk(os.fsencode(home.root), selection)] == [b"", b"openclaw.json"]


# The order of a walk

names = st.one_of(
    st.sampled_from([b"agents", b"memory", b"agents.d", b"agents-", b"a", b"a-b", b"a.b", b"ab", b"a\xff", b"\xfe"]),
    st.binary(min_size=1, max_size=3).filter(lambda name: not {0, 0x2F} & set(name) and name not in {b".", b".."}),
)
paths = st.lists(st.lists(names, min_size=1, max_size=4).map(b"/".join), max_size=12)


def build(root: bytes, wanted: list[bytes]) -> None:
    """Files at these paths, as far as none of them is a folder of another."""
    for path in wanted:
        full_path = os.path.join(root, path)
        try:
            os.makedirs(os.path.dirname(full_path), exist_ok=True)
            with open(full_path, "xb"):
                pass
        except OSError:
            continue


def everything_in(root: bytes) -> Counter[bytes]:
    there = Counter([b""])
    for folder, folders, files in os.walk(root):
        there.update(os.path.relpath(os.path.join(folder, name), root) for name in [*folders, *files])
    return there


@given(paths, st.integers(1, 400))
def test_a_walk_has_everything_once_in_the_order_of_a_manifest_however_few_names_are_held(
    wanted: list[bytes], held_bytes: int
) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as context:
        context.setattr(tree, "NAMES_HELD_BYTES", held_bytes)
        root = os.fsencode(folder)
        build(root, wanted)
        found = [each.path for each in walk_all(root)]
        assert Counter(found) == everything_in(root)
    orders = [order_of(path) for path in found]
    assert all(one < other for one, other in pairwise(orders))
    assert [phase_of(path) for path in found] == sorted(map(phase_of, found), key=PHASES.index)
    for path in found:
        # A folder is said before what is in it.
        assert path == b"" or os.path.dirname(path) in found[: found.index(path)]


def test_what_vanishes_meanwhile_is_passed_over_and_the_rest_is_found(home: Home) -> None:
    for name in ("a/1", "b/1", "b/2", "c/1", "d"):
        home.write(name, "1")
    found: list[bytes] = []
    for each in walk(os.fsencode(home.root), Selection()):
        found.append(each.path)
        if each.path == b"a":
            (home.root / "a/1").unlink()
        elif each.path == b"b/1":
            (home.root / "b/2").unlink()
        elif each.path == b"c":
            (home.root / "c/1").unlink()
            (home.root / "c").rmdir()
    assert found == [b"", b"a", b"b", b"b/1", b"c", b"d"]


def test_a_folder_that_becomes_another_thing_is_named(home: Home) -> None:
    home.write("a/1", "1")
    home.write("z", "1")
    found: list[Found] = []
    for each in walk(os.fsencode(home.root), Selection()):
        found.append(each)
        if each.kind == "dir" and each.path == b"a":
            (home.root / "a/1").unlink()
            (home.root / "a").rmdir()
            (home.root / "a").touch()
    assert [(each.kind, each.path) for each in found] == [("dir", b""), ("dir", b"a"), ("failed", b"a"), ("file", b"z")]


def test_links_are_not_followed_wherever_they_lead(home: Home, tmp_path: Path) -> None:
    home.write("folder/file", "1")
    for name, target in (("up", ".."), ("self", "self"), ("top", home.root), ("root", "/"), ("none", "nowhere")):
        (home.root / "folder" / name).symlink_to(target)
    found = {each.path: each.kind for each in walk(os.fsencode(home.root), Selection())}
    assert len(found) == 8
    assert Counter(found.values()) == {"dir": 2, "file": 1, "link": 5}


def test_the_top_may_be_a_link_and_must_be_a_folder(home: Home, tmp_path: Path) -> None:
    home.write("file", "1")
    (tmp_path / "link").symlink_to(home.root)
    assert [each.path for each in walk_all(os.fsencode(tmp_path / "link"))] == [b"", b"file"]
    for name, error in (("nowhere", FileNotFoundError), ("openclaw/file", NotADirectoryError)):
        with pytest.raises(error):
            list(walk_all(os.fsencode(tmp_path / name)))
