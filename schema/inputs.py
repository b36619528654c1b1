"""What inputs share: an explicit null means the default (but in updates, where it clears)."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar


class NullMeansDefault:
    """Base of an input type: a field sent as null takes its default."""

    _defaults: ClassVar[tuple[tuple[str, Any], ...] | None] = None

    def __post_init__(self) -> None:
        kind = type(self)
        if kind._defaults is None:
            given = [(f.name, f.default) for f in dataclasses.fields(kind)]  # type: ignore[arg-type]
            kind._defaults = tuple((n, d) for n, d in given if d is not dataclasses.MISSING and d is not None)
        for name, default in kind._defaults:
            if getattr(self, name) is None:
                setattr(self, name, default)
