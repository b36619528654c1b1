"""A worker of the mixed run: every step of the campaign, with luck. worker.mjs does the same."""

import asyncio
import random

from crew_worker import Crew, Output, Retry, RetryPolicy, Task

crew = Crew(concurrency=4, lease_seconds=2, wait_seconds=2)
RETRY = RetryPolicy(attempts=50, delay=0.1)
NEXT = {"create_adset": "upload_video", "upload_video": "create_creative", "create_creative": "create_ad"}


async def step(task: Task) -> Output:
    await asyncio.sleep(random.uniform(0, 0.3))
    if random.random() < 0.1:
        raise Retry("bad luck", count=False)
    if follows := NEXT.get(task.channel):
        task.spawn(follows, name=f"{follows} of {task.input}", input=task.input, retry=RETRY)
    return Output({"by": "python"})


for channel in ("create_campaign", *NEXT, "create_ad", "verify_assets", "unpause_campaign", "send_slack"):
    crew.task(channel)(step)

crew.run()
