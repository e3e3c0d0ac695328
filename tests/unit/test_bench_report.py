"""The README's figures and the plots are those of the committed results."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable

import pytest

from tests.bench import plots, report, results
from tests.bench.results import Results, Spread

FOUND = results.load()


def test_the_readme_has_the_figures_of_the_committed_results() -> None:
    readme = report.README.read_text(encoding="utf-8")
    assert report.with_figures(readme, FOUND) == readme


@pytest.mark.parametrize("name", plots.PLOTS)
def test_each_plot_is_drawn_from_the_committed_results(name: str) -> None:
    assert plots.PLOTS[name](FOUND) == (plots.FOLDER / name).read_text(encoding="utf-8")


def test_the_readme_shows_each_plot() -> None:
    readme = report.README.read_text(encoding="utf-8")
    assert set(re.findall(r"\(tests/bench/(\S+\.svg)\)", readme)) == set(plots.PLOTS)


@pytest.mark.parametrize("draw", plots.PLOTS.values())
def test_a_plot_is_well_formed_and_asks_for_nothing_from_elsewhere(draw: Callable[[Results], str]) -> None:
    svg = draw(FOUND)
    ET.fromstring(svg)
    assert not re.search(r"href|url\(|@import|<script", svg)


def test_the_results_name_no_place_of_the_machine() -> None:
    assert "/" not in results.FILE.read_text(encoding="utf-8")


def test_what_was_not_measured_is_left_out() -> None:
    found = results.begun(1, {"A": 110_000_000})
    found.add_load()
    found.add("A", "sidecar", wall_s=0.5)
    (row,) = [line for line in report.markdown(found).splitlines() if line.startswith("| 1")]
    assert row == "| 110 MB in 1,000 files | 220 MB/s | – | – | – | – |"
    assert "baseline</text>" in plots.throughput(found)  # the legend


def test_a_ratio_is_of_rounds_that_were_neighbours() -> None:
    found = results.begun(3, {})
    for ours, theirs in ((1.0, 2.0), (6.0, 6.0), (2.0, 8.0)):
        found.add("A", "sidecar", wall_s=ours)
        found.add("A", "baseline", wall_s=theirs)
    assert found.ratio("A", "wall_s") == Spread(0.5, 0.25, 1.0)
    assert found.ratio("A", "cpu_s") is None
