"""The table of settings in docs/operating.md: `python -m tests.support.settings_table` writes it between its markers."""

from __future__ import annotations

from typing import Any

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

from server.settings import Settings
from tests.support.process import ROOT

FILE = ROOT / "docs" / "operating.md"
BEGIN, END = "<!-- settings -->\n", "<!-- /settings -->"
_SIGNS = {Ge: ("ge", "≥"), Gt: ("gt", ">"), Le: ("le", "≤"), Lt: ("lt", "<")}


def table() -> str:
    """Every setting as a row of Markdown, in the order of the class."""
    rows = [
        (variable(name, field), default(field), allowed(field), field.description or "") for name, field in fields()
    ]
    lines = ["| Variable | Default | Allowed | |", "| --- | --- | --- | --- |"]
    lines += [
        f"| `{name}` | {f'`{value}`' if value else ''} | {limits} | {what} |" for name, value, limits, what in rows
    ]
    return "\n".join(lines) + "\n"


def fields() -> list[tuple[str, FieldInfo]]:
    return list(Settings.model_fields.items())


def variable(name: str, field: FieldInfo) -> str:
    """The environment variable."""
    alias = field.validation_alias
    return alias if isinstance(alias, str) else f"{Settings.model_config['env_prefix']}{name}".upper()


def default(field: FieldInfo) -> str:
    value: Any = field.default
    if value is None or value == ():
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) and value == int(value) and value < 1e5 else str(value)


def allowed(field: FieldInfo) -> str:
    parts = []
    for limit in field.metadata:
        pattern = getattr(limit, "pattern", None)
        if pattern:
            return ", ".join(f"`{word}`" for word in pattern.strip("^$()").split("|"))
        attribute, sign = _SIGNS.get(type(limit), ("", ""))
        if sign:
            parts.append(f"{sign} {getattr(limit, attribute)}")
    return ", ".join(parts)


def between_markers(text: str) -> str:
    return text.partition(BEGIN)[2].partition(END)[0]


def written(text: str) -> str:
    """The page with the table of now."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert begin, f"{FILE} has no {BEGIN.strip()}"
    assert end, f"{FILE} has no {END}"
    return before + begin + table() + end + after


def main() -> None:
    FILE.write_text(written(FILE.read_text()))


if __name__ == "__main__":
    main()
