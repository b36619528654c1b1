"""docs/performance.md: made of the kept measurements, and the aims name what is measured."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bench.aims import AIMS, GROUPS, Aim, best
from bench.panels import SOURCES
from bench.performance import PAGE, kept_page, page, plots
from bench.results import Figure, Results, figures, load, save, spread

CREATED = Figure("create", "tasks/s", {"crew": [30, 40, 20], "crew_ws": [10, 50, 30], "graphile": [20, 25, 30]})
KEPT = load()


def kept(*found: Figure, source: str = "beside_peers") -> dict[str, Results]:
    return {source: Results(source, f"python -m bench.{source}", "2026-11-27", "2 cores", list(found))}


def aim(bound: float, more: bool = True) -> Aim:
    return Aim(
        "creation", "a", "beside_peers", "create", best("crew", "crew_ws").over("graphile", "absurd"), bound, more
    )


def test_an_aim_holds_the_best_of_ours_against_the_best_of_the_others_in_each_round():
    judged = aim(1.5).judged(kept(CREATED))
    assert judged is not None
    assert judged.values == [1.5, 2.0, 1.0]
    assert (judged.lowest, judged.median, judged.highest, judged.met) == (1.0, 1.5, 2.0, True)


def test_where_less_is_better_the_lowest_counts_and_the_bound_is_the_most():
    judged = aim(0.4, more=False).judged(kept(CREATED))
    assert judged is not None
    assert judged.values == [0.5, 1.6, 2 / 3]
    assert not judged.met


def test_what_a_bare_one_reaches_stands_beside_it():
    bare = Figure("create", "tasks/s", {**CREATED.series, "bare": [40, 100, 90]})
    judged = aim(1.5).judged(kept(bare))
    assert judged is not None
    assert (judged.median, judged.bare) == (1.5, 3.0)


def test_an_aim_that_was_not_measured_is_not_judged():
    assert aim(1).judged({}) is None
    assert aim(1).judged(kept()) is None


def test_rounds_become_figures_with_a_value_for_each():
    rounds = [{("claim", "ms"): {"calm": 1.0, "fault": 2.0}}, {("claim", "ms"): {"calm": 3.0, "fault": 4.0}}]
    assert figures(rounds) == [Figure("claim", "ms", {"calm": [1.0, 3.0], "fault": [2.0, 4.0]})]


def test_a_spread_tells_the_median_and_the_ends():
    assert spread([1234.5, 3, 20], 1) == "20.0 (3.0 – 1,234.5)"
    assert spread([2]) == "2.00"


def test_what_is_saved_is_loaded(tmp_path: Path):
    save("http", [CREATED], ["--rounds", "3"], tmp_path)
    assert load(tmp_path)["http"].figures == [CREATED]
    assert load(tmp_path)["http"].command == "python -m bench.http --rounds 3"


def test_the_page_shows_aims_tables_and_limits():
    text = page(kept(CREATED), "Commits.\n")
    assert "| create in bulk, over the best peer | ≥ × 1.1 | – | – | not measured |" in text
    assert "| create, tasks/s | crew | 30.00 (20.00 – 40.00) | 1.50 (0.67 – 1.60) |" in text
    assert "## Where the time goes\n\nCommits.\n\n## " in text


def test_every_image_of_the_page_is_a_plot():
    text = page(kept(CREATED), "")
    assert [f"![{name}](performance/{name}.svg)" in text for name in plots(kept(CREATED))] == [True]
    assert text.count("![") == 1


def test_every_aim_is_in_a_group_and_of_a_source_that_is_shown():
    assert {a.group for a in AIMS} == set(GROUPS)
    assert {a.source for a in AIMS} <= set(SOURCES)
    assert len({a.name for a in AIMS}) == len(AIMS)


@pytest.mark.skipif(not KEPT, reason="nothing is kept")
def test_the_page_is_what_the_kept_measurements_make():
    assert PAGE.read_text() == kept_page(), "stale: run `make performance`"


@pytest.mark.parametrize("aim", [a for a in AIMS if a.source in KEPT], ids=lambda a: a.name)
def test_an_aim_names_a_figure_that_is_kept(aim: Aim):
    kept = {f.name: f for f in KEPT[aim.source].figures}
    assert aim.figure in kept
    series = set(kept[aim.figure].series)
    assert set(aim.values.ours) <= series
    assert not aim.values.others or set(aim.values.others) & series


def test_each_lever_can_be_taken_out_of_a_server():
    """In a process of its own: what they replace stays replaced."""
    program = "from bench.ablation import LEVERS\nfrom bench.taken_out import TAKEN_OUT\n"
    program += "assert [x.taken_out for x in LEVERS if x.taken_out] == list(TAKEN_OUT)\n"
    program += "for take_out in TAKEN_OUT.values():\n    take_out()"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=PAGE.parent.parent, timeout=60)
