"""Where the directories are, by what the app chose and what the environment says (CONTRACT section 5)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sidecar.errors import HomeUnknown
from sidecar.stores.locations import ActivePaths, AgentFolder, expand, list_agents

HOME = {"HOME": "/home/u"}
EVERYTHING = HOME | {
    "CLAWPAL_OPENCLAW_DIR": "/by/clawpal",
    "OPENCLAW_HOME": "/by/home",
    "OPENCLAW_STATE_DIR": "/by/state",
    "CLAWPAL_DATA_DIR": "/by/data",
}


def without(*names: str) -> dict[str, str]:
    return {name: value for name, value in EVERYTHING.items() if name not in names}


@pytest.mark.parametrize(
    ("environ", "openclaw_dir"),
    [
        (EVERYTHING, "/by/clawpal"),
        (without("CLAWPAL_OPENCLAW_DIR"), "/by/home"),
        (without("CLAWPAL_OPENCLAW_DIR", "OPENCLAW_HOME"), "/by/state"),
        (without("CLAWPAL_OPENCLAW_DIR", "OPENCLAW_HOME", "OPENCLAW_STATE_DIR"), "/home/u/.openclaw"),
        (EVERYTHING | {"CLAWPAL_OPENCLAW_DIR": ""}, "/by/home"),
        (EVERYTHING | {"CLAWPAL_OPENCLAW_DIR": "", "OPENCLAW_HOME": ""}, "/by/state"),
        (
            EVERYTHING | {"CLAWPAL_OPENCLAW_DIR": "", "OPENCLAW_HOME": "", "OPENCLAW_STATE_DIR": ""},
            "/home/u/.openclaw",
        ),
        (HOME | {"CLAWPAL_OPENCLAW_DIR": "~/claw"}, "/home/u/claw"),
        (HOME | {"OPENCLAW_HOME": "~/claw"}, "/home/u/claw"),
        (HOME | {"OPENCLAW_STATE_DIR": "~/claw"}, "/home/u/claw"),
        (HOME | {"OPENCLAW_STATE_DIR": "/a/../b/"}, "/b"),
    ],
)
def test_the_openclaw_directory_is_the_first_that_the_environment_names(
    environ: dict[str, str], openclaw_dir: str
) -> None:
    assert ActivePaths().openclaw_dir(environ) == openclaw_dir


def test_the_directory_that_the_app_chose_comes_before_the_environment() -> None:
    paths = ActivePaths(openclaw_home="/chosen", clawpal_data_dir="/chosen data")
    assert paths.openclaw_dir(EVERYTHING) == "/chosen/.openclaw"
    assert paths.clawpal_dir(EVERYTHING) == "/chosen data"


def test_a_choice_taken_back_leaves_it_to_the_environment_again() -> None:
    paths = ActivePaths(openclaw_home="/chosen", clawpal_data_dir="/chosen data")
    paths.openclaw_home = paths.clawpal_data_dir = None
    assert paths.openclaw_dir(EVERYTHING) == "/by/clawpal"
    assert paths.clawpal_dir(EVERYTHING) == "/by/data"


@pytest.mark.parametrize("held", ["openclaw.json", "agents"])
def test_openclaw_home_is_the_parent_of_the_directory_if_a_state_directory_lies_in_it(
    tmp_path: Path, held: str
) -> None:
    (tmp_path / ".openclaw" / held).mkdir(parents=True)
    assert ActivePaths().openclaw_dir(HOME | {"OPENCLAW_HOME": str(tmp_path)}) == str(tmp_path / ".openclaw")


def test_openclaw_home_is_the_directory_itself_if_its_dot_openclaw_holds_nothing_of_openclaw(tmp_path: Path) -> None:
    (tmp_path / ".openclaw" / "workspace").mkdir(parents=True)
    (tmp_path / "agents").mkdir()
    assert ActivePaths().openclaw_dir(HOME | {"OPENCLAW_HOME": str(tmp_path)}) == str(tmp_path)


@pytest.mark.parametrize(
    ("environ", "clawpal_dir"),
    [
        (EVERYTHING, "/by/data"),
        (HOME, "/home/u/.clawpal"),
        (HOME | {"CLAWPAL_DATA_DIR": ""}, "/home/u/.clawpal"),
        (HOME | {"CLAWPAL_DATA_DIR": "~/data"}, "/home/u/data"),
    ],
)
def test_the_clawpal_directory_is_the_first_that_the_environment_names(
    environ: dict[str, str], clawpal_dir: str
) -> None:
    assert ActivePaths().clawpal_dir(environ) == clawpal_dir


@pytest.mark.parametrize("environ", [{}, {"HOME": ""}, {"OPENCLAW_STATE_DIR": "~/x"}, {"OPENCLAW_HOME": "~/x"}])
def test_no_home_directory_is_a_clear_error(environ: dict[str, str]) -> None:
    with pytest.raises(HomeUnknown, match="HOME"):
        ActivePaths().openclaw_dir(environ)
    with pytest.raises(HomeUnknown, match="HOME"):
        ActivePaths().clawpal_dir({"CLAWPAL_DATA_DIR": "~/data"})


def test_no_home_directory_is_no_error_if_none_is_needed() -> None:
    assert ActivePaths().openclaw_dir({"CLAWPAL_OPENCLAW_DIR": "/claw"}) == "/claw"
    assert ActivePaths(openclaw_home="/chosen").openclaw_dir({}) == "/chosen/.openclaw"


@pytest.mark.parametrize(
    ("path", "expanded"),
    [
        ("~", "/home/u"),
        ("~/", "/home/u"),
        ("~/a/b", "/home/u/a/b"),
        ("/a/~/b", "/a/~/b"),
        ("/~", "/~"),
    ],
)
def test_a_tilde_at_the_start_is_the_home_directory(path: str, expanded: str) -> None:
    assert expand(path, HOME) == expanded


@pytest.mark.parametrize("path", ["a", "~other/a", "./a"])
def test_a_relative_path_becomes_absolute(path: str) -> None:
    assert expand(path, HOME) == os.path.join(os.getcwd(), os.path.normpath(path))


def test_agents_are_the_folders_by_name_and_links_to_folders(tmp_path: Path) -> None:
    agents, elsewhere = tmp_path / "agents", tmp_path / "large disk"
    elsewhere.mkdir()
    for name in ("main", "b", "a"):
        (agents / name).mkdir(parents=True)
    (agents / "c").symlink_to(elsewhere)
    (agents / "file").write_text("")
    (agents / "dangling").symlink_to(tmp_path / "nowhere")
    wanted = [AgentFolder(name, str(agents / name)) for name in ("a", "b", "c", "main")]
    assert list_agents(str(tmp_path)) == wanted


def test_a_directory_without_agents_has_none(tmp_path: Path) -> None:
    assert list_agents(str(tmp_path)) == []
    assert list_agents(str(tmp_path / "nowhere")) == []


def test_agents_that_can_not_be_listed_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "agents").write_text("")
    with pytest.raises(NotADirectoryError):
        list_agents(str(tmp_path))
