"""The protocol's document says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sidecar import PROTOCOL_VERSION, limits
from sidecar.core.analysis import SessionAnalysis
from sidecar.core.batching import SessionsChunk
from sidecar.errors import COMMAND_ERRORS, WIRE_ERRORS, SidecarError
from sidecar.server.commands import COMMANDS
from sidecar.server.schema import MODELS
from sidecar.streams.analyze import SessionsDone

PROTOCOL = Path(__file__).parents[2] / "protocol"
DOCUMENT = (PROTOCOL / "protocol.md").read_text(encoding="utf-8")


def section(heading: str) -> str:
    """The text below a heading, up to the next of its level or above."""
    level = heading.split()[0]
    _, _, behind = DOCUMENT.partition(f"\n{heading}\n")
    return re.split(rf"\n#{{1,{len(level)}}} ", behind)[0]


def row(error: type[SidecarError]) -> str:
    return f"| `{error.kind}` | {error.code} | {'yes' if error.retryable else 'no'} | {error.meaning} |"


def test_the_table_of_errors_is_that_of_the_code() -> None:
    table = re.search(r"<!-- errors: .*? -->\n\n(.*?)\n\n<!-- /errors -->", DOCUMENT, re.DOTALL)
    assert table is not None
    assert table[1].splitlines()[2:] == [row(error) for error in (*WIRE_ERRORS, *COMMAND_ERRORS)]


def test_kinds_and_codes_of_errors_are_unique() -> None:
    errors = (*WIRE_ERRORS, *COMMAND_ERRORS)
    assert len({error.kind for error in errors}) == len({error.code for error in errors}) == len(errors)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_each_command_has_a_section_that_names_its_parameters_and_its_transcript(command: object) -> None:
    name, params = getattr(command, "name"), getattr(command, "params")  # noqa: B009
    text = section(f"### `{name}`")
    assert text, f"no section for {name}"
    for field in MODELS[params].model_fields.values() if params else ():
        assert re.search(rf"`\{{.*\b{field.alias}\b", text)
    linked = re.findall(r"\(transcripts/([^)]+)\)", text)
    assert linked
    assert all((PROTOCOL / "transcripts" / transcript).exists() for transcript in linked)


@pytest.mark.parametrize("payload", [SessionAnalysis, SessionsChunk, SessionsDone])
def test_each_field_on_the_wire_is_described(payload: type[SessionAnalysis | SessionsChunk | SessionsDone]) -> None:
    for field in payload.__struct_encode_fields__:
        assert re.search(rf"\b{field}\b", DOCUMENT), f"{payload.__name__}.{field}"


def test_the_numbers_in_the_document_are_those_of_the_limits() -> None:
    for text in (
        f"An input line is at most {limits.MAX_LINE_BYTES // limits.MIB} MiB",
        f"at most {limits.MAX_REPLY_BYTES // limits.MIB} MiB",
        f"up to {limits.MAX_ID_BYTES // limits.KIB} KiB",
        f"1 to {limits.MAX_BATCH_CALLS:,} requests",
        f"Up to {limits.MAX_OPEN_HANDLES} streams",
        f"{limits.MAX_WAITING_REPLY_BYTES // limits.MIB} MiB of",
        f"for up to {limits.DRAIN_S:.0f} s",
        f"{limits.DEFAULT_BATCH_SESSIONS} if absent, clamped to 1..{limits.MAX_BATCH_SESSIONS}",
        f"{limits.CHUNK_AGE_MS} ms old ({limits.FIRST_CHUNK_AGE_MS} ms in the first chunk",
        f"the first {limits.MAX_REPORTED_FAILURES}:",
        f"Version {PROTOCOL_VERSION}.",
    ):
        assert text in " ".join(DOCUMENT.split()), text
