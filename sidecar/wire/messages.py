"""A line becomes calls, and values become lines: JSON-RPC 2.0 without any I/O.

An id is kept as JSON text and echoed as it came, so that none loses a digit.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import orjson

from sidecar.errors import InvalidRequest, ParseError, SidecarError
from sidecar.limits import MAX_BATCH_CALLS, MAX_ID_BYTES, MAX_LINE_VALUES
from sidecar.text import mend_surrogates

NULL_ID = b"null"
_LINE_BREAK = re.compile(rb"\xe2\x80[\xa8\xa9]")
_encode = msgspec.json.Encoder().encode


class _Identified(msgspec.Struct):
    id: msgspec.Raw = msgspec.Raw()


@dataclass(frozen=True, slots=True)
class Call:
    """A request to run; ``id_json`` is ``None`` for a notification, which gets no reply."""

    method: str
    params: dict[str, Any] | list[Any]
    id_json: bytes | None


@dataclass(frozen=True, slots=True)
class Rejected:
    """What is no valid request, and the error that answers it."""

    error: SidecarError
    id_json: bytes = NULL_ID


Item = Call | Rejected


def parse_line(line: bytes) -> Item | list[Item]:
    """The call on a line, or the list of calls of a batch. Never raises: what is wrong comes back as ``Rejected``."""
    if _may_hold_too_many_values(line):
        return Rejected(ParseError(f"the line has over {MAX_LINE_VALUES} commas and brackets"))
    try:
        return _parse(line)
    except (ValueError, RecursionError) as error:
        return Rejected(ParseError(f"the line is not JSON, or nested too deeply: {error}"))


def _parse(line: bytes) -> Item | list[Item]:
    line, value = _loads(line)
    if not isinstance(value, list):
        return _item(value, line)
    if not value:
        return Rejected(InvalidRequest("a batch needs at least one call"))
    if len(value) > MAX_BATCH_CALLS:
        return Rejected(InvalidRequest(f"a batch has at most {MAX_BATCH_CALLS} calls"))
    texts = msgspec.json.decode(line, type=list[msgspec.Raw])
    return [_item(item, text) for item, text in zip(value, texts, strict=True)]


def result_line(id_json: bytes, result: Any) -> bytes:
    """A reply that carries ``result``; ``TypeError`` if that has no JSON form."""
    return b'{"jsonrpc":"2.0","id":' + id_json + b',"result":' + encode(result) + b"}\n"


def error_line(id_json: bytes, error: SidecarError) -> bytes:
    """A reply that carries ``error``."""
    value = {
        "code": error.code,
        "message": error.message,
        "data": {"kind": error.kind, "retryable": error.retryable, **error.details},
    }
    return b'{"jsonrpc":"2.0","id":' + id_json + b',"error":' + encode(value) + b"}\n"


def batch_line(replies: Sequence[bytes]) -> bytes:
    """Replies, each a line of its own, as the one line that answers a batch."""
    return b"[" + b",".join(reply[:-1] for reply in replies) + b"]\n"


def event_line(method: str, handle: str, seq: int, payload: Any) -> bytes:
    """A notification of a stream: the payload's fields after ``handleId`` and ``seq``."""
    fields = encode(payload)
    head = b'{"jsonrpc":"2.0","method":"%b","params":{"handleId":"%b","seq":%d' % (
        method.encode(),
        handle.encode(),
        seq,
    )
    return head + (b"," + fields[1:] if len(fields) > 2 else b"}") + b"}\n"


def encode(value: Any) -> bytes:
    """``value`` as JSON without a line break in it: U+2028 and U+2029 escaped, a lone surrogate as U+FFFD."""
    try:
        text = _encode(value)
    except UnicodeEncodeError:
        text = _encode(_without_lone_surrogates(msgspec.to_builtins(value)))
    # One byte is found many times faster than three. Where other characters begin with it (ticks, curly quotes), one
    # search costs less than two replacements of nothing: of a preview of such text a quarter of the time.
    if b"\xe2" in text and _LINE_BREAK.search(text):
        text = text.replace(b"\xe2\x80\xa8", b"\\u2028").replace(b"\xe2\x80\xa9", b"\\u2029")
    return text


def _without_lone_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {_without_lone_surrogates(key): _without_lone_surrogates(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_lone_surrogates(item) for item in value]
    return value


def _may_hold_too_many_values(line: bytes) -> bool:
    """Whether the values on a line could take much more memory than its text; those in strings count too."""
    # What opens or follows each value but the first; a short line is seldom counted.
    return len(line) > MAX_LINE_VALUES and sum(map(line.count, (b",", b"[", b"{"))) > MAX_LINE_VALUES


def _loads(line: bytes) -> tuple[bytes, Any]:
    """The value on a line, and the line as it was read: with half a surrogate pair in it, mended."""
    try:
        return line, orjson.loads(line)
    except orjson.JSONDecodeError:
        mended = bytearray(line)
        if not mend_surrogates(mended, 0, len(mended)):
            raise
    return bytes(mended), orjson.loads(mended)


def _item(value: Any, text: bytes | msgspec.Raw) -> Item:
    """The call in ``value``, which ``text`` spells."""
    if not isinstance(value, dict):
        return Rejected(InvalidRequest("a request is a JSON object"))
    found = value.get("id")
    if not _is_id(found):
        return Rejected(InvalidRequest("an id is a string, a number or null"))
    # orjson reads an integer of over 64 bits as a float, whose digits are not those that came, and -0 as 0.
    exact = not isinstance(found, float) and found != 0
    id_json = encode(found) if exact else bytes(msgspec.json.decode(text, type=_Identified).id)
    if len(id_json) > MAX_ID_BYTES:
        return Rejected(InvalidRequest(f"an id is at most {MAX_ID_BYTES} bytes long"))
    method, params = value.get("method"), value.get("params")
    if value.get("jsonrpc") != "2.0":
        return Rejected(InvalidRequest('"jsonrpc" must be "2.0"'), id_json)
    if not isinstance(method, str):
        return Rejected(InvalidRequest('"method" must be a string'), id_json)
    if params is not None and not isinstance(params, (dict, list)):
        return Rejected(InvalidRequest('"params" must be an object or an array'), id_json)
    return Call(method, {} if params is None else params, id_json if "id" in value else None)


def _is_id(value: Any) -> bool:
    return value is None or (isinstance(value, (str, int, float)) and not isinstance(value, bool))
