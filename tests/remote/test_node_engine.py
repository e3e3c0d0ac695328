"""The modules of the Node engine: what Node makes of them as they are, and the one script that is made of them."""

from __future__ import annotations

import json
import re
import subprocess
from graphlib import CycleError

import pytest

from sidecar.remote.engines import node_script, one_of_modules
from tests.remote.engine import DEADLINE_S, SCRIPTS
from tests.remote.node import node_executable

MODULES = {path.name: path for path in sorted((SCRIPTS / "node").glob("*.mjs"))}
FORM = re.compile(
    r'^(?:import (?:\w+|\{ (?:\w+, )*\w+ \}|\{\n(?:    \w+,\n)+\}) from "(?:node:\w+|\./\w+\.mjs)";\n'
    r"|(?:export )?(?:const|let|class|function\*?) (?:\w+|\[\w+(?:, \w+)*\])(?: =|;| \{| extends |\().*)",
    re.MULTILINE,
)
MAX_LINES = 400


def node(*arguments: str) -> str:
    command = (str(node_executable()), *arguments)
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", MODULES)
def test_a_module_has_the_form_that_the_script_is_made_of(name: str) -> None:
    text = MODULES[name].read_text(encoding="utf-8")
    # No other declaration, import or export, and nothing that runs but what makes a constant.
    left = re.findall(r"^[a-z].*|^ *(?:import|export)\b.*", FORM.sub("", text), re.MULTILINE)
    assert left == (["main();"] if name == "main.mjs" else [])
    assert text.startswith("// ")
    assert text.count("\n") <= MAX_LINES


def test_node_loads_each_module_as_it_is() -> None:
    for path in MODULES.values():
        node("--check", str(path))
    # The main module is what runs when it is loaded, and so is loaded by "node-of-modules" in test_engines.py.
    addresses = [path.as_uri() for name, path in MODULES.items() if name != "main.mjs"]
    code = f"for (const each of {json.dumps(addresses)}) await import(each); console.log(process.argv.length)"
    assert node("--input-type=module", "-e", code) == "1\n"


def test_the_script_is_one_module_that_runs_when_all_is_there() -> None:
    script = node_script().decode()
    assert not re.search(r'^export |from "\./', script, re.MULTILINE)
    assert re.findall(r"^main\(\);\n", script, re.MULTILINE) == ["main();\n"]
    assert script.endswith("\nmain();\n")
    imports = re.findall(r"^import .*$", script, re.MULTILINE)
    assert len(imports) == len(set(imports))
    assert script.startswith("\n".join(imports))


def test_modules_become_one_those_first_that_others_import() -> None:
    imports = 'import fs from "node:fs";\nimport {\n    one,\n    two,\n} from "./b.mjs";\n'
    texts = {
        "a": 'import fs from "node:fs";\nimport { two } from "./b.mjs";\nexport const three = two;\n',
        "main": imports + 'import { three } from "./a.mjs";\nmain();\n',
        "b": "export function* one() {}\nexport class two {}\nconst exported = 2;\n",
    }
    assert one_of_modules(texts) == (
        'import fs from "node:fs";\n'
        "\nfunction* one() {}\nclass two {}\nconst exported = 2;\n"
        "\nconst three = two;\n"
        "\nmain();\n"
    )


def test_modules_that_import_each_other_are_refused() -> None:
    with pytest.raises(CycleError):
        one_of_modules({"a": 'import { b } from "./b.mjs";\n', "b": 'import { a } from "./a.mjs";\n'})


@pytest.mark.parametrize(
    "declaration",
    [
        "const name = 1;",
        "let name;",
        "function name() {}",
        "function* name() {}",
        "class name {}",
        "const [x, name] = y;",
    ],
)
def test_a_name_that_two_modules_declare_is_refused(declaration: str) -> None:
    texts = {"a": "export const name = 1;\n", "main": f"{declaration}\n"}
    with pytest.raises(ValueError, match=r"by more than one module: name$"):
        one_of_modules(texts)
    one_of_modules({**texts, "main": f"    {declaration}\n"})
