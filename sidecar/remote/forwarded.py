"""Transcripts that an engine could not open, and so sent on as they are: zstd frames and streams, opened here."""

from __future__ import annotations

from collections.abc import Iterator

from sidecar.core.blocks import Block, RecordBlocks
from sidecar.core.zstd import ZstdReader, decompress, pieces
from sidecar.errors import BrokenCompression
from sidecar.limits import BLOCK_BYTES
from sidecar.remote.records import Records
from sidecar.stores.sqlite_archives import cold_events
from sidecar.stores.sqlite_rows import Lines, undecodable


class ForwardedTranscript:
    """What ``records`` give next of one transcript, up to a record of another kind, which stays there.

    Waits for the network, as long as an answer takes, where the middle of a stream has not come yet.
    """

    def __init__(self, records: Records) -> None:
        self._records = records
        self.written_at_ms: float | None = None
        """When the last row was written, of what came from cold storage."""

    def blocks(self) -> Iterator[Block]:
        """The lines, as blocks, each valid until the next is asked for; ``SidecarError`` if they can't be read.

        A block without a byte in it stands for a line that was passed over as too long.
        """
        record = self._records.next_told()
        if record is None:
            return
        if record.name == "frame":
            yield from _line_of(record.items[0], record.data)
            return
        self._records.put_back(record)
        blocks = RecordBlocks()
        source = ZstdReader(_Joined(_data_of(self._records, record.name)))
        if record.name == "piece":
            while block := blocks.read(source):
                yield block
            yield from [Block(bytearray(), 0, 0)] * blocks.overlong
            return
        records = iter(lambda: blocks.read(source), None)
        lines = Lines()
        for event in cold_events(records):
            self.written_at_ms = event.created_at
            lines.clear()
            lines.add_pieces([(event.event_json or "").encode()])
            if block := lines.block():
                yield block

    def size_bytes(self) -> int:
        """The size of the transcript, which is read for it."""
        return sum(block.end - block.start for block in self.blocks())


def _line_of(seq: int, frame: bytes) -> Iterator[Block]:
    lines = Lines()
    try:
        # As a row here: a small one in one go, others in pieces.
        whole = decompress(frame, BLOCK_BYTES)
        size_bytes = lines.add_pieces([whole] if whole is not None else pieces(ZstdReader(_Joined(iter([frame])))))
    except BrokenCompression as error:
        raise undecodable(seq, error.message) from None
    block = Block(bytearray(), 0, 0) if size_bytes is None else lines.block()
    if block is not None:
        yield block


def _data_of(records: Records, name: str) -> Iterator[bytes]:
    """The bytes of all records of one name that come next."""
    while (record := records.next_told()) is not None:
        if record.name != name:
            records.put_back(record)
            return
        yield record.data


class _Joined:
    """A ``ReadInto`` of what pieces of any size hold, one after another."""

    def __init__(self, data: Iterator[bytes]) -> None:
        self._data = data
        self._piece = memoryview(b"")

    def __call__(self, space: memoryview) -> int:
        while not self._piece:
            piece = next(self._data, None)
            if piece is None:
                return 0
            self._piece = memoryview(piece)
        count = min(len(space), len(self._piece))
        space[:count] = self._piece[:count]
        self._piece = self._piece[count:]
        return count
