"""Imports go one way only (ARCHITECTURE section 1), and none asks for what not every system or every start has."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "sidecar"
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}

BOTTOM = {"errors", "limits", "cancel", "text"}
# What each part may import of the package, beside itself; "sidecar" is what __init__ holds, the version.
ALLOWED = {
    "sidecar": set[str](),
    "errors": set[str](),
    "limits": set[str](),
    "cancel": {"errors"},
    "text": set[str](),
    "wire": {"errors", "limits", "text"},
    "core": BOTTOM,
    "stores": BOTTOM | {"core", "sidecar"},
    "backup": BOTTOM | {"stores"},
    "remote": BOTTOM | {"core", "stores", "backup"},
    "streams": BOTTOM | {"core", "stores", "remote", "backup"},
    "server": BOTTOM | {"wire", "core", "stores", "remote", "backup", "streams", "sidecar"},
    # Tools for authors of clients.
    "transcripts": BOTTOM | {"wire", "stores", "server", "sidecar"},
    "__main__": {"limits", "server", "transcripts", "sidecar"},
    # An app of its own, which nothing imports.
    "demo": BOTTOM | {"core", "stores", "sidecar"},
}
# Third-party packages, and the only parts that may import them.
ONLY = {
    "asyncssh": {"remote"},
    "jsonrpcserver": {"server"},
    "pydantic": {"server"},
    "oslash": {"server"},
    "orjson": {"wire"},
    "rich": {"demo"},
}
ENGINE = "sidecar.remote.python"  # what runs on hosts, sent there as text
NOT_ON_WINDOWS = ("fcntl", "pwd", "resource", "grp", "termios")


def part_of(module: str) -> str:
    """The part of the package that a module belongs to: its folder, or itself."""
    return module.split(".")[1] if "." in module else module


def imports_of(path: Path, *, at_top: bool = False) -> Iterator[str]:
    """The modules that a file imports, spelled out; with ``at_top``, only those that importing it imports."""
    nodes: list[ast.AST] = [ast.parse(path.read_bytes())]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports name the package in full"
            assert node.module is not None
            # "from sidecar.core import x" may import the module sidecar.core.x.
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in MODULES else node.module for name in names)
        if not (at_top and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)):
            nodes += ast.iter_child_nodes(node)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_from_the_layers_below_it(module: str) -> None:
    part = part_of(module)
    imported = {part_of(name) for name in imports_of(MODULES[module]) if name.split(".")[0] == "sidecar"}
    assert imported <= ALLOWED[part] | {part}


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_the_packages_that_its_part_may(module: str) -> None:
    imported = {name.split(".")[0] for name in imports_of(MODULES[module])}
    assert not {package for package in imported if part_of(module) not in ONLY.get(package, {part_of(module)})}


def sent_to_hosts() -> set[str]:
    """The modules of the engine for Python, and all that they import of the package."""
    sent: set[str] = set()
    wanted = {module for module in MODULES if module.startswith(f"{ENGINE}.")}
    while wanted:
        sent |= wanted
        wanted = {name for module in wanted for name in imports_of(MODULES[module]) if name in MODULES} - sent
    return sent


def test_what_is_sent_to_hosts_imports_only_what_every_python_has() -> None:
    sent = sent_to_hosts()
    assert {"sidecar.remote.python.main", "sidecar.backup.snapshot"} <= sent
    for module in sent:
        others = {name for name in set(imports_of(MODULES[module])) - sent if not is_of_python(name)}
        assert others <= ({"compression", "zstandard"} if module == f"{ENGINE}.zstd" else set()), module


def is_of_python(name: str) -> bool:
    return name.split(".")[0] in sys.stdlib_module_names


def test_nothing_but_the_engine_imports_the_engine() -> None:
    engine = {module for module in MODULES if module.startswith(f"{ENGINE}.")}
    assert engine
    assert not {module for module in MODULES.keys() - engine if set(imports_of(MODULES[module])) & (engine | {ENGINE})}


@pytest.mark.parametrize("module", sorted(sent_to_hosts()))
def test_what_is_sent_to_hosts_is_text_that_python_3_8_reads(module: str) -> None:
    ast.parse(MODULES[module].read_bytes(), feature_version=(3, 8))


def test_every_part_of_the_package_has_its_place_in_the_layers() -> None:
    assert {part_of(module) for module in MODULES} <= set(ALLOWED)


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_module_can_be_imported_without_the_modules_that_windows_lacks() -> None:
    # Only for the package: Python's own modules and others bring what they need for the system at hand.
    code = f"""
import builtins, importlib
original = builtins.__import__
def guarded(name, globals=None, locals=None, fromlist=(), level=0):
    if name in {NOT_ON_WINDOWS!r} and (globals or {{}}).get("__name__", "").startswith("sidecar"):
        raise ModuleNotFoundError(f"No module named {{name!r}}")
    return original(name, globals, locals, fromlist, level)
builtins.__import__ = guarded
for module in {list(MODULES)!r}:
    importlib.import_module(module)
print("imported", len({list(MODULES)!r}))
"""
    assert run(code).split() == ["imported", str(len(MODULES))]


def test_the_server_starts_without_what_only_some_commands_or_the_tests_need() -> None:
    loaded = set(run("import sidecar.server.stdio, sys; print(*sys.modules)").split())
    assert "sidecar.server.stdio" in loaded
    assert not loaded & {"asyncssh", "cryptography", "hypothesis", "rich", "pytest", "sidecar.demo"}


@pytest.mark.parametrize("module", ["hosts", "ssh_config"])
def test_the_lists_of_hosts_are_read_without_asyncssh(module: str) -> None:
    loaded = set(run(f"import sidecar.remote.{module}, sys; print(*sys.modules)").split())
    assert f"sidecar.remote.{module}" in loaded
    assert not loaded & {"asyncssh", "cryptography"}
