"""The protocol's document says what the code does."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
import pytest

from sidecar import PROTOCOL_VERSION, limits
from sidecar.backup.rules import LEFT_OUT, TRANSCRIPTS
from sidecar.core.analysis import SessionAnalysis
from sidecar.core.batching import SessionsChunk
from sidecar.errors import COMMAND_ERRORS, WIRE_ERRORS, HostUnknown, RemoteFailed, SidecarError, SourceUnreadable
from sidecar.remote.python.limits import FINISH_S
from sidecar.server.command import Command
from sidecar.server.commands import COMMANDS
from sidecar.server.schema import MODELS
from sidecar.streams.analyze import SessionsDone
from sidecar.streams.backup import BackupInfo, InfoDone, RestoreDone, WorkError, WorkProgress

PROTOCOL = Path(__file__).parents[2] / "protocol"
DOCUMENT = (PROTOCOL / "protocol.md").read_text(encoding="utf-8")
HOST_ERRORS = [error for error in COMMAND_ERRORS if HostUnknown.code >= error.code >= RemoteFailed.code]
RECORDED = sorted(PROTOCOL.glob("transcripts/*.jsonl"))
ENGINES = PROTOCOL.parent / "sidecar" / "remote"


def section(heading: str) -> str:
    """The text below a heading, up to the next of its level or above."""
    level = heading.split()[0]
    _, _, behind = DOCUMENT.partition(f"\n{heading}\n")
    return re.split(rf"\n#{{1,{len(level)}}} ", behind)[0]


def text_about(command: str) -> str:
    """A command's section, or its row in the table of those that have none of their own."""
    row = re.search(rf"^\| `{command}` \|.*$", section("### The `remote_` commands"), re.MULTILINE)
    return row[0] if row else section(f"### `{command}`")


def row(error: type[SidecarError]) -> str:
    return f"| `{error.kind}` | {error.code} | {'yes' if error.retryable else 'no'} | {error.meaning} |"


def test_the_table_of_errors_is_that_of_the_code() -> None:
    table = re.search(r"<!-- errors: .*? -->\n\n(.*?)\n\n<!-- /errors -->", DOCUMENT, re.DOTALL)
    assert table is not None
    assert table[1].splitlines()[2:] == [row(error) for error in (*WIRE_ERRORS, *COMMAND_ERRORS)]


def test_the_table_of_what_stays_out_of_a_backup_is_that_of_the_code() -> None:
    table = re.search(r"<!-- rules: .*? -->\n\n(.*?)\n\n<!-- /rules -->", DOCUMENT, re.DOTALL)
    assert table is not None
    assert table[1].splitlines()[2:] == [f"| `{rule.path}` | {rule.reason} |" for rule in LEFT_OUT]
    assert all(f"`{rule.path.rpartition('/')[2]}`" in section("## 6. Backups") for rule in TRANSCRIPTS)


def test_kinds_and_codes_of_errors_are_unique() -> None:
    errors = (*WIRE_ERRORS, *COMMAND_ERRORS)
    assert len({error.kind for error in errors}) == len({error.code for error in errors}) == len(errors)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_each_command_has_a_section_or_row_that_names_its_parameters_and_its_transcript(command: Command) -> None:
    text = text_about(command.name)
    assert text, f"nothing about {command.name}"
    fields = MODELS[command.params].model_fields.values() if command.params else ()
    named = re.search(r"`\{(.*?)\}`", text)
    # A host is an object with a table of its own.
    assert re.findall(r"(\w+)\??:", named[1] if named and fields else "") == [field.alias for field in fields]
    linked = re.findall(r"\(transcripts/([^)]+)\)", text)
    assert f"{command.name}.jsonl" in linked
    assert {path.name for path in RECORDED if path.name.startswith(f"{command.name}.")} <= set(linked)


def test_each_transcript_is_linked_and_each_link_leads_to_one() -> None:
    assert set(re.findall(r"\(transcripts/([^)]+)\)", DOCUMENT)) == {path.name for path in RECORDED}


def errors_of_hosts() -> list[tuple[str, str, list[str]]]:
    """The rows of that table: kind, whether it is retryable, the words in its messages."""
    table = section("## 5. Hosts over SSH").partition("**Errors.**")[2]
    rows = re.findall(r"^\| `(\w+)` \| (yes|no) \| .* \| (.*) \|$", table, re.MULTILINE)
    return [(kind, retryable, re.findall("`(.*?)`", words)) for kind, retryable, words in rows]


