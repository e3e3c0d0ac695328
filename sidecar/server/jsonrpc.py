"""jsonrpcserver, without the validator that it loads and that is never asked here.

Importing jsonrpcserver 5 imports jsonschema and compiles a schema of a request with it: 4 MiB, and a third of the time
to the first reply. ``wire.messages`` has validated every request, so the import finds a placeholder.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _NoValidator:
    """Has what jsonrpcserver's import touches of a jsonschema validator, and can validate nothing."""

    validate = None

    def __init__(self, schema: Any) -> None:
        pass

    @staticmethod
    def check_schema(schema: Any) -> None:
        pass


def _import_without_jsonschema() -> None:
    names = ("jsonschema", "jsonschema.validators")
    if any(name in sys.modules for name in names):
        return
    placeholders = [ModuleType(name) for name in names]
    placeholders[1].validator_for = lambda _schema: _NoValidator  # type: ignore[attr-defined]
    sys.modules.update(zip(names, placeholders, strict=True))
    try:
        import jsonrpcserver  # noqa: F401
    finally:
        for name in names:
            del sys.modules[name]


_import_without_jsonschema()

from jsonrpcserver import Error, Result, Success, dispatch_to_response  # noqa: E402

__all__ = ["Error", "Result", "Success", "dispatch_to_response"]
