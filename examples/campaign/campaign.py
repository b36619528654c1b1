"""Plans one campaign for each of two tokens, sends them, and waits until both run.

create_campaign ─┬─ create_adset ─ upload_video ─ create_creative ─ create_ad ─┬─ verify_assets ─ unpause_campaign ─ send_slack
                 └─ create_adset ─ upload_video ─ create_creative ─ create_ad ─┘

What follows create_adset is made as the work goes on; verify_assets waits for all of it.
"""

import asyncio

from crew_worker import Crew, Draft, Group, RetryPolicy

RETRY = RetryPolicy(attempts=10, delay=0.2, backoff=1.5, max_delay=2)


def plan(crew: Crew, token: str, videos: list[str]) -> tuple[Group, Draft[str]]:
    group = crew.group(f"campaign of {token}")
    campaign = group.task("create_campaign", workgroup=token, retry=RETRY)
    adsets = [
        group.task("create_adset", {"video": video}, name=f"create_adset {video}", workgroup=token, retry=RETRY).after(
            campaign
        )
        for video in videos
    ]
    verified = group.task("verify_assets").after_subtree(*adsets)
    unpaused = group.task("unpause_campaign", workgroup=token, retry=RETRY).after(verified)
    return group, group.task("send_slack", returns=str).after(unpaused)


async def main() -> None:
    async with Crew() as crew:
        planned = [plan(crew, token, ["a.mp4", "b.mp4"]) for token in ("token-a", "token-b")]
        for group, _ in planned:
            await group.send()
        for group, message in planned:
            await group.finished(timeout=60)
            print(f"{group.name}: {await message.result()}")


asyncio.run(main())