def test_each_error_of_a_host_is_explained() -> None:
    explained = {kind: retryable for kind, retryable, _ in errors_of_hosts()}
    assert explained == {error.kind: "yes" if error.retryable else "no" for error in (*HOST_ERRORS, SourceUnreadable)}


def test_errors_in_transcripts_have_the_words_that_the_document_promises() -> None:
    words = {kind: promised for kind, _, promised in errors_of_hosts() if kind != SourceUnreadable.kind}
    told = [
        json.loads(line[2:]) for path in RECORDED for line in path.read_text().splitlines() if line.startswith("< {")
    ]
    seen = {(message["error"]["data"]["kind"], message["error"]["message"]) for message in told if "error" in message}
    seen |= {
        (message["params"]["kind"], message["params"]["error"])
        for message in told
        if message.get("method", "").endswith(":error")
    }
    assert words.keys() <= {kind for kind, _ in seen}
    for kind, message in seen:
        if words.get(kind):
            assert any(word in message for word in words[kind]), message


@pytest.mark.parametrize(
    "payload",
    [SessionAnalysis, SessionsChunk, SessionsDone, BackupInfo, WorkProgress, InfoDone, RestoreDone, WorkError],
)
def test_each_field_on_the_wire_is_described(payload: type[msgspec.Struct]) -> None:
    for field in payload.__struct_encode_fields__:
        assert re.search(rf"\b{field}\b", DOCUMENT), f"{payload.__name__}.{field}"


def test_the_numbers_in_the_document_are_those_of_the_limits() -> None:
    for text in (
        f"An input line is at most {limits.MAX_LINE_BYTES // limits.MIB} MiB",
        f"at most {limits.MAX_REPLY_BYTES // limits.MIB} MiB",
        f"over {limits.MAX_LINE_VALUES:,} commas and opening brackets",
        f"of up to {limits.MAX_ID_BYTES // limits.KIB} KiB",
        f"at most {limits.MAX_PARAM_CHARS:,} characters long",
        f"1 to {limits.MAX_BATCH_CALLS:,} requests",
        f"Up to {limits.MAX_OPEN_HANDLES} streams",
        f"Up to {limits.MAX_OPEN_JOBS} commands",
        f"{limits.MAX_WAITING_REPLY_BYTES // limits.MIB} MiB of",
        f"for up to {limits.DRAIN_S:.0f} s",
        f"{limits.DEFAULT_BATCH_SESSIONS} if absent, clamped to 1..{limits.MAX_BATCH_SESSIONS}",
        f"{limits.CHUNK_AGE_MS} ms old ({limits.FIRST_CHUNK_AGE_MS} ms in the first chunk",
        f"the first {limits.MAX_REPORTED_FAILURES}:",
        f"Version {PROTOCOL_VERSION}.",
        f"first answer | {limits.CONNECT_S:.0f} s |",
        f"from then on | {limits.LOGIN_S:.0f} s |",
        f"every {limits.KEEPALIVE_S:.0f} s, {limits.MAX_KEEPALIVES_UNANSWERED} may go unanswered",
        f"found out after {limits.KEEPALIVE_S * (limits.MAX_KEEPALIVES_UNANSWERED + 1):.0f} s",
        f"| silence of a command | {limits.CHANNEL_IDLE_S:.0f} s |",
        f"| idle connection | {limits.IDLE_CONNECTION_S / 60:.0f} min |",
        f"| channels | {limits.MAX_CHANNELS} a connection",
        f"{limits.CHANNEL_CHUNKS} chunks of {limits.CHUNK_BYTES // limits.KIB} KiB",
        f"for at most {limits.REMOVAL_ENDS_WITHIN_S:.0f} s",
        f"copied again, up to {limits.MAX_COPIES} times",
        f"At most {1 / limits.PROGRESS_S:.0f} events a second",
        f"gives it {FINISH_S:.0f} s to clear up",
        f"over the last {limits.TRANSFER_RATE_S} s",
    ):
        assert text in " ".join(DOCUMENT.split()), text


@pytest.mark.parametrize("engine", ["node/limits.mjs", "python/limits.py"])
def test_the_lease_in_the_document_is_that_of_the_engines(engine: str) -> None:
    lease = re.search(
        r"^(?:export const )?LEASE_(M?S) = ([\d_]+)", (ENGINES / engine).read_text(encoding="utf-8"), re.MULTILINE
    )
    assert lease is not None
    seconds = int(lease[2]) // (1000 if lease[1] == "MS" else 1)
    assert f"| lease of a command | {seconds} s |" in DOCUMENT
    assert seconds > limits.LEASE_S
