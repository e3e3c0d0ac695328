"""jsonrpcserver's dispatcher, without the rest of that package, which nothing here asks for.

Importing jsonrpcserver 5 imports an HTTP server, and jsonschema, with which it compiles the schema of a request;
oslash, which it builds on, brings ten monads beside the one that it uses. That takes 70 ms and 7 MiB, and what is
needed of it 5 ms and a quarter of a MiB. So while that is imported, the packages around it are empty.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec, module_from_spec


@contextmanager
def _empty(*packages: str) -> Iterator[None]:
    """Have imports find the modules of ``packages``, but not run what the packages themselves import.

    Those that were imported before stay as they are, and the others can be imported whole later on.
    """
    added: list[str] = []
    for package in packages:
        if package not in sys.modules and (spec := find_spec(package)):
            sys.modules[package] = module_from_spec(spec)
            added.append(package)
    try:
        yield
    finally:
        for package in added:
            del sys.modules[package]


with _empty("jsonrpcserver", "oslash"):
    from jsonrpcserver.dispatcher import dispatch_to_response_pure
    from jsonrpcserver.result import Error, Result, Success
    from oslash.either import Left

__all__ = ["Error", "Left", "Result", "Success", "dispatch_to_response_pure"]
