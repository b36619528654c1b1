"""Tells a receiver of three events: `python send.py https://example.org/hook`."""

import sys
from urllib.parse import urlsplit

from crew_worker import RetryPolicy
from crew_worker.sync import Crew

url = sys.argv[1]
with Crew() as crew:
    group = crew.group(f"webhooks to {url}")
    deliveries = [
        group.task(
            "webhook",
            {"url": url, "event": {"type": "order.paid", "order": order}},
            name=f"order {order}",
            workgroup=urlsplit(url).netloc,
            retry=RetryPolicy(attempts=12, delay=0.5, backoff=2, max_delay=3600),
        )
        for order in (1, 2, 3)
    ]
    group.finished()
    for delivery in deliveries:
        print(f"{delivery.name}: {delivery.result()['status']}")
