"""SUBTREE links (DESIGN.md §3.6): which of the tasks that a call makes become parents of which joins.

Old joins stand already and wait for all that the completed task spawns. Late joins are made by the call itself, and wait for a
task that has spawned before, or spawns in this very call. Never adopted are the join, what waits for it (so no cycle can
arise), and other joins of the same subtree; but what those spawn is, so they are noted as its feeders, as are parents that the
join has named itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from uuid import UUID

from db.join import MemberRow, joins, waiting_for
from db.pool import Connection
from resolvers.draft import Draft


@dataclass(slots=True)
class Tree:
    """The new tasks of one call, by their places among its drafts, and what they hang from. Old tasks go by their numbers."""

    drafts: list[Draft]
    new: list[int]
    inside: dict[int, list[int]]
    """New task → its parents among the new ones."""
    outside: dict[int, list[tuple[int, bool]]]
    """New task → its parents among the old ones, and whether it waits for all that they spawn."""
    spawned_by: int | None
    old_joins: list[int]
    members: dict[int, list[MemberRow]]
    """Old task that a new one joins by SUBTREE → all that it has spawned before this call."""
    adopted_by: list[tuple[int, int]] = field(default_factory=list)
    """Result: (new task, old join)."""
    adopts_old: list[tuple[int, MemberRow]] = field(default_factory=list)
    """Result: (new join, old task)."""
    adopts_new: list[tuple[int, int]] = field(default_factory=list)
    """Result: (new join, new task)."""
    feeds: list[tuple[int | UUID, int | UUID]] = field(default_factory=list)
    """Result: (feeder, join): the number of an old one, the id of a new one."""


async def adopt(connection: Connection, ns: int, tree: Tree) -> None:
    """Fills the results of the tree."""
    below = _Below(tree)
    if tree.old_joins and tree.new and tree.spawned_by is not None:
        roots = await joins(connection, ns, tree.old_joins, tree.spawned_by)
        named = {no for links in tree.outside.values() for no, _ in links if no != tree.spawned_by}
        if named:
            candidates = sorted({*named, *tree.old_joins})
            below.known |= await waiting_for(connection, ns, tree.old_joins, candidates)
        for join in tree.old_joins:
            _adopt_by_old(tree, below, join, roots.get(join, []))
    for join in tree.new:
        for root, subtree in tree.outside[join]:
            if subtree and (root == tree.spawned_by or tree.members.get(root)):
                await _adopt_by_new(connection, ns, tree, below, join, root)


def _adopt_by_old(tree: Tree, below: _Below, join: int, roots: list[int]) -> None:
    waiting = below.new_ones([join])
    adopted = set()
    for place in tree.new:
        if place in waiting:
            continue
        if _joins_too(tree, place, roots):
            tree.feeds.append((tree.drafts[place].id, join))
        else:
            tree.adopted_by.append((place, join))
            adopted.add(place)
    for other in tree.old_joins:
        # What it has adopted waits for the other join: so does it now itself.
        if other != join and not adopted.isdisjoint(below.new_ones([other])):
            below.known.add((other, join))


async def _adopt_by_new(connection: Connection, ns: int, tree: Tree, below: _Below, join: int, root: int) -> None:
    members = tree.members.get(root, [])
    adopters = below.joins([old for place, old in tree.adopted_by if place == join])
    waiting = set()
    if adopters and members:
        found = await waiting_for(connection, ns, adopters, [m.no for m in members])
        below.known |= found
        waiting = {no for _, no in found}
    named = {no for no, _ in tree.outside[join]} | {m.no for place, m in tree.adopts_old if place == join}
    for member in members:
        if member.no in waiting:
            continue
        if member.joins or member.no in named:
            tree.feeds.append((member.no, tree.drafts[join].id))
        else:
            tree.adopts_old.append((join, member))
    if root != tree.spawned_by and all(m.no != tree.spawned_by for m in members):
        return
    waiting = below.new_ones(adopters, join)
    for place in tree.new:
        if place in waiting:
            continue
        if place in tree.inside[join] or _joins_too(tree, place, [root]):
            tree.feeds.append((tree.drafts[place].id, tree.drafts[join].id))
        else:
            tree.adopts_new.append((join, place))
            below.hang(join, place)


def _joins_too(tree: Tree, place: int, roots: list[int]) -> bool:
    """It was told to wait for these with all they spawn: another join of the same subtree."""
    return bool(roots) and {*roots} <= {no for no, subtree in tree.outside[place] if subtree}


class _Below:
    """What waits for a join."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._children: defaultdict[int, list[int]] = defaultdict(list)
        for place, parents in tree.inside.items():
            for parent in parents:
                self._children[parent].append(place)
        self.known: set[tuple[int, int]] = set()
        """(old join, old task that is it or waits for it)"""

    def hang(self, place: int, parent: int) -> None:
        self._children[parent].append(place)
        self._tree.inside[place].append(parent)

    def joins(self, given: Iterable[int]) -> list[int]:
        """These old joins and all old joins that wait for one of them."""
        found = set(given)
        while more := {no for join, no in self.known if join in found and no in self._tree.old_joins} - found:
            found |= more
        return sorted(found)

    def new_ones(self, old: Iterable[int], *new: int) -> set[int]:
        """All new tasks that are one of `new`, or wait for one of those or of the `old` joins."""
        above = set(self.joins(old))
        above |= {no for join, no in self.known if join in above}
        left = [*new, *(p for p, links in self._tree.outside.items() if any(no in above for no, _ in links))]
        found = set(left)
        while left:
            more = [child for child in self._children[left.pop()] if child not in found]
            found.update(more)
            left += more
        return found
