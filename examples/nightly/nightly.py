"""Asks for the reports of a day and waits for them: `python nightly.py 2026-01-31`.

Cron may start it twice, or a colleague by hand: tasks of one channel with one key are the same work. Whoever comes
second gets the result of the first, and nothing is made twice.
"""

import sys
from datetime import date, timedelta

from crew_worker import RetryPolicy
from crew_worker.sync import Crew

REPORTS = ("revenue", "signups", "churn")

day = sys.argv[1] if len(sys.argv) > 1 else str(date.today() - timedelta(days=1))
with Crew() as crew:
    night = crew.group(f"reports of {day}")
    planned = [
        night.task(
            "report",
            {"report": name, "day": day},
            name=name,
            key=f"{name} {day}",
            retry=RetryPolicy(attempts=5, delay=60, backoff=2),
            timeout=timedelta(minutes=10),
        )
        for name in REPORTS
    ]
    night.finished()
    for task in planned:
        made = task.result()
        print(f"{made['report']} of {made['day']}: {made['rows']} rows")
