"""What ``python -m tests.fuzz`` runs for long holds of its seeds, and of what Hypothesis makes of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.seeds import DICTIONARY, SEEDS
from tests.fuzz.targets import TARGETS, converse
from tests.unit.strategies import mutations

SEEDED = [(target, seed) for target, seeds in SEEDS.items() for seed in seeds]


@pytest.fixture(autouse=True)
def empty_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CLAWPAL_OPENCLAW_DIR", "CLAWPAL_DATA_DIR", "OPENCLAW_HOME", "OPENCLAW_STATE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.mark.parametrize(("target", "seed"), SEEDED)
def test_a_target_holds_of_its_seeds(target: str, seed: bytes) -> None:
    TARGETS[target](seed)


@pytest.mark.parametrize("target", ["framer", "parser", "transcript", "long-lines"])
@settings(max_examples=60)
@given(data=st.data())
def test_a_target_holds_of_seeds_with_something_changed(target: str, data: st.DataObject) -> None:
    TARGETS[target](data.draw(mutations(st.sampled_from(SEEDS[target]), DICTIONARY)))


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(mutations(st.sampled_from(SEEDS["connection"]), DICTIONARY), min_size=1, max_size=4))
def test_a_conversation_of_any_lines_keeps_the_rules_of_the_wire(lines: list[bytes]) -> None:
    converse(b"\n".join(lines))
