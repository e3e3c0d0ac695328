"""What the README tells a newcomer to type works."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.remote.sshd import Sshd

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder in which ``.venv/bin/clawpal-sidecar`` is the one under test, as after the README's first command."""
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "bin").symlink_to(Path(sys.executable).parent)
    return tmp_path


def test_each_scripted_example_prints_a_whole_stream_and_exits_with_0(checkout: Path, sample_home: Path) -> None:
    examples = re.findall(r"^printf .*$", README, re.MULTILINE)
    assert examples
    for example in examples:
        environ = {**os.environ, "CLAWPAL_OPENCLAW_DIR": str(sample_home / ".openclaw")}
        ran = subprocess.run(["bash", "-c", example], cwd=checkout, env=environ, capture_output=True, check=True)
        handle, *notifications = [json.loads(line) for line in ran.stdout.splitlines()]
        assert {note["params"]["handleId"] for note in notifications} == {handle["result"]}
        assert notifications[-1]["method"] == "sessions:done"
        assert notifications[-1]["params"]["totalSessions"] == 60


def test_a_backup_is_made_checked_and_restored(checkout: Path, sample_home: Path) -> None:
    text = README.partition("\n## Backups\n")[2].partition("\n## ")[0]
    environ = {**os.environ, "HOME": str(checkout), "CLAWPAL_OPENCLAW_DIR": str(sample_home / ".openclaw")}
    made_by, checked_by = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)

    def ask(script: str) -> list[Any]:
        ran = subprocess.run(["bash", "-ec", script], cwd=checkout, env=environ, capture_output=True, check=True)
        return [json.loads(line) for line in ran.stdout.splitlines()]

    (made,) = ask(made_by)
    (shown,) = [json.loads(line) for line in re.findall(r"^\{.*\}$", text, re.MULTILINE)]
    assert made["result"].keys() == shown["result"].keys()
    assert made["result"]["status"] == "complete"
    shown_name = shown["result"]["name"]
    assert checked_by.count(shown_name) == 2
    define_ask, _, _ = made_by.partition("\n")
    *_, verified, restored = ask(f"{define_ask}\n{checked_by.replace(shown_name, made['result']['name'])}")
    assert verified["method"] == "verify:done"
    assert restored["result"] == f"Restored from backup '{made['result']['name']}'"


def test_the_way_to_a_host_leads_to_its_sessions(checkout: Path, sample_home: Path) -> None:
    text = README.partition("\n## Hosts over SSH\n")[2].partition("\n## ")[0]
    with Sshd() as host:
        shutil.copytree(sample_home / ".openclaw", host.home / ".openclaw")
        host.account.own(host.home / ".openclaw")
        # What a newcomer puts in.
        for example, own in {
            "lab.example.org": host.host,
            '"port":22': f'"port":{host.port}',
            '"username":"me"': f'"username":"{host.user}"',
            "~/.ssh/id_ed25519": str(host.client_key),
            "SHA256:…": host.fingerprints["ssh-ed25519"],
        }.items():
            assert example in text
            text = text.replace(example, own)
        script = "".join(re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
        environ = {**os.environ, "HOME": str(checkout), "TMPDIR": str(checkout), "SSH_AUTH_SOCK": ""}
        ran = subprocess.run(["bash", "-ec", script], cwd=checkout, env=environ, capture_output=True, check=True)

    stored, refused, trusted, handle, *notifications = [json.loads(line) for line in ran.stdout.splitlines()]
    assert stored["result"]["id"] == "ssh:lab"
    assert [refused] == [json.loads(line) for line in re.findall(r"^\{.*\}$", text, re.MULTILINE)]
    assert trusted["result"] is True
    assert notifications[-1]["method"] == "sessions:done"
    assert notifications[-1]["params"]["handleId"] == handle["result"]
    assert notifications[-1]["params"]["totalSessions"] == 60


def test_its_commands_are_targets_of_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = set(re.findall(r"\bmake ([a-z-]+)", README))
    assert {"demo", "test", "bench"} <= named
    for target in named:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_each_file_that_it_links_exists() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if not link.startswith("http")]
    assert links
    assert all((ROOT / link).exists() for link in links)
