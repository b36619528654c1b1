"""Words for the terminal: what others wrote made safe to print, instants as ages, errors on one line."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from rich.text import Text

Json = Mapping[str, Any]

LOOKS: Mapping[str, tuple[str, str]] = {
    "BLOCKED": ("○", "bright_black"),
    "SCHEDULED": ("◷", "yellow"),
    "READY": ("◇", "cyan"),
    "RUNNING": ("▶", "bold blue"),
    "MERGED": ("≡", "magenta"),
    "SUCCEEDED": ("✔", "green"),
    "FAILED": ("✘", "bold red"),
    "CANCELLED": ("⊘", "bright_black strike"),
}
UNKNOWN_LOOK = ("?", "")
_UNITS = ((86_400, "d"), (3600, "h"), (60, "min"))
_JOINERS = "\u200c\u200d"
_LONGEST = 200


def printable(words: str) -> str:
    """On one line, and without what would steer the terminal: names and errors are anybody's."""
    return "".join(char if char.isprintable() or char in _JOINERS else _shown(char) for char in words)


def _shown(char: str) -> str:
    if char.isspace():
        return " "
    return f"\\x{ord(char):02x}" if ord(char) < 256 else f"\\u{ord(char):04x}"


def short(error: object) -> str:
    """A task's error on one line: the text, an object's `message` or `error`, else its JSON."""
    if isinstance(error, Mapping):
        words = next((error[key] for key in ("message", "error") if isinstance(error.get(key), str)), None)
        error = error if words is None else words
    text = error if isinstance(error, str) else json.dumps(error, ensure_ascii=False)
    line = printable(" ".join(text[: 2 * _LONGEST].split()))
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"


def seconds_until(instant: str | None, now: str) -> float:
    """0 once it is past, or when there is none."""
    if instant is None:
        return 0
    return max(0.0, (datetime.fromisoformat(instant) - datetime.fromisoformat(now)).total_seconds())


def length(seconds: float) -> str:
    """In its largest unit, rounded down: 90 → `1 min`."""
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds)} s"


def wait(seconds: float) -> str:
    """Rounded up to whole seconds: what is left of a wait is never told as 0 s."""
    return length(math.ceil(seconds))


def percent(fraction: float) -> str:
    """100% is said of what is done, and of nothing else."""
    return f"{min(round(100 * fraction), 99) if fraction < 1 else 100}%"


def age(instant: str, now: str) -> str:
    return f"{length(seconds_until(now, instant))} ago"


def counts(found: Iterable[Json], *, words: bool = False) -> Text:
    """`✔8 ▶2 ○4`, or with `words` `✔ 8 succeeded  ▶ 2 running  ○ 4 blocked`."""
    by_state = {each["state"]: each["count"] for each in found}
    order = sorted(by_state, key=lambda state: (_PLACES.get(state, 99), state))
    parts = []
    for state in order:
        symbol, style = LOOKS.get(state, UNKNOWN_LOOK)
        told = f"{symbol} {by_state[state]:,} {state.lower()}" if words else f"{symbol}{by_state[state]:,}"
        parts.append(Text(told, style.replace(" strike", "")))
    return Text("  " if words else " ").join(parts)


_FORWARD = ("SUCCEEDED", "FAILED", "CANCELLED", "RUNNING", "MERGED", "READY", "SCHEDULED", "BLOCKED")
_PLACES = {state: place for place, state in enumerate(_FORWARD)}
