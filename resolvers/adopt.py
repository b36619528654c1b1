"""SUBTREE links (DESIGN.md §3.6): which of the tasks that a call makes become parents of which joins.

Old joins stand already and wait for all that the completed task spawns. Late joins are made by the call itself, and wait for a
task that has spawned before, or spawns in this very call. Never adopted are the join, what waits for it (so no cycle can
arise), and other joins of the same subtree; but what those spawn is, so they are noted as its feeders, as are parents that the
join has named itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID

from db.join import MemberRow, joins, waiting_for
from db.pool import Connection
from resolvers.draft import Draft, Inside

ADOPTED_PLACE = (1 << 31) - 1
"""Where adopted parents stand among all: after those that were named."""


@dataclass(slots=True)
class Tree:
    """The new tasks of one call, by their places among its drafts, and what they hang from."""

    drafts: list[Draft]
    new: list[int]
    outside: dict[int, list[tuple[int, bool]]]
    """New task → (number of a parent that exists, subtree)."""
    spawned_by: int | None
    old_joins: list[int]
    members: dict[int, list[MemberRow]]
    """Task that has succeeded, and that a new task joins by SUBTREE → all it has spawned before this call."""
    adopted_by: list[tuple[int, int]] = field(default_factory=list)
    """Result: (new task, old join)."""
    adopts: list[tuple[int, MemberRow]] = field(default_factory=list)
    """Result: (new join, task that exists)."""
    feeds: list[tuple[int | UUID, int | UUID]] = field(default_factory=list)
    """Result: (feeder, join): the number of one that exists, the id of a new one."""


async def adopt(connection: Connection, ns: int, tree: Tree) -> None:
    """Fills `adopted_by` and `adopts`; links among the new tasks are added to their drafts."""
    below = _Below(tree)
    if tree.old_joins and tree.new:
        roots = await joins(connection, ns, tree.old_joins)
        named = sorted({no for links in tree.outside.values() for no, _ in links if no != tree.spawned_by})
        if named:
            below.pairs |= await waiting_for(connection, ns, tree.old_joins, named)
        for join in tree.old_joins:
            for place in tree.new:
                if below.waits_for_old(place, join):
                    continue
                if _joins_too(tree, place, roots.get(join, [])):
                    tree.feeds.append((tree.drafts[place].id, join))
                else:
                    tree.adopted_by.append((place, join))
                    below.adopted(place, join)
    late = [
        (place, no)
        for place in tree.new
        for no, subtree in tree.outside.get(place, ())
        if subtree and _spawned(tree, no)
    ]
    for place, root in late:
        await _adopt_late(connection, ns, tree, below, place, root)


def _spawned(tree: Tree, root: int) -> bool:
    return root == tree.spawned_by or bool(tree.members.get(root))


async def _adopt_late(connection: Connection, ns: int, tree: Tree, below: _Below, join: int, root: int) -> None:
    members = tree.members.get(root, [])
    mine = [old for place, old in tree.adopted_by if place == join]
    above = await waiting_for(connection, ns, mine, [m.no for m in members]) if mine and members else set()
    below.pairs |= above
    waiting = {no for _, no in above}
    parents = {no for no, _ in tree.outside.get(join, ())} | {m.no for place, m in tree.adopts if place == join}
    for member in members:
        if member.no in waiting:
            continue
        if member.joins or member.no in parents:
            tree.feeds.append((member.no, tree.drafts[join].id))
        else:
            tree.adopts.append((join, member))
    if root == tree.spawned_by or any(m.no == tree.spawned_by for m in members):
        inside = {link.parent for link in tree.drafts[join].inside}
        for place in tree.new:
            if place == join or below.waits_for_new(place, join):
                continue
            if place in inside or _joins_too(tree, place, [root]):
                tree.feeds.append((tree.drafts[place].id, tree.drafts[join].id))
            else:
                tree.drafts[join].inside.append(Inside(place, ADOPTED_PLACE, subtree=True, adopted=True))


def _joins_too(tree: Tree, place: int, roots: list[int]) -> bool:
    """It was told to wait for one of these with all it spawns: another join of the same subtree."""
    return any(subtree and no in roots for no, subtree in tree.outside.get(place, ()))


class _Below:
    """Who waits for a join, among new tasks."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self.pairs: set[tuple[int, int]] = set()
        """(old join, task that exists and is it or waits for it)"""

    def waits_for_old(self, place: int, join: int) -> bool:
        return any((join, no) in self.pairs for at in self._above(place) for no, _ in self._tree.outside.get(at, ()))

    def adopted(self, place: int, join: int) -> None:
        """What waits for `join` now waits for all that the new task waits for."""
        for other in self._tree.old_joins:
            if other != join and self.waits_for_old(place, other):
                self.pairs |= {(other, no) for above, no in self.pairs if above == join} | {(other, join)}

    def waits_for_new(self, place: int, join: int) -> bool:
        adopters = [old for at, old in self._tree.adopted_by if at == join]
        above = self._above(place)
        return join in above or any(
            (old, no) in self.pairs or no == old
            for at in above
            for no, _ in self._tree.outside.get(at, ())
            for old in adopters
        )

    def _above(self, place: int) -> set[int]:
        """The task and all it waits for among the new ones."""
        seen, left = {place}, [place]
        while left:
            for link in self._tree.drafts[left.pop()].inside:
                if link.parent not in seen:
                    seen.add(link.parent)
                    left.append(link.parent)
        return seen
