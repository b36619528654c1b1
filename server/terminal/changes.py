"""What changed between two looks at the same tasks, for output that is read line by line."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from server.terminal.text import Json, printable


@dataclass
class Changes:
    """Remembers each task's state and attempt."""

    seen: dict[str, tuple[str, int]] = field(default_factory=dict)

    def since(self, nodes: Iterable[Json]) -> list[tuple[Json, str]]:
        """The tasks that are new or stand elsewhere than before, each with that told in words."""
        found = []
        for node in nodes:
            now, before = (node["state"], node["attempt"]), self.seen.get(node["id"])
            if now != before:
                told = f"{before[0]} → {now[0]}" if before else f"new → {now[0]}"
                found.append((node, f"{printable(node['name'])} {told} (attempt {now[1]})"))
            self.seen[node["id"]] = now
        return found
