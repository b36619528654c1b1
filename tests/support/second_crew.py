"""The second Crew's workers, as their JavaScript and Python spoke: acquire, work, release; and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

API = "/api/v1"


class Answered(AssertionError):
    """Not with a 200."""

    def __init__(self, response: httpx.Response) -> None:
        super().__init__(response.status_code, response.text)
        self.status = response.status_code
        self.body = response.json()


@dataclass
class Rest:
    http: httpx.AsyncClient

    async def ask(self, method: str, path: str, body: Any = None, **params: Any) -> Any:
        """The body of a 200. Raises Answered."""
        response = await self.http.request(method, API + path, params=params or None, json=body)
        if response.status_code != 200:
            raise Answered(response)
        return response.json()

    async def get(self, path: str, **params: Any) -> Any:
        return await self.ask("GET", path, **params)

    async def post(self, path: str, body: Any = None) -> Any:
        return await self.ask("POST", path, body)

    async def group(self, *tasks: dict[str, Any], **more: Any) -> tuple[str, list[dict[str, Any]]]:
        """A new group's id, and the documents of tasks made in it one by one; `after` names parents among them by place."""
        made: list[dict[str, Any]] = []
        group = await self.post("/task_groups", {"name": "g", **more})
        for task in tasks:
            parents = [made[n]["_id"] for n in task.pop("after", ())]
            body = {"name": "t", "channel": "c", **task, "parentIds": parents}
            made.append(await self.post(f"/task_group/{group['_id']}/tasks", body))
        return group["_id"], made

    async def acquire(self, worker: str = "w", channel: str = "c") -> Any:
        return await self.post(f"/channel/{channel}/acquire", {"workerId": worker})

    async def release(self, task: dict[str, Any] | str, worker: str = "w", **more: Any) -> Any:
        id = task if isinstance(task, str) else task["_id"]
        return await self.post(f"/task/{id}/release", {"workerId": worker, **more})


Job = Callable[[Any, list[Any]], Any]


@dataclass
class Worker:
    """Does a channel's tasks one after another until there is none. A job's result is {output, children?}; what it raises is sent
    as text. One call of two is answered into the void and sent again."""

    rest: Rest
    channel: str
    job: Job
    id: str = "w"
    pause_workgroup_seconds: float = 0
    done: list[str] = field(default_factory=list)

    async def run(self) -> list[str]:
        """The names of the tasks it did."""
        while True:
            got = await self.rest.acquire(self.id, self.channel)
            if got["task"] is None:
                return self.done
            task, sent = got["task"], {}
            try:
                result = self.job(task["input"], got["parents"])
                sent = {"output": result.get("output"), "children": result.get("children", [])}
            except Exception as error:
                sent = {"error": str(error)}
            if self.pause_workgroup_seconds:
                sent["workgroupDelayInSeconds"] = self.pause_workgroup_seconds
            first = await self.rest.release(task, self.id, **sent)
            again = await self.rest.release(task, self.id, **sent)
            assert again["isComplete"] == first["isComplete"]
            self.done.append(task["name"])
