"""The hosts of these tests are what they say: real logins, and nothing that outlives them."""

from __future__ import annotations

import subprocess

from tests.remote.sshd import Sshd


def said(host: Sshd, command: str, user: str | None = None) -> str:
    ended = subprocess.run(host.ssh_command(command, user=user), capture_output=True, text=True, timeout=20, check=True)
    return ended.stdout.strip()


class TestLogins:
    def test_an_ordinary_user_and_root_log_in_with_homes_of_their_own(self, sshd: Sshd) -> None:
        for account in (sshd.walker, sshd.root):
            assert said(sshd, 'id -u; echo ~; echo "$HOME"; pwd', account.name).splitlines() == [
                str(account.uid),
                *[str(account.home)] * 3,
            ]
