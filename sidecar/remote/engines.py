"""What starts an engine on a host: the text that a command line holds, and the script that it reads from stdin.

A bootstrap stands in single quotes in a command for whatever shell the user has: it holds no single quote, backslash,
exclamation mark (csh) or line feed.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from graphlib import TopologicalSorter
from importlib import resources

# The script becomes a module by way of a data: URL, so that it may have imports without being a file.
NODE_BOOTSTRAP = (
    'const fs=require("fs"),nap=new Int32Array(new SharedArrayBuffer(4));'
    "const read=(size)=>{const all=Buffer.alloc(size);"
    "for(let end=0,count;end<size;end+=count){"
    "try{count=fs.readSync(0,all,end,size-end)}"
    'catch(error){if(error.code==="EAGAIN"){Atomics.wait(nap,0,0,5);count=0;continue}throw error}'
    "if(count<1)process.exit(1)}"
    "return all};"
    'let size="",byte;'
    "while((byte=read(1)[0])>10)size+=String.fromCharCode(byte);"
    'import("data:text/javascript;base64,"+read(Number(size)).toString("base64"))'
)

# A host whose link went dead before there is a lease is left by an alarm, which no handler can be in the way of. What
# has a loop in it can be one line of a program only as a text of its own.
PYTHON_BOOTSTRAP = (
    "import signal,sys;given=sys.stdin.buffer;"
    "read=lambda size:(signal.alarm(20),given.read1(size))[1];"
    "signal.alarm(20);size=int(given.readline());script=bytes();"
    'exec("while len(script)<size: script+=read(size-len(script)) or sys.exit(1)");'
    'exec(compile(script,"engine","exec"))'
)

_NODE_IMPORT = re.compile(r'^import [^;]+ from "(?:node:\w+|\./(?P<module>\w+)\.mjs)";\n', re.MULTILINE)
_NODE_EXPORT = re.compile(r"^export ", re.MULTILINE)
_NODE_NAMES = re.compile(r"^(?:const|let|class|function\*?) (\w+|\[[^\]]+\])", re.MULTILINE)

_PYTHON_PACKAGE = "sidecar.remote.python"
_PYTHON_SCRIPT = """\
import sys
from types import ModuleType
for name, source in {sources!r}.items():
    module = sys.modules[name] = ModuleType(name)
    exec(compile(source, name, "exec"), vars(module))
sys.modules["{package}.main"].main(sys.modules["{package}.{operations}"].OPS)
"""


@cache
def python_script() -> bytes:
    """The Python engine that reads sessions, as one script."""
    return _python_script("operations")


@cache
def python_backup_script() -> bytes:
    """The Python engine that does what ``sidecar/backup`` does, and has all of that in it."""
    return _python_script("backup_operations")


def _python_script(operations: str) -> bytes:
    """The text of each module that the engine with these operations needs, those first that others import."""
    texts: dict[str, str] = {}
    needed: dict[str, list[str]] = {}
    wanted = [f"{_PYTHON_PACKAGE}.main", f"{_PYTHON_PACKAGE}.{operations}"]
    while wanted:
        name = wanted.pop()
        if name not in texts:
            text = _python_module(name)
            assert text is not None, name
            texts[name], needed[name] = text, list(_imported_by(text))
            wanted += needed[name]
    # What imports find in place of the packages, none of which is on the host.
    parents = {".".join(name.split(".")[:depth]) for name in texts for depth in range(1, name.count(".") + 1)}
    order = TopologicalSorter({name: needed[name] for name in sorted(needed)}).static_order()
    sources = dict.fromkeys(sorted(parents), "") | {name: texts[name] for name in order}
    return _PYTHON_SCRIPT.format(sources=sources, package=_PYTHON_PACKAGE, operations=operations).encode()


def _python_module(name: str) -> str | None:
    """The text of a module of this project; ``None`` if there is no such module."""
    _, *folders, last = name.split(".")
    file = resources.files("sidecar").joinpath(*folders, f"{last}.py")
    return file.read_text(encoding="utf-8") if file.is_file() else None


def _imported_by(text: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("sidecar."):
            if _python_module(node.module) is not None:
                yield node.module
            else:
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


@cache
def node_script() -> bytes:
    """The Node engine that reads sessions, as one script."""
    return one_of_modules(_node_modules("node")).encode()


@cache
def node_backup_script() -> bytes:
    """The Node engine that does what ``sidecar/backup`` does, as one script."""
    # What it does takes the place of what is done about sessions, of which it needs little.
    texts = _node_modules("node") | _node_modules("node_backup")
    needed: dict[str, str] = {}
    wanted = ["main"]
    while wanted:
        name = wanted.pop()
        if name not in needed:
            needed[name] = texts[name]
            wanted += (found["module"] for found in _NODE_IMPORT.finditer(texts[name]) if found["module"])
    return one_of_modules(needed).encode()


def _node_modules(folder: str) -> dict[str, str]:
    files = resources.files("sidecar.remote").joinpath(folder).iterdir()
    return {file.name[:-4]: file.read_text(encoding="utf-8") for file in files if file.name.endswith(".mjs")}


def one_of_modules(texts: Mapping[str, str]) -> str:
    """The text of one module of Node that does what these do, by their names; those first that others import.

    They share one scope then: ``ValueError`` if two of them declare the same name.
    """
    imports = {name: list(_NODE_IMPORT.finditer(texts[name])) for name in sorted(texts)}
    built_in = {found[0] for each in imports.values() for found in each if not found["module"]}
    needed = {name: [found["module"] for found in each if found["module"]] for name, each in imports.items()}
    order = TopologicalSorter(needed).static_order()
    bodies = [_NODE_EXPORT.sub("", _NODE_IMPORT.sub("", texts[name])) for name in order]
    names = Counter(re.findall(r"\w+", " ".join(found for body in bodies for found in _NODE_NAMES.findall(body))))
    if twice := [name for name, count in names.items() if count > 1]:
        raise ValueError(f"declared by more than one module: {', '.join(twice)}")
    return "".join(sorted(built_in)) + "".join(f"\n{body}" for body in bodies)
