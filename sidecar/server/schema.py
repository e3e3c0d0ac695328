"""The parameters of each command: camelCase on the wire, unknown keys ignored, no guessing of types."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class Params(BaseModel):
    """No parameters; the base of those that have some, whose fields' order is that of parameters by position."""

    model_config = ConfigDict(alias_generator=to_camel, extra="ignore", strict=True, frozen=True)


def _without_nul(path: str) -> str:
    if "\0" in path:
        raise ValueError("a path has no NUL in it")
    return path


Path = Annotated[str, AfterValidator(_without_nul)]


class BatchParams(Params):
    batch_size: int | None = None


class HandleParams(Params):
    handle_id: str


class PathParams(Params):
    path: Path | None = None
