"""Names of channels, workgroups and workers as the numbers that rows carry; remembered, since neither ever changes."""

from __future__ import annotations

from collections.abc import Iterable

from db.pool import Pool
from db.statements import statement

_REMEMBER = 100_000


class Names:
    """One kind of name in one namespace. `numbers` makes what is missing, `known` does not."""

    def __init__(self, pool: Pool, ns: int, kind: str) -> None:
        self._pool = pool
        self._ns = ns
        self._make = statement("name", f"{kind}_numbers")
        self._look = statement("name", f"known_{kind}s") if kind != "worker" else self._make
        self.number: dict[str, int] = {}
        self.name: dict[int, str] = {}

    async def numbers(self, names: Iterable[str]) -> dict[str, int]:
        return await self._resolve(set(names), self._make, looks=2)

    async def known(self, names: Iterable[str]) -> dict[str, int]:
        return await self._resolve(set(names), self._look, looks=1)

    async def _resolve(self, names: set[str], sql: str, looks: int) -> dict[str, int]:
        found = {n: self.number[n] for n in names if n in self.number}
        # Making takes two looks: a name that another transaction made meanwhile is seen by the second only.
        for _ in range(looks):
            missing = [n for n in names if n not in found]
            if not missing:
                break
            for row in await self._pool.fetch(sql, self._ns, missing):
                found[row["name"]] = row["number"]
                self._remember(row["name"], row["number"])
        return found

    def _remember(self, name: str, number: int) -> None:
        if len(self.number) >= _REMEMBER:
            self.number.clear()
            self.name.clear()
        self.number[name] = number
        self.name[number] = name
