"""The half of the campaign that is in Python. Each task continues with the next of its branch, made when it completes."""

import os

import ads

from crew_worker import Crew, RetryPolicy, Task

crew = Crew(concurrency=20)
RETRY = RetryPolicy(attempts=10, delay=0.2, backoff=1.5, max_delay=2)


@crew.task("create_campaign")
def create_campaign(task: Task) -> dict:
    return {"campaign": ads.call("campaign", task.workgroup)}


@crew.task("create_adset")
def create_adset(task: Task) -> dict:
    adset = ads.call("adset", task.workgroup, **task.outputs[0])
    task.spawn("upload_video", {"file": task.input["video"]}, workgroup=task.workgroup, retry=RETRY)
    return {"adset": adset}


@crew.task("create_creative")
def create_creative(task: Task) -> dict:
    creative = ads.call("creative", task.workgroup, **task.outputs[0])
    task.spawn("create_ad", workgroup=task.workgroup, retry=RETRY)
    return {"creative": creative}


@crew.task("create_ad")
def create_ad(task: Task) -> dict:
    return {"ad": ads.call("ad", task.workgroup, **task.outputs[0])}


@crew.task("unpause_campaign")
def unpause_campaign(task: Task) -> dict:
    return {**task.outputs[0], "unpaused": True, "by": f"python {os.getpid()}"}


if __name__ == "__main__":
    crew.run()
