"""The campaign as tasks: one seed, the tree that its completion continues with, and the ads call behind each task.

create_campaign ─┬─ create_adset ─ upload_video ─ create_creative ─ create_ad ─┬─ verify_assets ─ unpause_campaign ─ send_slack
                 └─ create_adset ─ upload_video ─ create_creative ─ create_ad ─┘
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


def continuations(seed_input: Mapping[str, Any]) -> list[Json]:
    """The NewTasks that completing the seed creates, parents before children, tied together by refs."""
    campaign, token = seed_input["campaign"], seed_input["token"]
    branches = range(1, seed_input["branches"] + 1)
    children = [task for branch in branches for task in _chain(BRANCH, campaign, token, branch)]
    tail = _chain(TAIL, campaign, token, None)
    tail[0]["parents"] = [{"ref": f"create_ad-{branch}"} for branch in branches]
    return children + tail


def _chain(kinds: Sequence[str], campaign: str, token: str, branch: int | None) -> list[Json]:
    """Tasks in a row. The first names no parent and so hangs from the task that is being completed."""
    chain: list[Json] = []
    for kind in kinds:
        parents = {"parents": [{"ref": chain[-1]["ref"]}]} if chain else {}
        ref = kind if branch is None else f"{kind}-{branch}"
        chain.append(new_task(kind, campaign, token, branch=branch) | {"ref": ref} | parents)
    return chain


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
        return {"campaignId": parents[0]["campaignId"], "adIds": [parent["adId"] for parent in parents]}
    return dict(parents[0]) if parents else {}
