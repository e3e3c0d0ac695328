"""``python -m sidecar.demo``: the sidecar's main job, shown in a terminal as an app would use it."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from sidecar.demo.client import ClientError, Sidecar
from sidecar.demo.eras import write_both_eras
from sidecar.demo.progress import AnalysisProgress, PreviewProgress
from sidecar.stores.locations import ActivePaths

try:
    from sidecar.demo import parts
    from sidecar.demo.screen import Screen
except ModuleNotFoundError as error:
    if not (error.name or "").startswith("rich"):
        raise
    sys.exit("demo: it needs rich: pip install 'clawpal-sidecar[demo]'")
except KeyboardInterrupt:
    sys.exit(130)

_SAMPLE = Path(".demo", "both-eras")
_CANCEL_BATCH_SESSIONS = 10


class UnusablePath(Exception):
    """There is no OpenClaw data where the user says."""


def main() -> int:
    """Parse the arguments, run the demo, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m sidecar.demo",
        description="Streams an analysis of OpenClaw sessions, previews one, and cancels another.",
    )
    parser.add_argument(
        "home_dir",
        nargs="?",
        metavar="HOME_DIR",
        help="an OpenClaw directory, or a home that holds .openclaw; nothing is written there (default: sample data)",
    )
    parser.add_argument("--save-picture", metavar="FILE.svg", help="write what was shown as an SVG, too")
    arguments = parser.parse_args()
    try:
        return run(arguments.home_dir, arguments.save_picture)
    except UnusablePath as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    except (ClientError, OSError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: interrupted", file=sys.stderr)
        return 130


def run(home_dir: str | None, picture: str | None) -> int:
    """Show everything, from top to bottom."""
    display = Screen()
    environ = dict(os.environ)
    # It would win over OPENCLAW_HOME.
    environ.pop("CLAWPAL_OPENCLAW_DIR", None)
    environ["OPENCLAW_HOME"] = sample_home(display) if home_dir is None else existing_home(home_dir)
    openclaw_dir = ActivePaths().openclaw_dir(environ)
    if not os.path.isdir(os.path.join(openclaw_dir, "agents")):
        raise UnusablePath(f"no agents folder in {openclaw_dir}")
    if home_dir is not None:
        display.show(f"OpenClaw data: {parts.printable(parts.shown_path(openclaw_dir))}, only read")

    started_s = time.perf_counter()
    # Without an index: what is shown is how it reads, each time.
    with Sidecar(environ, "--no-index") as sidecar:
        sidecar.call("ping")
        start_ms = (time.perf_counter() - started_s) * 1000
        # As an app does first. The sidecar loads what its first reply doesn't need later; this one waits for it.
        sidecar.call("set_active_clawpal_data_dir", path=None)
        idle = sidecar.call("get_sidecar_info")
        display.show(f"Sidecar {idle['version']}: process {idle['pid']}, answered {start_ms:.0f} ms after its start")
        analysis = analyse(sidecar, display)
        preview_latest(sidecar, display, analysis)
        cancel_halfway(sidecar, display, analysis.total().sessions)
        display.show(parts.totals(analysis), parts.memory_line(idle, sidecar.call("get_sidecar_info")))
    display.show(parts.what_next(openclaw_dir))
    if picture is not None:
        display.save_picture(picture)
    return 0


def analyse(sidecar: Sidecar, display: Screen) -> AnalysisProgress:
    """Stream a whole analysis."""
    display.show(parts.heading("1. Stream an analysis", "analyze_sessions_stream"))
    progress = AnalysisProgress()
    resident_bytes: int | None = None
    with display.live(lambda: parts.analysis_so_far(progress, resident_bytes)):
        for notification in sidecar.stream(sidecar.call("analyze_sessions_stream")):
            progress.take(notification)
        resident_bytes = sidecar.call("get_sidecar_info")["memory"]["residentBytes"]
    raise_error(progress)
    display.show(parts.analysis_summary(progress))
    return progress


def preview_latest(sidecar: Sidecar, display: Screen, analysis: AnalysisProgress) -> None:
    """Stream the messages of the latest session in a database; without one, of the latest anywhere else."""
    display.show(parts.heading("2. Preview a session", "preview_session_stream"))
    place = next((place for place in ("sqlite", "jsonl", "archive") if place in analysis.latest), None)
    if place is None:
        display.show("There is nothing to preview.")
        return
    latest = analysis.latest[place]
    display.show(parts.preview_source(latest, place))
    progress = PreviewProgress(parts.SHOWN_MESSAGES)
    handle_id = sidecar.call("preview_session_stream", agentId=latest.agent, sessionId=latest.session_id)
    for notification in sidecar.stream(handle_id):
        progress.take(notification)
    display.show(parts.preview(progress))


def cancel_halfway(sidecar: Sidecar, display: Screen, expected: int) -> None:
    """Stream the analysis again in small chunks, and stop when half of the ``expected`` sessions are there."""
    display.show(parts.heading("3. Cancel an analysis halfway", "cancel_stream"))
    if not expected:
        display.show("There is nothing to cancel.")
        return
    batch_size = max(1, min(_CANCEL_BATCH_SESSIONS, expected // 20))
    progress = AnalysisProgress()
    at_cancel, cancelled_ms = 0, None
    with display.live(lambda: parts.cancel_so_far(progress, expected)):
        handle_id = sidecar.call("analyze_sessions_stream", batchSize=batch_size)
        for notification in sidecar.stream(handle_id):
            progress.take(notification)
            arrived = progress.total().sessions
            if cancelled_ms is None and progress.ended_ms is None and arrived * 2 >= expected:
                at_cancel, cancelled_ms = arrived, progress.elapsed_ms
                sidecar.call("cancel_stream", handleId=handle_id)
    raise_error(progress)
    display.show(parts.cancel_summary(progress, expected, at_cancel, cancelled_ms))


def raise_error(progress: AnalysisProgress) -> None:
    """``ClientError`` if the stream ended with ``sessions:error``."""
    if progress.error is not None:
        raise ClientError(f"the analysis failed: {parts.printable(progress.error)}")


def existing_home(home_dir: str) -> str:
    """``home_dir``, absolute. ``UnusablePath`` if it is no folder."""
    home = os.path.expanduser(home_dir)
    if not os.path.isdir(home):
        raise UnusablePath(f"no such folder: {home_dir}")
    return os.path.abspath(home)


def sample_home(display: Screen) -> str:
    """The folder of the sample data, written if it is not there yet. Never half of it: it gets its name at the end."""
    name = parts.shown_path(str(_SAMPLE))
    if _SAMPLE.is_dir():
        display.show(f"Sample data: {name}, written by an earlier run")
        return str(_SAMPLE.absolute())
    _SAMPLE.parent.mkdir(exist_ok=True)
    started_s = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=_SAMPLE.parent, prefix="unfinished-") as unfinished:
        written = Path(unfinished, _SAMPLE.name)
        with display.busy(f"Writing sample data to {name}"):
            write_both_eras(written, now_ms=time.time_ns() // 1_000_000)
        written.rename(_SAMPLE)
    display.show(f"Sample data: {name}, written in {time.perf_counter() - started_s:.1f} s")
    return str(_SAMPLE.absolute())


if __name__ == "__main__":
    sys.exit(main())
