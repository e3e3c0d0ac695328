"""The commands about hosts: which there are, and the connections to them.

What does the work is imported when a command first needs it, as in ``session_commands``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sidecar.server.command import Command, Context, Job
from sidecar.stores.locations import expand

if TYPE_CHECKING:
    from sidecar.server.schema import HostIdParams, HostParams, PassphraseParams, TrustParams


def list_ssh_hosts(context: Context, params: None) -> Job:
    from sidecar.remote.hosts import list_hosts

    clawpal_dir = context.clawpal_dir()
    return lambda _token: [host.members() for host in list_hosts(clawpal_dir)]


def upsert_ssh_host(context: Context, params: HostParams) -> Job:
    from sidecar.remote.hosts import upsert_host

    clawpal_dir = context.clawpal_dir()
    host = params.host.ssh_host()
    return lambda _token: upsert_host(clawpal_dir, host).members()


def delete_ssh_host(context: Context, params: HostIdParams) -> Job:
    from sidecar.remote.hosts import delete_host

    clawpal_dir = context.clawpal_dir()
    context.remote.disconnect(params.host_id)
    return lambda _token: delete_host(clawpal_dir, params.host_id)


def suggest_ssh_hosts(context: Context, params: None) -> Job:
    from sidecar.remote.ssh_config import list_ssh_config_hosts

    home = expand("~", context.environ)
    return lambda _token: list_ssh_config_hosts(home)


def connect(context: Context, params: HostIdParams) -> Job:
    return context.remote.connect(context.clawpal_dir(), params.host_id)


def connect_with_passphrase(context: Context, params: PassphraseParams) -> Job:
    return context.remote.connect(context.clawpal_dir(), params.host_id, params.passphrase)


def disconnect(context: Context, params: HostIdParams) -> bool:
    context.remote.disconnect(params.host_id)
    return True


def status(context: Context, params: HostIdParams) -> str:
    return "connected" if context.remote.is_connected(params.host_id) else "disconnected"


def transfer_stats(context: Context, params: HostIdParams) -> dict[str, Any]:
    return context.remote.transfer_stats(params.host_id)


def trust(context: Context, params: TrustParams) -> Job:
    clawpal_dir = context.clawpal_dir()
    return context.remote.job(lambda service: service.trust(clawpal_dir, params.host_id, params.fingerprint))


HOST_COMMANDS: tuple[Command, ...] = (
    Command("list_ssh_hosts", None, "job", list_ssh_hosts, "The hosts over SSH that the app knows."),
    Command("upsert_ssh_host", "HostParams", "job", upsert_ssh_host, "Stores a host, or changes one."),
    Command("delete_ssh_host", "HostIdParams", "job", delete_ssh_host, "Forgets a host."),
    Command("list_ssh_config_hosts", None, "job", suggest_ssh_hosts, "The hosts that ~/.ssh/config names."),
    Command("ssh_connect", "HostIdParams", "job", connect, "Connects to a host.", at_host=True),
    Command(
        "ssh_connect_with_passphrase",
        "PassphraseParams",
        "job",
        connect_with_passphrase,
        "Connects to a host with the passphrase of an encrypted key.",
        at_host=True,
    ),
    Command("ssh_disconnect", "HostIdParams", "value", disconnect, "Closes the connection to a host."),
    Command("ssh_status", "HostIdParams", "value", status, "Whether there is a connection to a host."),
    Command("get_ssh_transfer_stats", "HostIdParams", "value", transfer_stats, "How much went to a host and came."),
    Command("trust_ssh_host_key", "TrustParams", "job", trust, "Trusts the key of a host.", at_host=True),
)
