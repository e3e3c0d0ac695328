"""The peer that plays the sidecar's side of a transcript to a client."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from sidecar.transcripts.lines import ANY_CHUNKS, Line, read_transcript
from sidecar.transcripts.names import Names
from sidecar.transcripts.peer import FINGERPRINT, HOME, NUMBERS, TEXTS, Peer, Unexpected, filled_text
from sidecar.wire.messages import Call, parse_line
from tests.client import WireRules, request_line
from tests.transcripts.replay import FOLDER

TRANSCRIPTS = sorted(FOLDER.glob("*.jsonl"))
NAME = re.compile(r"<(?:openclaw|(host-)?home|fingerprint|port|time|free|age|rate|number|version|(handle|backup)-\d+)>")
ANALYSIS = FOLDER / "analyze_sessions_stream.jsonl"


class Client:
    """Sends what a transcript has, with ids of its own, and keeps what it hears."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self.peer = Peer(lines)
        self.heard: list[Any] = []
        self._rules = WireRules()
        self._names = Names({"<openclaw>": f"{HOME}/.openclaw", "<home>": HOME, "<fingerprint>": FINGERPRINT})

    def say(self, text: str) -> None:
        sent = with_other_ids(self._names.real(text).encode())
        for line in self.peer.take(sent):
            message = self._rules.check(line)
            self._names.named(message)
            self.heard.append(message)

    def finish(self) -> None:
        self.peer.finish()
        self._rules.check_all_ended()


def with_other_ids(line: bytes) -> bytes:
    """The line with ``"my "`` in front of each id, if it is a request, or a batch of them."""
    items = parse_line(line)
    if not all(isinstance(item, Call) for item in (items if isinstance(items, list) else [items])):
        return line
    value = json.loads(line)
    for call in value if isinstance(value, list) else [value]:
        if "id" in call:
            call["id"] = f"my {call['id']}"
    return json.dumps(value).encode()


def flat(value: Any) -> Iterator[tuple[str, Any]]:
    """The values in a message, each with its path."""
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            for path, found in flat(inner):
                yield f"{key}.{path}", found
    else:
        yield "", value


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_a_client_that_says_what_stands_there_hears_what_stands_there(path: Path) -> None:
    lines = read_transcript(path)
    client = Client(lines)
    for line in lines:
        if line.kind == ">":
            client.say(line.text)
    client.finish()

    told = [json.loads(line.text) for line in lines if line.kind == "<" and line.text != ANY_CHUNKS]
    assert len(client.heard) == len(told)
    for heard, recorded in zip(client.heard, told, strict=True):
        for (place, value), (same_place, wanted) in zip(flat(heard), flat(recorded), strict=True):
            assert place == same_place
            if isinstance(wanted, str) and NAME.search(wanted):
                assert not NAME.search(str(value)), place
            elif not place.endswith("id."):
                assert value == wanted, place


def test_an_argument_may_be_given_by_name_or_by_position() -> None:
    lines = [
        Line(">", '{"jsonrpc":"2.0","id":1,"method":"preview_session","params":{"agentId":"main","sessionId":"a"}}'),
        Line("<", '{"jsonrpc":"2.0","id":1,"result":[]}'),
    ]
    peer = Peer(lines)

    answer = peer.take(
        b'{"jsonrpc":"2.0","id":12345678901234567890123,"method":"preview_session","params":["main","a"]}'
    )

    assert answer == [b'{"jsonrpc":"2.0","id":12345678901234567890123,"result":[]}\n']


@pytest.mark.parametrize(
    "sent",
    [
        {"jsonrpc": "2.0", "id": 1, "method": "analyze_sessions"},
        {"jsonrpc": "2.0", "method": "analyze_sessions_stream"},
        {"jsonrpc": "2.0", "id": 1, "method": "analyze_sessions_stream", "params": {"batchSize": 2}},
        [{"jsonrpc": "2.0", "id": 1, "method": "analyze_sessions_stream"}],
        17,
    ],
)
def test_something_else_is_not_taken_for_what_stands_there(sent: Any) -> None:
    peer = Peer(read_transcript(ANALYSIS))

    with pytest.raises(Unexpected, match="but due was"):
        peer.take(json.dumps(sent).encode())


