"""The campaign as tasks: one seed, what each completion continues with, and the ads call behind each task.

create_campaign ─┬─ create_adset ─ upload_video ─ create_creative ─ create_ad ─┬─ verify_assets ─ unpause_campaign ─ send_slack
                 └─ create_adset ─ upload_video ─ create_creative ─ create_ad ─┘

The tree grows while it is worked on: each step of a branch is made by the completion of the one before, and verify_assets
waits for the adsets with all that they go on to spawn (SUBTREE).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]

# Each kind of work is a channel, and makes one thing in a collection of the ads API.
COLLECTIONS: Mapping[str, str] = {
    "create_campaign": "campaigns",
    "create_adset": "adsets",
    "upload_video": "videos",
    "create_creative": "creatives",
    "create_ad": "ads",
    "verify_assets": "verifications",
    "unpause_campaign": "activations",
    "send_slack": "messages",
}
CHANNELS = tuple(COLLECTIONS)
BRANCH = ("create_adset", "upload_video", "create_creative", "create_ad")
TAIL = ("verify_assets", "unpause_campaign", "send_slack")
# The name under which a task's output, and those after it, carry the id that it got.
ID_NAMES: Mapping[str, str] = {
    "create_campaign": "campaignId",
    "create_adset": "adsetId",
    "upload_video": "videoId",
    "create_creative": "creativeId",
    "create_ad": "adId",
    "verify_assets": "verificationId",
    "unpause_campaign": "activationId",
    "send_slack": "messageId",
}
RETRY: Mapping[str, float] = {"maxAttempts": 8, "delaySeconds": 0.3, "backoff": 1.5, "maxDelaySeconds": 2}


def new_task(kind: str, campaign: str, token: str, *, branch: int | None = None) -> Json:
    """A NewTask: the channel is the kind of work, the workgroup is the token that shares the rate limit."""
    return {
        "name": kind if branch is None else f"{kind} {branch}",
        "channel": kind,
        "workgroup": token,
        "input": {"campaign": campaign, "token": token, "branch": branch},
        "retry": dict(RETRY),
    }


def seed_task(campaign: str, token: str, *, branches: int = 2) -> Json:
    """The one task that a group starts with; the rest is made when it completes."""
    task = new_task("create_campaign", campaign, token)
    return task | {"isSeed": True, "input": task["input"] | {"branches": branches}}


def continuations(channel: str, task_input: Mapping[str, Any]) -> list[Json]:
    """The NewTasks that completing a task makes, parents before children. Those that name no parent hang from it."""
    campaign, token = task_input["campaign"], task_input["token"]
    if channel == "create_campaign":
        heads = [
            new_task(BRANCH[0], campaign, token, branch=branch) | {"ref": f"branch-{branch}"}
            for branch in range(1, task_input["branches"] + 1)
        ]
        return heads + _tail(campaign, token, [head["ref"] for head in heads])
    if channel in BRANCH[:-1]:
        return [new_task(BRANCH[BRANCH.index(channel) + 1], campaign, token, branch=task_input["branch"])]
    return []


def _tail(campaign: str, token: str, branches: Sequence[str]) -> list[Json]:
    """What comes after the branches, in a row; its first joins them with all that they spawn."""
    tail: list[Json] = []
    parents: list[Json] = [{"ref": ref, "waitFor": "SUBTREE"} for ref in branches]
    for kind in TAIL:
        tail.append(new_task(kind, campaign, token) | {"ref": kind, "parents": parents})
        parents = [{"ref": kind}]
    return tail


@dataclass(frozen=True)
class AdsCall:
    path: str
    token: str
    body: Json


def ads_call(channel: str, task_input: Mapping[str, Any], parents: Sequence[Mapping[str, Any]]) -> AdsCall:
    """What to ask of the ads API, from the task's input and its parents' outputs.

    The path names the thing, so that an attempt whose answer was lost can be repeated.
    """
    campaign, branch = task_input["campaign"], task_input["branch"]
    body = carried(channel, parents) | {"name": campaign}
    if channel == "send_slack":
        body["text"] = f"{campaign} is live ({body['campaignId']})"
    name = campaign if branch is None else f"{campaign}.{branch}"
    return AdsCall(f"/{COLLECTIONS[channel]}/{name}", task_input["token"], body)


def output(channel: str, made_id: str, parents: Sequence[Mapping[str, Any]]) -> Json:
    """The task's output: the id that it got, with the ids that those below it need."""
    return carried(channel, parents) | {ID_NAMES[channel]: made_id}


def carried(channel: str, parents: Sequence[Mapping[str, Any]]) -> Json:
    """What comes down from the parents' outputs; the join keeps the campaign and every branch's ad."""
    if channel == "verify_assets":
        ads = [parent["adId"] for parent in parents if "adId" in parent]
        return {"campaignId": parents[0]["campaignId"], "adIds": ads}
    return dict(parents[0]) if parents else {}
