"""Commands on a host: their output as it comes, held back by a slow reader, and nothing of them left behind."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import time
import tracemalloc
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sidecar.errors import ConnectionBroken, HostTimedOut, RemoteFailed
from sidecar.limits import MAX_STDERR_BYTES
from sidecar.remote import connect
from sidecar.remote.pool import Host, SshConnectionPool, quoted
from tests.client import eventually
from tests.remote.pools import Here, MakeSshd, said
from tests.remote.sshd import Sshd, program

MIB = 1024 * 1024
GONE_WITHIN_S = 1.0
# Long enough to see that something doesn't move.
AT_REST_S = 0.3
IGNORES_SIGNALS = "trap '' HUP INT TERM PIPE; echo ready; while :; do sleep 100; done"
COMMANDS = {
    "silent": "echo ready; exec sleep 1000",
    "not replaced": "echo ready; sleep 1000; echo over",
    "talkative": "echo ready; yes",
    "ignores signals": IGNORES_SIGNALS,
    "has children": "echo ready; (sleep 1000 & sh -c 'sleep 1000; :' & wait); :",
    "has closed everything": "echo ready; exec >/dev/null 2>&1; sleep 1000; :",
}


@pytest.fixture
def host(sshd: Sshd, here: Here) -> Host:
    here.know(sshd)
    return here.host(sshd)


async def first(chunks: AsyncGenerator[bytes, None]) -> bytes:
    return await anext(chunks)


async def rest(chunks: AsyncGenerator[bytes, None]) -> int:
    """How many bytes come until the end."""
    size = 0
    async for chunk in chunks:
        size += len(chunk)
    return size


def written_bytes(pid: int) -> int:
    """What a process has written so far."""
    counts = re.search(r"wchar: (\d+)", Path(f"/proc/{pid}/io").read_text())
    assert counts
    return int(counts[1])


def resident_bytes(pids: list[int]) -> int:
    total = 0
    for pid in pids:
        found = re.search(r"RssAnon:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
        total += int(found[1]) * 1024 if found else 0
    return total


async def at_rest(count: Callable[[], int]) -> int:
    """What ``count`` gives once it has stayed the same for a while."""
    last, since_s = count(), time.monotonic()

    def is_at_rest() -> bool:
        nonlocal last, since_s
        if (now := count()) != last:
            last, since_s = now, time.monotonic()
        return time.monotonic() - since_s > AT_REST_S

    await eventually(is_at_rest, "it doesn't move any more")
    return last


class TestOutput:
    async def test_output_comes_while_the_command_runs(self, sshd: Sshd, host: Host, pool: SshConnectionPool) -> None:
        wait = f"while [ ! -e '{sshd.home}/go' ]; do sleep 0.01; done"
        async with aclosing(pool.exec_streaming(host, f"echo first; {wait}; echo second")) as chunks:
            assert await first(chunks) == b"first\n"
            (sshd.home / "go").touch()
            assert await first(chunks) == b"second\n"
            with pytest.raises(StopAsyncIteration):
                await first(chunks)

    async def test_every_byte_passes(self, host: Host, pool: SshConnectionPool) -> None:
        command = "awk 'BEGIN { for (i = 1; i < 256; i++) printf \"%c\", i }'; head -c 100 /dev/zero"
        output = await said(pool, host, f"LC_ALL=C {command}")
        assert output == bytes(range(1, 256)) + bytes(100)

    @pytest.mark.parametrize("chunk_size", [1, 1000, 32 * 1024, 100_000])
    async def test_chunks_are_no_larger_than_asked_for(
        self, host: Host, pool: SshConnectionPool, chunk_size: int
    ) -> None:
        size = min(300_000, 5000 * chunk_size)
        async with aclosing(pool.exec_streaming(host, f"head -c {size} /dev/zero", chunk_size)) as chunks:
            sizes = [len(chunk) async for chunk in chunks]
        assert sum(sizes) == size
        assert min(sizes) > 0
        assert max(sizes) <= chunk_size

    async def test_the_command_has_no_input(self, host: Host, pool: SshConnectionPool) -> None:
        assert await said(pool, host, "cat; echo over") == b"over\n"

    async def test_a_slow_reader_holds_the_command_back_with_flat_memory_on_both_ends(
        self, sshd: Sshd, host: Host, pool: SshConnectionPool
    ) -> None:
        async with aclosing(pool.exec_streaming(host, "yes 0123456")) as chunks:
            received = await first(chunks)
            (yes,) = [one.pid for one in sshd.processes() if one.command == "yes 0123456"]
            before = await at_rest(lambda: written_bytes(yes))
            assert before < 8 * MIB
            tracemalloc.start()
            here_before, there_before = tracemalloc.get_traced_memory()[0], resident_bytes(sshd.all_pids())
            size = len(received)
            while size < before + 16 * MIB:
                chunk = await first(chunks)
                size += len(chunk)
                received = received[-8:] + chunk
                assert received in b"0123456\n" * (len(received) // 8 + 2)
            after = await at_rest(lambda: written_bytes(yes))
            peak = tracemalloc.get_traced_memory()[1] - here_before
            tracemalloc.stop()
            assert after < size + 8 * MIB
            assert peak < 3 * MIB
            assert resident_bytes(sshd.all_pids()) - there_before < 4 * MIB

    async def test_a_slow_reader_gets_all_of_a_command_that_has_ended_meanwhile(
        self, sshd: Sshd, host: Host, pool: SshConnectionPool
    ) -> None:
        # More than what is queued here, less than what is held back on its way.
        async with aclosing(pool.exec_streaming(host, "head -c 700000 /dev/zero")) as chunks:
            size = len(await first(chunks))
            await sshd.wait_until_no_processes(5)
            await at_rest(lambda: pool.transfers(host.id).downloaded_bytes)
            size += await rest(chunks)
        assert size == 700_000

    async def test_what_a_slow_reader_has_not_got_when_the_host_is_disconnected_is_no_end(
        self, sshd: Sshd, host: Host, pool: SshConnectionPool
    ) -> None:
        async with aclosing(pool.exec_streaming(host, "head -c 700000 /dev/zero")) as chunks:
            await first(chunks)
            await sshd.wait_until_no_processes(5)
            await at_rest(lambda: pool.transfers(host.id).downloaded_bytes)
            pool.disconnect(host.id)
            with pytest.raises(ConnectionBroken):
                await rest(chunks)

    async def test_a_flood_of_errors_is_drained_and_its_end_is_told(self, host: Host, pool: SshConnectionPool) -> None:
        command = "yes error | head -c 20000000 >&2; echo ' last words' >&2; exit 3"
        with pytest.raises(RemoteFailed, match=r"(?s)status 3: .*last words$") as caught:
            await said(pool, host, command)
        assert len(caught.value.message) < MAX_STDERR_BYTES + 200
        assert await said(pool, host, f"{command.partition(';')[0]}; echo out") == b"out\n"


class TestEnds:
    @pytest.mark.parametrize(
        ("command", "words"),
        [
            ("echo out; exit 7", r"status 7$"),
            ("echo out; echo why >&2; false", r"status 1: why$"),
            ("no-such-program", r"status 127: .*not found"),
            ("echo out; kill -9 $$", r"status 137\b"),
        ],
    )
    async def test_a_command_that_fails_is_an_error_after_its_output(
        self, host: Host, pool: SshConnectionPool, command: str, words: str
    ) -> None:
        chunks = pool.exec_streaming(host, command)
        if "echo out" in command:
            assert await first(chunks) == b"out\n"
        with pytest.raises(RemoteFailed, match=words):
            await first(chunks)

    async def test_a_signal_is_told_by_its_name(self, host: Host, pool: SshConnectionPool) -> None:
        process = await pool.open(host, "kill -TERM $$; sleep 1000")
        with pytest.raises(RemoteFailed, match="signal TERM"):
            await process.read()

    async def test_what_is_written_after_the_end_is_lost(self, host: Host, pool: SshConnectionPool) -> None:
        process = await pool.open(host, "exit 0")
        deadline_s = time.monotonic() + 5
        while not process.has_ended:
            await process.write(b"x" * 100_000)
            await asyncio.sleep(0)
            assert time.monotonic() < deadline_s
        await process.write(b"x")
        process.write_eof()
        assert await process.read() == b""

    @pytest.mark.parametrize("command", ["yes", "echo out; exec sleep 1000"])
    async def test_a_connection_that_drops_is_never_an_end(
        self, make_sshd: MakeSshd, here: Here, pool: SshConnectionPool, command: str
    ) -> None:
        sshd = make_sshd()
        here.know(sshd)
        chunks = pool.exec_streaming(here.host(sshd), command)
        await first(chunks)
        sshd.restart()
        with pytest.raises(ConnectionBroken, match="connection closed"):
            await rest(chunks)
        assert await said(pool, here.host(sshd), "echo next") == b"next\n"

    async def test_a_host_that_stops_in_mid_output_has_timed_out(
        self, make_sshd: MakeSshd, here: Here, pool: SshConnectionPool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(connect, "KEEPALIVE_S", 0.2)
        sshd = make_sshd()
        here.know(sshd)
        chunks = pool.exec_streaming(here.host(sshd), "yes")
        await first(chunks)
        sshd.stop_all()
        with pytest.raises(HostTimedOut, match="timed out"):
            await rest(chunks)
        sshd.continue_all()
        assert await said(pool, here.host(sshd), "echo next") == b"next\n"


class TestIdle:
    async def test_a_silent_command_has_a_limit(self, sshd: Sshd, host: Host, pool: SshConnectionPool) -> None:
        with pytest.raises(HostTimedOut, match="timed out"):
            await said(pool, host, "echo out; exec sleep 1000", idle_s=0.3)
        await sshd.wait_until_no_processes(GONE_WITHIN_S)

    @pytest.mark.parametrize("where", ["", " >&2"])
    async def test_a_command_that_keeps_sending_has_none(self, host: Host, pool: SshConnectionPool, where: str) -> None:
        command = f"for i in 1 2 3 4 5 6 7 8; do sleep 0.15; echo {where}; done; echo over"
        assert (await said(pool, host, command, idle_s=0.6)).endswith(b"over\n")


class TestLeaving:
    @pytest.fixture(params=["walker", "root"])
    def account(self, request: pytest.FixtureRequest, sshd: Sshd, here: Here) -> Host:
        here.know(sshd)
        return here.host(sshd, username=sshd.accounts[request.param].name)

    @pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
    async def test_who_leaves_early_leaves_no_process(
        self, sshd: Sshd, account: Host, pool: SshConnectionPool, command: str
    ) -> None:
        async with aclosing(pool.exec_streaming(account, command)) as chunks:
            assert (await first(chunks)).startswith(b"ready\n")
            assert sshd.processes()
        await sshd.wait_until_no_processes(GONE_WITHIN_S)
        assert pool.is_connected(account.id)

    async def test_who_is_cancelled_leaves_no_process(self, sshd: Sshd, account: Host, pool: SshConnectionPool) -> None:
        running = asyncio.create_task(said(pool, account, IGNORES_SIGNALS))
        await eventually(lambda: bool(sshd.processes()), "it runs")
        running.cancel()
        await asyncio.wait([running])
        await sshd.wait_until_no_processes(GONE_WITHIN_S)

    async def test_a_connection_that_is_closed_leaves_no_process(
        self, sshd: Sshd, account: Host, pool: SshConnectionPool
    ) -> None:
        streams = [pool.exec_streaming(account, command) for command in COMMANDS.values()]
        for chunks in streams:
            await first(chunks)
        pool.disconnect(account.id)
        await sshd.wait_until_no_processes(GONE_WITHIN_S)
        for chunks in streams:
            await chunks.aclose()

    async def test_a_killed_sshd_leaves_no_process(
        self, make_sshd: MakeSshd, here: Here, pool: SshConnectionPool
    ) -> None:
        sshd = make_sshd()
        here.know(sshd)
        accounts = [here.host(sshd, id=name, username=name) for name in sshd.accounts]
        streams = [pool.exec_streaming(host, command) for host in accounts for command in COMMANDS.values()]
        for chunks in streams:
            await first(chunks)
        sshd.kill()
        await sshd.wait_until_no_processes(GONE_WITHIN_S)
        for chunks in streams:
            await chunks.aclose()


SHELLS = ["bash", "dash", "tcsh", "fish"]
SHELLS += [name for name in ("zsh", "ksh") if shutil.which(name)]
WORDS = [
    *("", " ", "a b", "it's", "'", "''", '"double"', "$(touch effect)", "`touch effect`", "$HOME", "${HOME}", "~"),
    *("-rf", "--", "*", "?", "[x]", "{a,b}", "a;touch effect", "a&b|c<d>e", "#x", "^x^y", "=ls", "%s", "%1", "a! b"),
    *("\\n", "C:\\x", "\\$", "\t", "é", "日本", "😀", "@x", "(touch effect)", "a=b", "\x01\x7f"),
]


@pytest.fixture(scope="module", params=SHELLS)
def shell(request: pytest.FixtureRequest) -> str:
    return program(request.param)


class TestShells:
    @pytest.fixture
    def shell_host(self, shell: str, shell_hosts: Callable[[str], Sshd]) -> Sshd:
        return shell_hosts(shell)

    async def test_words_reach_the_command_as_they_are_whatever_the_login_shell(
        self, shell_host: Sshd, here: Here, pool: SshConnectionPool
    ) -> None:
        here.know(shell_host)
        for account in shell_host.accounts:
            host = here.host(shell_host, id=account, username=account)
            words = " ".join(map(quoted, WORDS))
            output = await said(pool, host, f"printf '<%s>\\n' {words}")
            assert output.decode() == "".join(f"<{word}>\n" for word in WORDS)
            process = await pool.open(host, f"exec /usr/bin/printf {quoted('<%s>')} {words}")
            output = b""
            while chunk := await process.read():
                output += chunk
            assert output.decode() == "".join(f"<{word}>" for word in WORDS)
            assert not list(shell_host.accounts[account].home.glob("effect"))

    async def test_an_end_and_a_failure_are_told_whatever_the_login_shell(
        self, shell_host: Sshd, here: Here, pool: SshConnectionPool
    ) -> None:
        here.know(shell_host)
        host = here.host(shell_host)
        assert await said(pool, host, "echo $(( 1 + 1 ))") == b"2\n"
        with pytest.raises(RemoteFailed, match=r"status 5: why$"):
            await said(pool, host, "echo why >&2; exit 5")

    async def test_who_leaves_early_leaves_no_process_whatever_the_login_shell(
        self, shell_host: Sshd, here: Here, pool: SshConnectionPool
    ) -> None:
        here.know(shell_host)
        for account in shell_host.accounts:
            host = here.host(shell_host, id=account, username=account)
            for command in COMMANDS.values():
                async with aclosing(pool.exec_streaming(host, command)) as chunks:
                    await first(chunks)
                await shell_host.wait_until_no_processes(GONE_WITHIN_S)


@pytest.fixture(scope="module")
def shell_hosts() -> Iterator[Callable[[str], Sshd]]:
    hosts: dict[str, Sshd] = {}

    def host_with(shell: str) -> Sshd:
        if shell not in hosts:
            hosts[shell] = Sshd(shell=shell, key_types=["ed25519"])
            hosts[shell].__enter__()
        return hosts[shell]

    try:
        yield host_with
    finally:
        for host in hosts.values():
            host.__exit__()


class TestQuoting:
    @settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0\r\n"), max_size=12), max_size=5))
    @example(WORDS)
    def test_any_text_is_one_word_or_is_refused(self, shell: str, here: Here, texts: list[str]) -> None:
        words = []
        for text in texts:
            try:
                words.append((text, quoted(text)))
            except ValueError:
                assert re.search(r"!|\\", text)
        command = "printf '<%s>' x " + " ".join(word for _, word in words)
        ended = subprocess.run(
            [shell, "-c", command], capture_output=True, env={**os.environ, "LC_ALL": "C.UTF-8"}, check=True
        )
        assert ended.stdout.decode() == "<x>" + "".join(f"<{text}>" for text, _ in words)

    @pytest.mark.parametrize("text", ["a\nb", "a\rb", "a\0b", "a\\", "a\\'", "a\\\\b", "a!b", "!!"])
    def test_what_shells_do_not_take_alike_is_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match="quoted"):
            quoted(text)
