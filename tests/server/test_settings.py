"""Settings: described, bounded, read from the environment, and listed in docs/operating.md as they are."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from server.settings import Settings
from tests.support import settings_table

NAMES = list(Settings.model_fields)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, field in settings_table.fields():
        monkeypatch.delenv(settings_table.variable(name, field), raising=False)


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_says_what_it_is(name: str):
    description = Settings.model_fields[name].description
    assert description
    assert description.endswith(".")


def test_the_table_in_the_docs_is_what_the_class_says():
    page = settings_table.FILE.read_text()
    assert settings_table.between_markers(page) == settings_table.table(), (
        "stale: run `.venv/bin/python -m tests.support.settings_table`"
    )


def test_the_table_has_a_row_for_each():
    rows = settings_table.table().splitlines()[2:]
    assert len(rows) == len(NAMES)
    assert rows[0] == "| `CREW_HOST` | `127.0.0.1` |  | Address to listen on. |"
    assert rows[1] == "| `CREW_PORT` | `8000` | ≥ 0, ≤ 65535 | Port to listen on; 0 picks a free one. |"


def test_they_come_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    assert Settings().port == 8000
    assert Settings().database_url is None
    monkeypatch.setenv("CREW_PORT", "9000")
    monkeypatch.setenv("CREW_DATA_DIR", "/var/lib/crew")
    monkeypatch.setenv("DATABASE_URL", "postgresql://db/crew")
    settings = Settings()
    assert (settings.port, settings.data_dir) == (9000, Path("/var/lib/crew"))
    assert settings.database_url == "postgresql://db/crew"
    assert Settings(port=9001).port == 9001, "what is given by name wins"


@pytest.mark.parametrize(
    ("name", "value"),
    [("port", "65536"), ("port", "-1"), ("pool_size", "1"), ("max_wait_seconds", "601"), ("log_format", "xml")],
)
def test_what_is_out_of_range_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, name: str, value: str):
    monkeypatch.setenv(f"CREW_{name.upper()}", value)
    with pytest.raises(ValidationError, match=name):
        Settings()


@pytest.mark.parametrize("name", ["patience_seconds", "max_wait_seconds", "max_lease_seconds"])
@pytest.mark.parametrize("value", ["nan", "inf", "-1"])
def test_seconds_are_finite_numbers(monkeypatch: pytest.MonkeyPatch, name: str, value: str):
    monkeypatch.setenv(f"CREW_{name.upper()}", value)
    with pytest.raises(ValidationError, match=name):
        Settings()
