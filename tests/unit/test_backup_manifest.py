"""A manifest says again what was written into it, whatever the names; one that anything else wrote is refused."""

from __future__ import annotations

import hashlib
import io
import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.backup import manifest
from sidecar.backup.manifest import Entry, Foot, Head, ManifestReader, ManifestWriter
from sidecar.backup.progress import Progress
from sidecar.cancel import CancelToken
from sidecar.errors import BackupDamaged, Cancelled
from sidecar.limits import MANIFEST_TAIL_BYTES, MAX_REPORTED_FAILURES, MAX_TEXT_CHARS
from sidecar.text import wire_name

HEAD = Head("2026-11-24T18:00:00Z", "/home/me/.openclaw", True)
SHA256 = "ab" * 32
MAX_PATH_BYTES = 4_095


def is_name(name: bytes) -> bool:
    return not {0, 0x2F} & set(name) and name not in {b".", b".."}


paths = st.lists(st.binary(min_size=1, max_size=20).filter(is_name), min_size=1, max_size=4).map(b"/".join)
numbers = st.integers(0, 2**63 - 1)
modes = st.integers(0, 0o7777)
owners = st.none() | st.tuples(st.integers(0, 2**32), st.integers(0, 2**32))
targets = st.binary(max_size=40).map(lambda text: wire_name(os.fsdecode(text)))
texts = st.text("abc: ü", max_size=40)


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    entry = Entry(draw(st.sampled_from(["dir", "file", "link", "leftOut", "failed"])), draw(paths))
    if entry.kind in {"file", "dir"}:
        entry = entry._replace(mode=draw(modes), mtime_ns=draw(numbers))
    if entry.kind in {"file", "dir", "link"}:
        entry = entry._replace(owner=draw(owners))
    if entry.kind != "dir":
        entry = entry._replace(text=draw(targets if entry.kind == "link" else texts))
    if entry.kind == "file":
        source = draw(st.none() | st.lists(numbers, min_size=4, max_size=8))
        sha256 = draw(st.binary(min_size=32, max_size=32)).hex()
        size_bytes, is_database = draw(numbers), draw(st.booleans())
        entry = entry._replace(size_bytes=size_bytes, sha256=sha256, is_database=is_database, source=source)
    return entry


def written(*lines: Entry, head: Head = HEAD) -> tuple[bytes, Foot]:
    file = io.BytesIO()
    writer = ManifestWriter(file, head)
    for entry in lines:
        writer.add(entry)
    foot = writer.close()
    return file.getvalue(), foot


def forged(*lines: dict[str, Any] | str) -> bytes:
    """A manifest with these lines, and a foot whose digest is right: whoever can write one can do that too."""
    head = {"manifest": 1, "createdAt": "2026-11-24T18:00:00Z", "source": "/", "includeSessions": True}
    texts = [line if isinstance(line, str) else json.dumps(line) for line in (head, *lines)]
    body = "".join(f"{text}\n" for text in texts).encode("utf-8", "surrogateescape")
    sha256 = hashlib.sha256(body).hexdigest()
    foot = {"status": "complete", "files": 0, "sizeBytes": 0, "failedItems": 0, "failures": [], "sha256": sha256}
    return body + json.dumps(foot).encode() + b"\n"


def read(content: bytes) -> tuple[Head, list[Entry]]:
    reader = ManifestReader(io.BytesIO(content))
    return reader.head, list(reader.entries())


def is_as_written(folder: Path, content: bytes, progress: Progress | None = None) -> bool:
    path = folder / "manifest"
    path.write_bytes(content)
    try:
        return manifest.is_as_written(os.fsencode(path), progress or Progress(CancelToken()))
    except BackupDamaged:
        return False


def ends(folder: Path, content: bytes) -> tuple[Head, Foot]:
    path = folder / "manifest"
    path.write_bytes(content)
    return manifest.ends(os.fsencode(path))


def file_entry(path: bytes = b"a", **fields: Any) -> Entry:
    return Entry("file", path, 0o600, 5, 3, SHA256)._replace(**fields)


@given(st.lists(entries(), max_size=8))
def test_what_is_written_is_read_again_whatever_the_names(lines: list[Entry]) -> None:
    content, foot = written(*lines)
    assert read(content) == (HEAD, lines)
    assert foot.files == sum(entry.kind == "file" for entry in lines)