def test_what_is_sent_before_the_next_line_is_heard_may_come_in_any_order() -> None:
    ping, info = (request_line(method, request_id=number).strip() for number, method in ((1, "a"), (2, "b")))
    lines = [Line(">", ping.decode()), Line(">", info.decode()), Line("<", '{"jsonrpc":"2.0","id":2,"result":null}')]
    peer = Peer(lines)

    assert peer.take(info) == []
    assert peer.take(ping) == [b'{"jsonrpc":"2.0","id":2,"result":null}\n']


def test_a_client_may_greet_the_sidecar_though_the_transcript_does_not() -> None:
    peer = Peer(read_transcript(ANALYSIS))

    (described,) = peer.take(request_line("rpc.discover").strip())
    assert len(json.loads(described)["result"]["methods"]) > 30
    assert peer.take(request_line("ping", request_id="p").strip()) == [b'{"jsonrpc":"2.0","id":"p","result":"pong"}\n']


def test_a_secret_is_any_secret() -> None:
    params = {"hostId": "a", "passphrase": "<secret>"}
    stands = request_line("ssh_connect_with_passphrase", params).decode().strip()
    lines = [Line(">", stands), Line("<", '{"jsonrpc":"2.0","id":1,"result":true}')]

    assert Peer(lines).take(stands.replace("<secret>", "correct horse").encode())
    with pytest.raises(Unexpected):
        Peer(lines).take(stands.replace('"a"', '"b"').encode())


def test_what_the_names_stand_for_is_written_where_authors_of_clients_look() -> None:
    written = (FOLDER / "README.md").read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in written.partition("is here |")[2].splitlines() if line.startswith("| `<")]
    stands = {name: row[1] for row in rows for name in re.findall("<[^>]+>", row[0])}

    assert stands.keys() >= TEXTS.keys() | NUMBERS.keys() | {"<handle-1>", "<backup-1>", "<version>"}
    for name in stands.keys() - NUMBERS.keys() - {"<version>", "<fingerprint>"}:
        assert f"`{filled_text(name)}`" in stands[name]
    assert all(f"{value}" in stands[name] for name, value in NUMBERS.items())


class TestProcess:
    def play(self, path: Path, sent: bytes) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-m", "sidecar", "replay", path], input=sent, capture_output=True, check=False, timeout=60
        )

    def test_it_ends_with_0_when_all_was_said(self) -> None:
        ended = self.play(
            ANALYSIS, b"".join(line.text.encode() + b"\n" for line in read_transcript(ANALYSIS) if line.kind == ">")
        )

        assert (ended.returncode, ended.stderr) == (0, b"")
        assert ended.stdout.splitlines()[-1].count(b"sessions:done") == 1

    def test_it_ends_with_1_and_says_what_was_due(self) -> None:
        ended = self.play(ANALYSIS, b'{"jsonrpc":"2.0","id":1,"method":"analyse"}\n')

        assert ended.returncode == 1
        assert b'"method":"analyse"' in ended.stderr
        assert b"but due was" in ended.stderr

    def test_it_ends_with_1_if_the_client_says_too_little(self) -> None:
        ended = self.play(ANALYSIS, b"")

        assert ended.returncode == 1
        assert b"analyze_sessions_stream" in ended.stderr

    def test_it_ends_after_a_shutdown_though_stdin_stays_open(self) -> None:
        with subprocess.Popen(
            [sys.executable, "-m", "sidecar", "replay", FOLDER / "shutdown.jsonl"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as process:
            assert process.stdin is not None
            process.stdin.write(request_line("shutdown"))
            process.stdin.flush()
            assert process.wait(timeout=60) == 0

    @pytest.mark.parametrize("text", ["no line of a transcript", "< ..."])
    def test_it_ends_with_2_if_the_file_is_no_transcript(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "odd.jsonl").write_text(text)

        for name in ("odd.jsonl", "missing.jsonl"):
            ended = self.play(tmp_path / name, b"")
            assert ended.returncode == 2
            assert name.encode() in ended.stderr
