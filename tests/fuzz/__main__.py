"""Coverage-guided fuzzing with atheris of what takes bytes from outside: ``python -m tests.fuzz``.

Each target runs in a process of its own. An input that breaks one is printed and kept, and the run ends with 1.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.fuzz.seeds import DICTIONARY, SEEDS

MAX_INPUT_BYTES = 4_096


def fuzz(target: str, seconds: int, folder: Path) -> None:
    """Never returns: the process ends with the last run."""
    import atheris

    # What is imported in here reports to the fuzzer which branches were taken.
    with atheris.instrument_imports(include=["sidecar"]):
        from tests.fuzz.targets import TARGETS

    corpus, home = folder / "corpus", folder / "home"
    corpus.mkdir()
    home.mkdir()
    for number, seed in enumerate(SEEDS[target]):
        (corpus / str(number)).write_bytes(seed)
    words = folder / "words"
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in DICTIONARY if word))
    for name in list(os.environ):
        if name.startswith(("OPENCLAW", "CLAWPAL")):
            del os.environ[name]
    os.environ["HOME"] = str(home)
    options = [
        f"-max_total_time={seconds}",
        f"-max_len={MAX_INPUT_BYTES}",
        f"-dict={words}",
        f"-artifact_prefix={Path.cwd()}/fuzz-{target}-",
        "-timeout=30",
        "-print_final_stats=1",
        "-verbosity=0",
    ]
    atheris.Setup([sys.argv[0], *options, str(corpus)], TARGETS[target])
    atheris.Fuzz()


def _escaped(word: bytes) -> str:
    """As libFuzzer's dictionaries spell bytes."""
    return "".join(f"\\x{byte:02x}" for byte in word)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(SEEDS)} (default: all)")
    parser.add_argument("--seconds", type=int, default=300, help="for each target (default: 300)")
    parser.add_argument("--here", help=argparse.SUPPRESS)  # the folder of a process that fuzzes one target
    arguments = parser.parse_args()
    if unknown := set(arguments.targets) - SEEDS.keys():
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    if arguments.here:
        fuzz(arguments.targets[0], arguments.seconds, Path(arguments.here))
    broken = []
    for target in arguments.targets or SEEDS:
        print(f"== {target}", flush=True)
        with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
            command = [sys.executable, "-m", "tests.fuzz", target, f"--seconds={arguments.seconds}", f"--here={folder}"]
            if subprocess.run(command, check=False).returncode != 0:
                broken.append(target)
    print(f"broken: {', '.join(broken)}" if broken else "nothing is broken")
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