@given(st.lists(entries(), max_size=8))
def test_the_foot_counts_what_was_written(lines: list[Entry]) -> None:
    files = [entry for entry in lines if entry.kind == "file"]
    failed = [entry for entry in lines if entry.kind == "failed" or (entry.kind == "file" and entry.text)]
    _, foot = written(*lines)
    assert (foot.files, foot.size_bytes) == (len(files), sum(entry.size_bytes for entry in files))
    assert foot.failed_items == len(failed)
    assert foot.failures == [
        {"path": wire_name(os.fsdecode(entry.path)), "error": wire_name(entry.text)} for entry in failed
    ]
    assert foot.status == ("incomplete" if failed else "complete")


def test_the_ends_alone_are_the_ends(tmp_path: Path) -> None:
    content, foot = written(*(file_entry(b"%05d" % number) for number in range(2_000)))
    assert len(content) > 3 * MANIFEST_TAIL_BYTES
    assert ends(tmp_path, content) == (HEAD, foot)


def test_of_very_many_failures_the_first_are_named_and_all_are_counted(tmp_path: Path) -> None:
    lines = [Entry("failed", b"%03d" % number, text="x" * 5_000) for number in range(100)]
    content, _ = written(*lines)
    _, foot = ends(tmp_path, content)
    assert foot.failed_items == 100
    assert [failure["path"] for failure in foot.failures] == [f"{number:03}" for number in range(MAX_REPORTED_FAILURES)]
    assert {len(failure["error"]) for failure in foot.failures} == {MAX_TEXT_CHARS}


BYTES = {"plain": b"x", "control": b"\x01", "invalid": b"\xff", "of an escape": "\ufffdff".encode()}


