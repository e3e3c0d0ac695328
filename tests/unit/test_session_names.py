"""What a file is, by its name: one table, and nothing that could be a session is hidden."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.stores.session_names import Role, SessionFileName, classify, is_transcript

REAL = Path(__file__).resolve().parents[3] / "shared/real-openclaw"
UUID = "7f3c9a1e-0b52-4c8e-9d3a-111111111111"
HEX = "bfa8201e84bb45fe985078b57cdd216c"
TIME = "2026-11-22T20-15-53.605Z"
WHOLE_SECOND = "2026-11-22T20-15-53Z"


@pytest.mark.parametrize(
    ("name", "role", "stem"),
    [
        (f"{UUID}.jsonl", "transcript", UUID),
        ("abc-topic-12.jsonl", "transcript", "abc-topic-12"),
        (f"2026-11-22T20-11-01-369Z_{UUID}.jsonl", "transcript", f"2026-11-22T20-11-01-369Z_{UUID}"),
        (f"abc.jsonl.corrupt-{TIME}-0a1b2c3d.jsonl", "transcript", f"abc.jsonl.corrupt-{TIME}-0a1b2c3d"),
        ("abc.jsonl.jsonl", "transcript", "abc.jsonl"),
        ("a\nb.jsonl", "transcript", "a\nb"),
        ("\udcff.jsonl", "transcript", "\udcff"),
        (" .jsonl", "transcript", " "),
        ("..jsonl", "transcript", "."),
        ("abc.trajectory.jsonl", "trajectory", "abc"),
        ("abc.trajectory-path.json", "trajectory", "abc"),
        (f"abc.checkpoint.{UUID}.jsonl", "checkpoint", "abc"),
        (f"abc.checkpoint.{UUID}.checkpoint.{UUID}.jsonl", "checkpoint", f"abc.checkpoint.{UUID}"),
        (f"abc.checkpoint.{UUID}.trajectory.jsonl", "trajectory", f"abc.checkpoint.{UUID}"),
        ("abc.jsonl.lock", "lock", "abc"),
        ("a.b_c-D.jsonl.lock", "lock", "a.b_c-D"),
    ],
)
def test_a_file_of_the_live_session_has_its_role_and_the_sessions_id(name: str, role: Role, stem: str) -> None:
    assert classify(name) == SessionFileName(role, stem)
    assert is_transcript(name) == (role == "transcript")


@pytest.mark.parametrize(
    "stem", ["abc", "abc-topic-1", UUID, "a.jsonl", f"a.jsonl.reset.{TIME}", "a\nb", "\udcff", "é"]
)
@pytest.mark.parametrize("time", [TIME, WHOLE_SECOND])
@pytest.mark.parametrize("reason", ["reset", "deleted"])
@pytest.mark.parametrize("ending", ["", ".zst", f".{HEX}.zst"])
def test_an_archive_tells_the_session_why_it_was_made_and_whether_it_is_compressed(
    stem: str, time: str, reason: str, ending: str
) -> None:
    found = classify(f"{stem}.jsonl.{reason}.{time}{ending}")
    assert found == ("archive", stem, reason, bool(ending))


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        (f"agent_main_main.{UUID}.jsonl.imported-1795378579852", f"agent_main_main.{UUID}"),
        (
            "agent_main_whatsapp_group_12_g.us.abc-topic-1.jsonl.imported-1795378579852.3",
            "agent_main_whatsapp_group_12_g.us.abc-topic-1",
        ),
        # OpenClaw's key for a transcript that no entry named: it was not imported, only moved.
        ("archive-tier.abc.jsonl.imported-1795378579852", "archive-tier.abc"),
    ],
)
def test_an_import_archive_is_known_with_its_key_before_the_id(name: str, stem: str) -> None:
    assert classify(name) == SessionFileName("import", stem, "imported")


def test_a_cold_file_is_compressed_and_no_archive() -> None:
    assert classify(f"{HEX}{HEX}.jsonl.zst") == SessionFileName("cold", HEX + HEX, None, True)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".jsonl",
        "jsonl",
        ".trajectory.jsonl",
        ".trajectory-path.json",
        ".jsonl.lock",
        ".jsonl.zst",
        f".jsonl.reset.{TIME}",
        ".jsonl.imported-1",
        "sessions.json",
        "sessions.json.lock",
        f"sessions.json.1234.{UUID}.tmp",
        "sessions.json.bak.1795378579852",
        ".usage-cost-cache.1.tmp",
        "abc.json",
        "abc.JSONL",
        "abc.jsonl.tmp",
        "abc.jsonl~",
        f"abc.jsonl.bak.{TIME}",
        "abc.jsonl.reset",
        "abc.jsonl.reset.",
        "abc.jsonl.reset.2026-11-22",
        f"abc.jsonl.reset.{TIME}.gz",
        f"abc.jsonl.reset.{TIME}.{HEX}",
        f"abc.jsonl.reset.{TIME}.{HEX.upper()}.zst",
        f"abc.jsonl.reset.{TIME}\n",
        f"abc.jsonl.archived.{TIME}",
        "abc.jsonl.reset.٢٠٢٦-١١-٢٢T٢٠-١٥-٥٣Z",
        f"abc.trajectory.jsonl.deleted.{TIME}",
        f"abc.checkpoint.{UUID}.jsonl.deleted.{TIME}.zst",
        "agent_main_main.abc.trajectory.jsonl.imported-1795378579852",
        "agent_main_main.abc.trajectory-path.json.imported-1795378579852",
        "archive-tier.abc.trajectory.jsonl.imported-1795378579852",
        f"archive-tier.abc.checkpoint.{UUID}.jsonl.imported-1795378579852",
        "legacy-store.sessions.json.imported-1795378579852",
        "abc.jsonl.imported-",
        "abc.jsonl.imported-12x",
    ],
)
def test_indexes_temporary_files_and_traces_that_were_moved_are_of_no_session(name: str) -> None:
    assert classify(name) is None
    assert not is_transcript(name)


@pytest.mark.parametrize(
    "stem",
    ["checkpoint", "s.checkpoint", "s.checkpoint.", "s.checkpoint.1", f"s.checkpoint.{UUID}x", "trajectory", "s.lock"],
)
def test_a_name_that_only_resembles_that_of_a_trace_is_a_session(stem: str) -> None:
    assert classify(f"{stem}.jsonl") == SessionFileName("transcript", stem)


PIECES = [".jsonl", ".reset.", ".deleted.", TIME, WHOLE_SECOND, ".zst", f".{HEX}", ".lock", ".trajectory", "-path.json"]
PIECES += [f".checkpoint.{UUID}", ".checkpoint.", ".imported-", "1", ".", "a", "\n", ""]
ODD_NAMES = st.lists(st.sampled_from(PIECES), max_size=7).map("".join) | st.text(max_size=20)

# The table once more, each row one pattern: what classify answers without trying them one after another.
TABLE = {
    "transcript": r"(?P<id>.+)\.jsonl",
    "trajectory": r"(?P<id>.+)\.trajectory(?:\.jsonl|-path\.json)",
    "checkpoint": rf"(?P<id>.+)\.checkpoint\.{UUID}\.jsonl",
    "lock": r"(?P<id>.+)\.jsonl\.lock",
    "archive": rf"(?P<id>.+)\.jsonl\.(?:reset|deleted)\.(?:{TIME}|{WHOLE_SECOND})(?:(?:\.{HEX})?\.zst)?",
    "import": r"(?P<id>.+)\.jsonl\.imported-[0-9]+(?:\.[0-9]+)?",
    "cold": r"(?P<id>.+)\.jsonl\.zst",
}
OF_MOVED = ("archive", "import", "cold")


def by_the_table(name: str) -> tuple[str, str] | None:
    rows = {role: match["id"] for role, row in TABLE.items() if (match := re.fullmatch(row, name, re.DOTALL))}
    for role in ("lock", "checkpoint", "trajectory", "archive", "import", "cold", "transcript"):
        if role in rows:
            moved_trace = role in OF_MOVED and by_the_table(f"{rows[role]}.jsonl") != ("transcript", rows[role])
            return None if moved_trace or name == ".trajectory.jsonl" else (role, rows[role])
    return None


@given(ODD_NAMES)
def test_every_name_is_what_the_table_says(name: str) -> None:
    found = classify(name)
    assert (found and found[:2]) == by_the_table(name)
    assert is_transcript(name) == (found is not None and found.role == "transcript")


@given(ODD_NAMES)
def test_a_name_that_ends_like_a_transcript_is_never_nothing(name: str) -> None:
    assert (classify(f"x{name}.jsonl")) is not None


@pytest.mark.skipif(not REAL.is_dir(), reason="no real OpenClaw data here")
def test_the_files_of_real_installations_are_all_known() -> None:
    roles: dict[str, int] = {}
    for folder, _, names in os.walk(REAL):
        if os.path.basename(folder) == "sessions":
            for name in names:
                found = classify(name)
                role = found.role if found else name
                roles[role] = roles.get(role, 0) + 1
    assert roles == {"transcript": 5, "trajectory": 6, "archive": 3, "sessions.json": 1}
