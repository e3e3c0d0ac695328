"""The command line: ``clawpal-sidecar``, or ``python -m sidecar``."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
import time

from sidecar import PROTOCOL_VERSION, __version__
from sidecar.limits import THREADS_END_S

_EPILOG = """\
Reads JSON-RPC 2.0 requests from stdin, one object a line, and writes replies and notifications to stdout.
Ends when stdin ends and all is answered. Try:

  printf '{"jsonrpc":"2.0","id":1,"method":"analyze_sessions_stream"}\\n' | clawpal-sidecar
"""


def main() -> None:
    """Parse the arguments, send logs to stderr, serve."""
    parser = argparse.ArgumentParser(
        prog="clawpal-sidecar",
        description="Streams OpenClaw sessions to a desktop app.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__} (protocol {PROTOCOL_VERSION})")
    parser.add_argument(
        "--log-level",
        default="warning",
        choices=("debug", "info", "warning", "error"),
        help="what goes to stderr (default: warning)",
    )
    parser.add_argument(
        "--no-share",
        action="store_true",
        help="copy files into a backup that have not changed since the last one, rather than share them with it",
    )
    parser.add_argument(
        "--no-index",
        action="store_true",
        help="count every transcript anew in each analysis, and remember nothing of it below the ClawPal directory",
    )
    tools = parser.add_subparsers(title="for authors of clients", dest="tool", metavar="[record | replay]")
    for tool, does in (
        ("record", "serve, and write the conversation into FILE, which is made"),
        ("replay", "play the sidecar's side of the transcript FILE; exit with 1 if the client says something else"),
    ):
        tools.add_parser(tool, help=does, description=does.capitalize()).add_argument("file", metavar="FILE")
    arguments = parser.parse_args()
    logging.basicConfig(
        stream=sys.stderr, level=arguments.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    # Until the server has its own, a signal ends a process that has begun nothing.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))
    if arguments.tool is not None:
        sys.exit(_run_tool(arguments))
    # What follows imports the whole server: not for --help.
    from sidecar.server.command import Options
    from sidecar.server.stdio import serve_stdio

    exit_code = serve_stdio(Options(share=not arguments.no_share, index=not arguments.no_index))
    if not _threads_ended():
        # One hangs in a read or a write that may never end, and the interpreter would wait for it.
        logging.shutdown()
        os._exit(exit_code)
    sys.exit(exit_code)


def _run_tool(arguments: argparse.Namespace) -> int:
    """Record or replay; the exit code, which is 2 where the file is at fault."""
    # Not with the other imports: who serves needs none of these.
    from pathlib import Path

    file = Path(arguments.file)
    try:
        if arguments.tool == "replay":
            from sidecar.transcripts.peer import play

            return play(file)
        from sidecar.transcripts.recorder import record

        # A frozen sidecar is its own executable.
        own = [sys.executable] if getattr(sys, "frozen", False) else [sys.executable, "-m", "sidecar"]
        flags = {"--no-share": arguments.no_share, "--no-index": arguments.no_index}
        given = [flag for flag, is_given in flags.items() if is_given]
        return record(file, [*own, "--log-level", arguments.log_level, *given])
    except (OSError, ValueError) as error:
        sys.stderr.write(f"clawpal-sidecar {arguments.tool}: {error}\n")
        return 2


def _threads_ended() -> bool:
    """Wait a moment for the worker threads; False if one is still at work."""
    deadline_s = time.monotonic() + THREADS_END_S
    for thread in threading.enumerate():
        if not thread.daemon and thread is not threading.current_thread():
            thread.join(max(0.0, deadline_s - time.monotonic()))
            if thread.is_alive():
                return False
    return True


if __name__ == "__main__":
    main()
