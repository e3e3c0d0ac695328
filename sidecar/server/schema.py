"""The parameters of each command: camelCase on the wire, unknown keys ignored, no guessing of types."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from sidecar.errors import InvalidParams


class Params(BaseModel):
    """The base of all; the order of the fields is that of parameters by position."""

    model_config = ConfigDict(alias_generator=to_camel, extra="ignore", strict=True, frozen=True)


def parse(name: str, given: tuple[Any, ...] | dict[str, Any]) -> Params:
    """Parameters by position or by name, as the model called ``name``. ``InvalidParams`` names the fields at fault."""
    model = MODELS[name]
    if isinstance(given, tuple):
        names = [field.alias or name for name, field in model.model_fields.items()]
        given = dict(zip(names, given, strict=False))
    try:
        return model.model_validate(given)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()]
        raise InvalidParams("; ".join(problems)) from None


def _without_nul(path: str) -> str:
    if "\0" in path:
        raise ValueError("a path has no NUL in it")
    return path


Path = Annotated[str, AfterValidator(_without_nul)]


class BatchParams(Params):
    batch_size: int | None = None


class DeleteParams(Params):
    agent_id: str
    session_ids: list[str]


class PreviewParams(Params):
    agent_id: str
    session_id: str


class PreviewStreamParams(PreviewParams):
    page_size: int | None = None


class HandleParams(Params):
    handle_id: str


class PathParams(Params):
    path: Path | None = None


MODELS: dict[str, type[Params]] = {
    model.__name__: model
    for model in (BatchParams, DeleteParams, HandleParams, PathParams, PreviewParams, PreviewStreamParams)
}
