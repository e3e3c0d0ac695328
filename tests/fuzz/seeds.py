"""What the fuzzer begins with, and the words that it puts into what it makes."""

from __future__ import annotations

from tests.unit.strategies import CONTAINERS, GARBAGE, PIECES, SCALARS, WRONG_PIECES, WRONG_SCALARS

_REQUESTS = [
    b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"a":[1,2.5,null]}}\n',
    b'[{"jsonrpc":"2.0","id":"a","method":"get_sidecar_info"},{"jsonrpc":"2.0","method":"ping"},17]\n',
    b'{"jsonrpc":"2.0","id":123456789012345678901234567890,"method":"cancel_stream","params":["no"]}\r\n',
    b'{"jsonrpc":"2.0","id":-1.50,"method":"preview_session_stream","params":{"agentId":"a","sessionId":"s"}}\n',
    b'{"jsonrpc":"2.0","id":null,"method":"analyze_sessions_stream","params":{"batchSize":1}}\n{"id":{}}\n[]\n',
    b'{"jsonrpc":"2.0","id":2,"method":"verify_backup_stream","params":{"backupName":"../x"}}\n',
]
_ENTRIES = [
    b'\x10{"type":"session","version":3,"id":"s1","timestamp":"2026-11-22T20:00:00.000Z","cwd":"/w"}\n',
    b'\x03{"type":"message","id":"a1","timestamp":"2026-11-22T20:16:19.852Z","message":{"role":"user","content":"hi"}}\n',
    b'\xff{"type":"message","id":7,"message":{"role":"assistant","content":[{"type":"text","text":"a"},{"text":5},0]}}\r\n',
    b'\x01{"type":"message","message":{"content":"FILL\\ud83d","role":"user"}}\n{"type":"message"\n\n',
]
SEEDS = {
    "framer": [b"\x02a\r\n\n" + b"x" * 30 + b"\nb", b"\x00 \t\r\n"],
    "parser": [request.strip() for request in _REQUESTS],
    "connection": [*_REQUESTS, b"".join(_REQUESTS)],
    "transcript": [*_ENTRIES, b"".join(_ENTRIES)],
    "long-lines": [
        *_ENTRIES,
        b'\x20{"fill":"FILL","type":"message","message":{"role":"user","content":[{"text":"\xff"}]}}\n',
    ],
}

_WORDS = [*PIECES, *WRONG_PIECES, *SCALARS[:9], *WRONG_SCALARS, *GARBAGE, *CONTAINERS[:4], b"FILL", b"\r\n", b"\n"]
_KEYS = (
    "jsonrpc 2.0 id method params type message role content text timestamp session user ping handleId batchSize agentId"
)
DICTIONARY = [*_WORDS, *(f'"{key}"'.encode() for key in _KEYS.split())]
