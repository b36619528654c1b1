"""What a worker did, as numbers, and as Prometheus reads them."""

from __future__ import annotations

from collections import Counter

HELP = {
    "crew_worker_tasks_total": ("counter", "Attempts ended, by channel and outcome."),
    "crew_worker_seconds_total": ("counter", "Time spent in handlers."),
    "crew_worker_repeats_total": ("counter", "Calls sent again for want of an answer."),
    "crew_worker_running": ("gauge", "Handlers that run now."),
    "crew_worker_undelivered": ("gauge", "Results that the server has not answered yet."),
}
Labels = tuple[tuple[str, str], ...]


class Counters:
    def __init__(self) -> None:
        self.values: Counter[tuple[str, Labels]] = Counter()

    def ended(self, channel: str, outcome: str) -> None:
        self.values["crew_worker_tasks_total", (("channel", channel), ("outcome", outcome))] += 1

    def spent(self, channel: str, seconds: float) -> None:
        self.values["crew_worker_seconds_total", (("channel", channel),)] += seconds  # type: ignore[assignment]

    def set(self, name: str, value: float) -> None:
        self.values[name, ()] = value  # type: ignore[assignment]

    def total(self, outcome: str) -> int:
        """How many attempts ended so: completed, failed, lost, released, …"""
        found = (n for (_, labels), n in self.values.items() if ("outcome", outcome) in labels)
        return int(sum(found))

    def exposition(self) -> str:
        """In Prometheus's text format."""
        lines: list[str] = []
        for name, (kind, told) in HELP.items():
            lines += [f"# HELP {name} {told}", f"# TYPE {name} {kind}"]
            for (found, labels), value in sorted(self.values.items()):
                if found == name:
                    inside = ",".join(f'{label}="{escaped(text)}"' for label, text in labels)
                    lines.append(f"{name}{{{inside}}} {value:g}" if inside else f"{name} {value:g}")
        return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