@pytest.mark.parametrize("byte", BYTES.values(), ids=BYTES)
def test_the_longest_paths_that_there_are_can_be_read_again_even_where_all_failed(tmp_path: Path, byte: bytes) -> None:
    path = (b"/".join([byte * (250 // len(byte))] * 17))[: MAX_PATH_BYTES // len(byte) * len(byte)]
    target = wire_name(os.fsdecode(byte * (MAX_PATH_BYTES // len(byte))))
    failed = [Entry("failed", path + b"%02d" % number, text="\x01" * MAX_TEXT_CHARS) for number in range(30)]
    lines = [Entry("link", path, text=target), *failed]
    content, foot = written(*lines)
    assert read(content) == (HEAD, lines)
    assert ends(tmp_path, content) == (HEAD, foot)
    assert foot.failed_items == 30
    assert foot.failures


CONTENT, _ = written(Entry("dir", b"", 0o700, 1), file_entry(b"one"), file_entry(b"two"), Entry("link", b"x", text="y"))


def test_one_that_is_torn_anywhere_is_refused(tmp_path: Path) -> None:
    for size_bytes in range(len(CONTENT)):
        with pytest.raises(BackupDamaged):
            read(CONTENT[:size_bytes])
        with pytest.raises(BackupDamaged):
            ends(tmp_path, CONTENT[:size_bytes])
        assert not is_as_written(tmp_path, CONTENT[:size_bytes])


@given(st.integers(0, len(CONTENT) - 1), st.integers(1, 255))
def test_one_with_other_bits_anywhere_is_refused_or_says_the_same(at: int, bits: int) -> None:
    flipped = CONTENT[:at] + bytes([CONTENT[at] ^ bits]) + CONTENT[at + 1 :]
    try:
        found = read(flipped)
    except BackupDamaged:
        return
    # Of the foot neither the names of failures nor what a name like "failures" may be changed to matters here.
    assert at >= CONTENT.rfind(b"\n", 0, -1)
    assert found == read(CONTENT)


@given(st.integers(0, len(CONTENT) - 1), st.integers(1, 255))
def test_what_its_digest_is_of_is_looked_at_whole(at: int, bits: int) -> None:
    flipped = CONTENT[:at] + bytes([CONTENT[at] ^ bits]) + CONTENT[at + 1 :]
    with TemporaryDirectory() as folder:
        assert is_as_written(Path(folder), CONTENT)
        assert at >= CONTENT.rfind(b"\n", 0, -1) or not is_as_written(Path(folder), flipped)


def test_looking_at_the_digest_of_a_large_one_can_be_cancelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "COPY_BYTES", 1_000)
    content, _ = written(*(file_entry(b"%05d" % number) for number in range(100)))
    assert is_as_written(tmp_path, content)
    steps = 0

    def look() -> None:
        nonlocal steps
        steps += 1
        if steps == 3:
            token.cancel()

    token = CancelToken()
    with pytest.raises(Cancelled):
        is_as_written(tmp_path, content, Progress(token, look))
    assert steps == 3


EDITS = ["a line less", "a line twice", "lines in another order", "more behind it", "another size"]


@pytest.mark.parametrize("change", EDITS)
def test_one_that_was_edited_is_refused(change: str) -> None:
    lines = CONTENT.splitlines(keepends=True)
    edited = {
        "a line less": [*lines[:2], *lines[3:]],
        "a line twice": [*lines[:3], *lines[2:]],
        "lines in another order": [*lines[:2], lines[3], lines[2], *lines[4:]],
        "more behind it": [*lines, b"\n"],
        "another size": [line.replace(b'"sizeBytes":3', b'"sizeBytes":4') for line in lines],
    }[change]
    with pytest.raises(BackupDamaged):
        read(b"".join(edited))


FILE = {"mode": "0600", "mtimeNs": 1, "sizeBytes": 0, "sha256": SHA256}
ESCAPES = ["..", "../x", "a/../../x", "/etc/passwd", "a//b", "a/", "./a", ".", "a/.", "a\0b"]


@pytest.mark.parametrize("path", [*ESCAPES, ""])
def test_a_file_whose_path_leads_out_of_the_tree_is_refused(path: str) -> None:
    for line in ({"file": path, **FILE}, {"link": path, "target": "x"}):
        with pytest.raises(BackupDamaged):
            read(forged(line))


@pytest.mark.parametrize("path", ESCAPES)
def test_a_folder_whose_path_leads_out_of_the_tree_is_refused(path: str) -> None:
    with pytest.raises(BackupDamaged):
        read(forged({"dir": path, "mode": "0700", "mtimeNs": 1}))


STRANGE: list[dict[str, Any] | str] = [
    {},
    "[]",
    "null",
    "5",
    "",
    "not json",
    "[" * 30_000,
    "\udcff",
    {"file": 5, **FILE},
    {"file": None, **FILE},
    {"file": ["a"], **FILE},
    {"file": "a"},
    {"file": "a", **FILE, "mode": 384},
    {"file": "a", **FILE, "mode": "0999"},
    {"file": "a", **FILE, "mtimeNs": None},
    {"file": "a", **FILE, "mtimeNs": float("inf")},
    {"file": "a", **FILE, "sizeBytes": float("nan")},
    {"file": "a", **FILE, "sizeBytes": {}},
    {"file": "a", **FILE, "owner": [1]},
    {"file": "a", **FILE, "owner": 7},
    {"file": "a", **FILE, "owner": {"user": 1}},
    {"file": "\ud800", **FILE},
    {"device": "a"},
    {"link": "a"},
    {"file": "a", "junk": "x" * 70_000, **FILE},
]


@pytest.mark.parametrize("line", STRANGE, ids=range(len(STRANGE)))
def test_a_line_that_no_writer_writes_is_refused_as_damage(line: dict[str, Any] | str) -> None:
    with pytest.raises(BackupDamaged):
        read(forged(line))


STRANGE_FEET: list[str] = [
    "{}",
    "[]",
    "[" * 30_000,
    '{"status":"complete","files":null,"sizeBytes":0,"failedItems":0,"failures":[]}',
    '{"status":"complete","files":Infinity,"sizeBytes":0,"failedItems":0,"failures":[]}',
    '{"status":"complete","files":0,"sizeBytes":0,"failedItems":0,"failures":[5]}',
    '{"status":"complete","files":0,"sizeBytes":0,"failedItems":0,"failures":7}',
    '{"status":"complete","files":0,"sizeBytes":0,"failedItems":0,"failures":[{"path":"a"}]}',
]


@pytest.mark.parametrize("foot", STRANGE_FEET, ids=range(len(STRANGE_FEET)))
def test_a_foot_that_no_writer_writes_is_refused_as_damage(tmp_path: Path, foot: str) -> None:
    content = CONTENT[: CONTENT.rfind(b"\n", 0, -1) + 1] + foot.encode() + b"\n"
    with pytest.raises(BackupDamaged):
        ends(tmp_path, content)
    with pytest.raises(BackupDamaged):
        read(content)


STRANGE_HEADS = ["", "\n", "{}\n", '{"manifest":2}\n', '{"manifest":1}\n', "[1]\n", "[" * 30_000 + "\n"]


@pytest.mark.parametrize("head", STRANGE_HEADS, ids=range(len(STRANGE_HEADS)))
def test_a_head_that_no_writer_writes_is_refused_as_damage(tmp_path: Path, head: str) -> None:
    content = head.encode() + CONTENT.partition(b"\n")[2]
    with pytest.raises(BackupDamaged):
        read(content)
    with pytest.raises(BackupDamaged):
        ends(tmp_path, content)


def test_one_that_is_not_there_is_not_taken_for_damaged(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        manifest.ends(os.fsencode(tmp_path / "manifest"))
