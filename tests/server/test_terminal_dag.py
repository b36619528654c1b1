"""DAGs drawn in lanes."""

from __future__ import annotations

from typing import Any

import pytest

from server.terminal.dag import dag, rows, without_lanes
from tests.support.drawing import NOW, link, links, node, text

Json = dict[str, Any]


def test_branches_fork_and_join_in_lanes():
    nodes = [node(id) for id in "abcdef"]
    drawing = text(dag(nodes, links("ab", "bc", "ad", "de", "cf", "ef"), NOW))
    assert drawing.splitlines() == [
        "✔   a SUCCEEDED",
        "├─┐",
        "✔ │ b SUCCEEDED",
        "✔ │ c SUCCEEDED",
        "│ ✔ d SUCCEEDED",
        "│ ✔ e SUCCEEDED",
        "├─┘",
        "✔   f SUCCEEDED",
    ]


def test_a_join_hangs_from_the_tips_of_the_tree_that_it_waits_for():
    """a spawned b and d, b spawned c; f waits for a with all that, and has a link from each."""
    nodes = [node(id) for id in "abcdf"]
    tree, named = links("ab", "ad", "bc"), link("a", "f", "SUBTREE")
    adopted = [link(id, "f", "SUBTREE", adopted=True) for id in "bcd"]
    drawing = text(dag(nodes, [*tree, named, *adopted], NOW))
    assert drawing == text(dag(nodes, links("ab", "ad", "bc", "cf", "df"), NOW))


def test_links_that_wait_for_the_parent_alone_are_all_drawn():
    """a has another child that links to c, as into a join; but c waits for a, and no more."""
    assert [row.lanes.rstrip() for row in rows([node(id) for id in "abc"], links("ab", "bc", "ac"))] == [
        "│",
        "├─┐",
        "│ │",
        "├─┘",
        "│",
    ]


def test_lanes_that_pass_a_join_are_crossed():
    edges = links("ab", "ac", "ad", "be", "de", "cf", "ef")
    assert [row.lanes.rstrip() for row in rows([node(id) for id in "abcdef"], edges)] == [
        "│",
        "├─┬─┐",
        "│ │ │",
        "│ │ │",
        "│ │ │",
        "├─┼─┘",
        "│ │",
        "├─┘",
        "│",
    ]


def test_every_node_is_drawn_once_below_its_parents():
    ids = "abcdefghij"
    edges = links("ac", "bc", "cd", "ce", "cf", "dg", "eg", "fg", "ag", "gh", "bi", "hi", "ij")
    drawn = [row.node["id"] for row in rows([node(id) for id in reversed(ids)], edges) if row.node]
    assert sorted(drawn) == list(ids)
    assert all(drawn.index(edge["parentId"]) < drawn.index(edge["childId"]) for edge in edges)


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ({"state": "SUCCEEDED", "attempt": 3}, "✔ a SUCCEEDED ×3"),
        ({"state": "RUNNING", "progress": 0.5}, "▶ a RUNNING   50%"),
        ({"state": "SCHEDULED", "attempt": 2, "notBefore": "2025-01-01T00:00:01.5Z"}, "◷ a SCHEDULED ×2 1.5s"),
        ({"state": "READY", "heldBy": ["WORKGROUP_SUSPENDED"], "notBefore": None}, "‖ a READY"),
        ({"state": "BLOCKED", "attempt": 0}, "○ a BLOCKED"),
        ({"state": "FAILED", "attempt": 8}, "✘ a FAILED    ×8"),
    ],
)
def test_a_node_shows_its_state_its_attempts_and_how_long_it_waits(more: Json, line: str):
    assert text(dag([node("a", **more)], [], NOW)) == line


def test_wide_characters_take_two_columns_each():
    drawing = text(dag([node("日本語"), node("abcdefgh")], [], NOW))
    assert drawing.splitlines() == ["✔ 日本語   SUCCEEDED", "✔ abcdefgh SUCCEEDED"]


def test_a_name_cannot_steer_the_terminal():
    assert text(dag([node("a\x1b[2Jb\nc\u202ed")], [], NOW)) == "✔ a\\x1b[2Jb c\\u202ed SUCCEEDED"


def test_a_long_name_is_cut_before_the_state():
    assert text(dag([node("n" * 1000)], [], NOW)) == f"✔ {'n' * 59}… SUCCEEDED"


def test_without_lanes_the_nodes_keep_their_order():
    drawn = rows([node(id) for id in "cba"], links("ab", "ac"))
    assert [(row.lanes, row.node and row.node["id"]) for row in without_lanes(drawn)] == [
        ("", "a"),
        ("", "b"),
        ("", "c"),
    ]


def test_a_link_to_a_task_that_is_not_there_is_passed_over():
    assert [row.lanes for row in rows([node("a")], links("ab", "xa"))] == ["│"]
