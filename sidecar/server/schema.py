"""The parameters of each command: camelCase on the wire, unknown keys ignored, no guessing of types."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from types import ModuleType
from typing import Annotated, Any

import msgspec
from pydantic import AfterValidator, BaseModel, ConfigDict, FailFast, Field, ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails

from sidecar.errors import InvalidParams
from sidecar.limits import MAX_PARAM_CHARS
from sidecar.remote.hosts import AuthMethod, SshHost
from sidecar.wire.messages import encode


def _look_for_no_plugins() -> None:
    """Keep pydantic from searching all that is installed for plugins of its own, and from running them.

    It has a variable for that, but imports ``importlib.metadata`` all the same when it builds the first model: some
    15 ms, and 2 MiB. ``tests/e2e/test_start.py`` notices if another pydantic looks elsewhere.
    """
    loader = ModuleType("pydantic.plugin._loader")
    loader.get_plugins = tuple  # type: ignore[attr-defined]
    sys.modules.setdefault(loader.__name__, loader)


_look_for_no_plugins()


class Params(BaseModel):
    """The base of all; the order of the fields is that of parameters by position."""

    model_config = ConfigDict(
        alias_generator=to_camel, extra="ignore", strict=True, frozen=True, hide_input_in_errors=True
    )


def parse(name: str, given: tuple[Any, ...] | dict[str, Any]) -> Params:
    """Parameters by position or by name, as the model called ``name``. ``InvalidParams`` names the fields at fault."""
    try:
        return MODELS[name].model_validate(by_name(name, given))
    except ValidationError as error:
        raise InvalidParams("; ".join(map(_words_of, error.errors()))) from None


def _words_of(problem: ErrorDetails) -> str:
    """The field at fault, and why; pydantic's own words for an object name a class of ours."""
    why = "Input should be an object" if problem["type"] == "model_type" else problem["msg"]
    return f"{'.'.join(map(str, problem['loc']))}: {why}"


def by_name(name: str, given: tuple[Any, ...] | dict[str, Any]) -> dict[str, Any]:
    """Parameters by position or by name as those by name; what there is no name for is left out."""
    if isinstance(given, dict):
        return given
    names = [field.alias or name for name, field in MODELS[name].model_fields.items()]
    return dict(zip(names, given, strict=False))


def _short(text: str) -> str:
    if len(text) > MAX_PARAM_CHARS:
        raise ValueError(f"it is over {MAX_PARAM_CHARS} characters long")
    return text


def _without_nul(path: str) -> str:
    if "\0" in path:
        raise ValueError("a path has no NUL in it")
    return path


# Not by max_length: that would be in the protocol's schema, as if there could be names that long.
Name = Annotated[str, AfterValidator(_short)]
"""What is kept while a command runs, and named in its errors."""

Names = Annotated[list[Name], FailFast()]
"""One error stands for all: millions of them, a line full, would take gigabytes."""

Path = Annotated[Name, AfterValidator(_without_nul)]


class BatchParams(Params):
    batch_size: int | None = None


class BackupParams(Params):
    include_sessions: bool | None = None
    share: bool | None = None


class BackupNameParams(Params):
    backup_name: Name


class RestoreParams(BackupNameParams):
    force: bool | None = None


class DeleteParams(Params):
    agent_id: Name
    session_ids: Names


class PreviewParams(Params):
    agent_id: Name
    session_id: Name


class PreviewStreamParams(PreviewParams):
    page_size: int | None = None


class HostIdParams(Params):
    host_id: Name


class RemoteBatchParams(HostIdParams):
    batch_size: int | None = None


class RemoteBackupParams(HostIdParams):
    include_sessions: bool | None = None
    share: bool | None = None


class RemoteBackupNameParams(HostIdParams):
    backup_name: Name


class RemoteRestoreParams(RemoteBackupNameParams):
    force: bool | None = None


class RemoteDeleteParams(HostIdParams):
    agent_id: Name
    session_ids: Names


class RemotePreviewParams(HostIdParams):
    agent_id: Name
    session_id: Name


class RemotePreviewStreamParams(RemotePreviewParams):
    page_size: int | None = None


class PassphraseParams(HostIdParams):
    passphrase: Name

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        return [("host_id", self.host_id)]


class TrustParams(HostIdParams):
    fingerprint: Name


class HandleParams(Params):
    handle_id: str


class GivenHost(Params):
    """A host as the app sends it, with fields that are not known here.

    Printing one shows no secret.
    """

    model_config = ConfigDict(extra="allow")

    id: str = ""
    label: str
    host: Annotated[str, Field(min_length=1), AfterValidator(_short), AfterValidator(_without_nul)]
    port: Annotated[int, Field(ge=1, le=65_535)]
    username: str
    auth_method: AuthMethod
    key_path: Path | None = None
    password: str | None = None
    passphrase: str | None = None

    def ssh_host(self) -> SshHost:
        """``InvalidParams`` if a field that is not known here is nested deeper than can be written."""
        known = {name: getattr(self, name) for name in GivenHost.model_fields}
        try:
            others = {name: msgspec.Raw(encode(value)) for name, value in (self.model_extra or {}).items()}
        except RecursionError:
            raise InvalidParams("host: nested too deeply") from None
        return SshHost(**known, others=others)

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        return [("id", self.id)]


class HostParams(Params):
    host: GivenHost


class PathParams(Params):
    path: Path | None = None


MODELS: dict[str, type[Params]] = {
    model.__name__: model
    for model in (
        BackupNameParams,
        BackupParams,
        BatchParams,
        DeleteParams,
        HandleParams,
        HostIdParams,
        HostParams,
        PassphraseParams,
        PathParams,
        PreviewParams,
        PreviewStreamParams,
        RemoteBackupNameParams,
        RemoteBackupParams,
        RemoteBatchParams,
        RemoteDeleteParams,
        RemotePreviewParams,
        RemotePreviewStreamParams,
        RemoteRestoreParams,
        RestoreParams,
        TrustParams,
    )
}
