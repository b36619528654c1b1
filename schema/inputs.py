"""What inputs share: an explicit null means the default (but in updates, where it clears)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache
from typing import Any


@cache
def _defaults(kind: Callable[..., Any]) -> tuple[tuple[str, Any], ...]:
    return tuple(
        (f.name, f.default)
        for f in dataclasses.fields(kind)  # type: ignore[arg-type]
        if f.default is not dataclasses.MISSING and f.default is not None
    )


class NullMeansDefault:
    """Base of an input type: a field sent as null takes its default."""

    def __post_init__(self) -> None:
        for name, default in _defaults(type(self)):
            if getattr(self, name) is None:
                setattr(self, name, default)
