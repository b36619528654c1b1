"""The parts of `crew demo` that need no server: the tree, the ads API's moods, the worker's answers, the picture."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from rich.console import Console

from server.demo import run
from server.demo.ads_api import Limit, create_ads_api
from server.demo.campaign import CHANNELS, ads_call, continuations, new_task, output, seed_task
from server.demo.picture import GROUP_FIELDS, picture
from server.demo.run import Lines, View, run_demo
from server.demo.worker import Crew, Refused, Suspensions, Worker
from server.terminal.dag import rows
from tests.support.drawing import link, node, text

Json = dict[str, Any]
NOW = "2025-01-01T00:00:00+00:00"


# ---------------------------------------------------------------- campaign


def test_the_seed_is_one_task_in_the_workgroup_of_its_token():
    seed = seed_task("campaign-a", "token-a")
    assert (seed["name"], seed["channel"], seed["workgroup"]) == ("create_campaign", "create_campaign", "token-a")
    assert seed["isSeed"] is True
    assert seed["input"] == {"campaign": "campaign-a", "token": "token-a", "branch": None, "branches": 2}
    assert seed["retry"] == {"maxAttempts": 8, "delaySeconds": 0.3, "backoff": 1.5, "maxDelaySeconds": 2}


def continued(task: Json) -> list[Json]:
    return continuations(task["channel"], task["input"])


@pytest.mark.parametrize("branches", [1, 2, 5])
def test_the_seed_continues_with_its_branches_and_the_tail_that_joins_all_they_spawn(branches: int):
    children = continued(seed_task("campaign-a", "token-a", branches=branches))
    heads = [f"branch-{n + 1}" for n in range(branches)]
    assert {child["ref"]: child.get("parents") for child in children} == {
        **dict.fromkeys(heads),
        "verify_assets": [{"ref": ref, "waitFor": "SUBTREE"} for ref in heads],
        "unpause_campaign": [{"ref": "verify_assets"}],
        "send_slack": [{"ref": "unpause_campaign"}],
    }
    assert {child["workgroup"] for child in children} == {"token-a"}


def test_each_step_of_a_branch_continues_with_the_next_under_itself():
    task = next(t for t in continued(seed_task("campaign-a", "token-a")) if t["ref"] == "branch-2")
    names = []
    while True:
        names.append(task["name"])
        following = continued(task)
        if not following:
            break
        (task,) = following
        assert "parents" not in task
        assert task["workgroup"] == "token-a"
    assert names == ["create_adset 2", "upload_video 2", "create_creative 2", "create_ad 2"]


@pytest.mark.parametrize(
    ("channel", "following"),
    [
        ("create_adset", "upload_video"),
        ("upload_video", "create_creative"),
        ("create_creative", "create_ad"),
        ("create_ad", None),
        ("verify_assets", None),
        ("unpause_campaign", None),
        ("send_slack", None),
    ],
)
def test_a_step_continues_with_this_one_task_or_none(channel: str, following: str | None):
    task = new_task(channel, "campaign-a", "token-a", branch=2)
    assert continued(task) == ([new_task(following, "campaign-a", "token-a", branch=2)] if following else [])


def test_verify_assets_names_the_ads_among_its_parents_in_their_order():
    named = [{"campaignId": "k", "adsetId": f"s{n}"} for n in (1, 2)]
    adopted = [named[0] | {"videoId": "v1"}, named[1] | {"adId": "ad2"}, named[0] | {"videoId": "v1", "adId": "ad1"}]
    task = new_task("verify_assets", "campaign-a", "token-a")
    call = ads_call(task["channel"], task["input"], named + adopted)
    assert call.body == {"campaignId": "k", "adIds": ["ad2", "ad1"], "name": "campaign-a"}
    made = output(task["channel"], "x", named + adopted)
    assert made == {"campaignId": "k", "adIds": ["ad2", "ad1"], "verificationId": "x"}


@pytest.mark.parametrize("branches", [1, 2])
async def test_each_task_finds_what_its_call_needs_in_its_parents_outputs(branches: int):
    seed = seed_task("campaign-a", "token-a", branches=branches)
    outputs: dict[str, Json] = {}
    async with ads_client(7, limits={}) as ads:

        async def run(task: Json, parents: list[Json]) -> Json:
            call = ads_call(task["channel"], task["input"], parents)
            answer = await put_until_it_works(ads, call.path, call.token, call.body)
            made = outputs[task["name"]] = output(task["channel"], answer.json()["id"], parents)
            return made

        campaign = await run(seed, [])
        *heads, verify, unpause, slack = continued(seed)
        named, adopted = [], []
        for task in heads:
            named.append(made := await run(task, [campaign]))
            while following := continued(task):
                (task,) = following
                adopted.append(made := await run(task, [made]))
        made = await run(verify, named + adopted)
        made = await run(slack, [await run(unpause, [made])])
    ads_made = [outputs[f"create_ad {n + 1}"]["adId"] for n in range(branches)]
    assert outputs["verify_assets"]["adIds"] == ads_made
    assert made["campaignId"] == campaign["campaignId"]


# ---------------------------------------------------------------- ads API


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def no_time(_: float) -> None:
    pass


def ads_client(seed: int, *, clock: Callable[[], float] | None = None, **options: Any) -> httpx.AsyncClient:
    app = create_ads_api(seed, clock=clock or Clock(), sleep=no_time, **options)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://ads")


async def put(ads: httpx.AsyncClient, path: str, token: str, body: Json | None = None) -> httpx.Response:
    return await ads.put(path, json=body or {}, headers={"Authorization": f"Bearer {token}"})


async def put_until_it_works(ads: httpx.AsyncClient, path: str, token: str, body: Json) -> httpx.Response:
    for _ in range(8):
        if (answer := await put(ads, path, token, body)).status_code != 500:
            break
    assert answer.status_code == 200, answer.text
    return answer


async def statuses(seed: int, *, backwards: bool = False) -> dict[tuple[str, int], int]:
    """The answers to 3 tries of each of 100 campaigns, in this order or the other."""
    found = {}
    async with ads_client(seed) as ads:
        paths = [f"/campaigns/c{n}" for n in range(100)]
        for path in reversed(paths) if backwards else paths:
            for attempt in range(3):
                found[path, attempt] = (await put(ads, path, "token-a")).status_code
    return found


async def test_the_same_seed_gives_the_same_failures_in_whatever_order_the_calls_come():
    first = await statuses(7)
    assert first == await statuses(7, backwards=True)
    assert first != await statuses(8)
    assert set(first.values()) == {200, 500}
    assert 0.10 < list(first.values()).count(500) / 300 < 0.20


async def test_a_repeated_call_answers_the_same_id():
    async with ads_client(7) as ads:
        ids = {(await put_until_it_works(ads, "/campaigns/c", "token-a", {})).json()["id"] for _ in range(5)}
    assert len(ids) == 1


async def test_the_fourth_call_of_token_b_is_refused_and_it_stays_out_for_the_time_named():
    clock = Clock()
    async with ads_client(7, clock=clock) as ads:
        answers = []
        for n, at in enumerate([0, 10, 20, 30, 31.5, 32]):
            clock.now = at
            answers.append(await put(ads, f"/campaigns/c{n}", "token-b"))
    assert [answer.status_code == 429 for answer in answers] == [False, False, False, True, True, False]
    assert [answer.headers.get("retry-after") for answer in answers[3:]] == ["2", "1", None]


async def test_token_b_is_refused_when_it_calls_too_often():
    clock = Clock()
    limits = {"token-b": Limit(calls=2, per_seconds=1, always=0)}
    async with ads_client(7, clock=clock, limits=limits) as ads:
        refused = []
        for clock.now in (0, 0.5, 0.9, 2.9, 3.5):
            refused.append((await put(ads, "/campaigns/c", "token-b")).status_code == 429)
    assert refused == [False, False, True, False, False]


async def test_a_refused_call_does_not_change_what_fails_later():
    async def luck(limits: dict[str, Limit]) -> list[int]:
        async with ads_client(7, limits=limits) as ads:
            return [(await put(ads, "/campaigns/c", "token-b")).status_code for _ in range(30)]

    limited = await luck({"token-b": Limit(calls=1000, retry_after_seconds=0)})
    assert limited[3] == 429
    assert limited[:3] + limited[4:] == (await luck({}))[:29]


async def test_token_a_is_never_refused():
    async with ads_client(7) as ads:
        found = {(await put(ads, f"/campaigns/c{n}", "token-a")).status_code for n in range(100)}
    assert found == {200, 500}


async def test_a_call_that_lacks_what_it_needs_is_told_so():
    async with ads_client(7) as ads:
        nameless = await ads.put("/campaigns/c", json={})
        answers = [await put(ads, "/ads/a", "token-a", {"adsetId": "x"}) for _ in range(8)]
    assert nameless.status_code == 401
    assert {(a.status_code, a.json()["message"]) for a in answers if a.status_code != 500} == {
        (422, "Missing: creativeId.")
    }


# ---------------------------------------------------------------- worker


class FakeCrew:
    """Answers exchanges with prepared leases, one each, and keeps what it was sent."""

    def __init__(self, *leases: Json, lose: int = 0) -> None:
        self.leases, self.lose = list(leases), lose
        self.sent: list[Json] = []
        self.stopping = asyncio.Event()

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        variables = json.loads(request.content)["variables"]
        self.sent.append(variables)
        if self.lose:
            self.lose -= 1
            raise httpx.ReadError("the answer was lost", request=request)
        lease = [self.leases.pop(0)] if self.leases else []
        if not lease and variables["more"]:
            self.stopping.set()
        return httpx.Response(200, json={"data": {"claimTasks": {"leases": lease}}})


def lease(channel: str = "create_campaign", id: str = "l1") -> Json:
    task_input = {"campaign": "c", "token": "token-b", "branch": None, "branches": 2}
    task = {"name": channel, "channel": channel, "workgroup": "token-b", "input": task_input}
    return {"id": id, "attempt": 1, "task": task, "parents": []}


async def run_worker(crew: FakeCrew, answer: httpx.Response, slots: int = 1) -> Worker:
    async with (
        httpx.AsyncClient(transport=httpx.MockTransport(crew)) as http,
        httpx.AsyncClient(transport=httpx.MockTransport(lambda _: answer), base_url="http://ads") as ads,
    ):
        worker = Worker("w", Crew(http, "http://crew/graphql"), ads, CHANNELS, crew.stopping, slots=slots)
        await worker.run()
    return worker


async def test_a_worker_completes_the_seed_with_its_continuations_and_claims_in_the_same_call():
    crew = FakeCrew(lease())
    await run_worker(crew, httpx.Response(200, json={"id": "campaigns-1"}))
    [done] = crew.sent[1]["done"]["results"]
    assert (done["lease"], done["output"]) == ("l1", {"campaignId": "campaigns-1"})
    assert done["children"] == continued(lease()["task"])
    assert crew.sent[1]["more"] is True


@pytest.mark.parametrize(("channel", "made"), [("create_adset", "adsets-1"), ("create_ad", "ads-1")])
async def test_a_worker_completes_a_step_with_what_follows_and_the_last_step_with_nothing(channel: str, made: str):
    task = new_task(channel, "c", "token-b", branch=2)
    crew = FakeCrew(lease(channel) | {"task": task})
    await run_worker(crew, httpx.Response(200, json={"id": made}))
    [done] = crew.sent[1]["done"]["results"]
    assert done.get("children") == (continued(task) or None)
    assert ("children" in done) is (channel == "create_adset")


async def test_a_rate_limit_suspends_the_workgroup_and_keeps_the_attempt():
    crew = FakeCrew(lease())
    worker = await run_worker(crew, httpx.Response(429, json={"message": "no"}, headers={"Retry-After": "2"}))
    assert crew.sent[1]["failed"]["failures"] == [
        {
            "lease": "l1",
            "error": {"status": 429, "message": "no"},
            "workgroupDelaySeconds": 2.0,
            "keepAttempt": True,
        }
    ]
    assert worker.suspensions.counts == {"token-b": 1}


async def test_an_error_fails_the_attempt_and_a_bad_call_is_discarded():
    for status, extra in ((500, {}), (422, {"discard": True})):
        crew = FakeCrew(lease())
        await run_worker(crew, httpx.Response(status, json={"message": "no"}))
        assert crew.sent[1]["failed"]["failures"] == [
            {"lease": "l1", "error": {"status": status, "message": "no"}} | extra
        ]


async def test_a_call_whose_answer_was_lost_is_repeated_as_it_was():
    crew = FakeCrew(lose=1)
    await run_worker(crew, httpx.Response(200))
    assert len(crew.sent) == 2
    assert crew.sent[0] == crew.sent[1]


async def test_leases_that_wait_for_a_token_are_given_back_unstarted_when_it_is_shut_out():
    crew = FakeCrew(lease(id="l1"), lease(id="l2"))
    await run_worker(crew, httpx.Response(429, json={}, headers={"Retry-After": "2"}), slots=2)
    assert {f["lease"] for sent in crew.sent for f in sent["failed"]["failures"]} == {"l1"}
    assert {back for sent in crew.sent for back in sent["back"]["leases"]} == {"l2"}


async def test_a_worker_that_is_stopped_while_it_waits_gives_back_what_its_claim_may_have_got():
    sent: list[Json] = []
    stopping = asyncio.Event()

    async def answer(request: httpx.Request) -> httpx.Response:
        sent.append(json.loads(request.content)["variables"])
        if len(sent) == 1:
            stopping.set()
            await asyncio.Event().wait()
        return httpx.Response(200, json={"data": {"claimTasks": {"leases": [lease()] if len(sent) == 2 else []}}})

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
        await Worker("w", Crew(http, "http://crew/graphql"), http, CHANNELS, stopping, slots=1).run()
    assert [call["claim"]["waitSeconds"] for call in sent] == [5, 0, 0]
    assert sent[1]["claim"]["claimId"] == sent[0]["claim"]["claimId"]
    assert (sent[2]["back"], sent[2]["more"]) == ({"leases": ["l1"]}, False)


async def test_what_the_server_refuses_is_not_repeated():
    def refuse(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"errors": [{"message": "no", "extensions": {"code": "BAD_INPUT"}}]})

    async with httpx.AsyncClient(transport=httpx.MockTransport(refuse)) as http:
        with pytest.raises(Refused, match="no"):
            await Crew(http, "http://crew/graphql").call("{ server { now } }", {})


def test_refusals_while_a_token_is_out_belong_to_the_same_suspension():
    suspensions = Suspensions()
    suspensions.note("token-b", 60)
    suspensions.note("token-b", 60)
    suspensions.note("token-c", 0)
    suspensions.note("token-c", 0)
    assert suspensions.counts == {"token-b": 1, "token-c": 2}


# ---------------------------------------------------------------- picture


def grown(*ended: str) -> Json:
    """The graph of a campaign once these have succeeded, by name, as the server grows it: the join adopts the branches."""
    waiting = {"create_campaign": seed_task("campaign-a", "token-a")}
    nodes, edges = {"create_campaign": node("create_campaign", "READY", attempt=0)}, []
    for name in ended:
        nodes[name] |= {"state": "SUCCEEDED", "attempt": 1}
        children = continued(waiting.pop(name))
        names = {child.get("ref"): child["name"] for child in children}
        for child in children:
            waiting[child["name"]] = child
            nodes[child["name"]] = node(child["name"], "BLOCKED", attempt=0)
            for parent in child.get("parents", ()):
                edges.append(link(names[parent["ref"]], child["name"], parent.get("waitFor", "TASK")))
            if "parents" not in child:
                edges.append(link(name, child["name"]))
                if name != "create_campaign":
                    edges.append(link(child["name"], "verify_assets", "SUBTREE", adopted=True))
    return {"nodes": list(nodes.values()), "edges": edges}


def shape(graph: Json) -> list[str]:
    """The lanes with the names of what stands in them."""
    drawn = [(row.lanes, row.node["name"] if row.node else "") for row in rows(graph["nodes"], graph["edges"])]
    return [f"{lanes:3} {name}".rstrip() for lanes, name in drawn]


TIP = ["│   verify_assets", "│   unpause_campaign", "│   send_slack"]


@pytest.mark.parametrize(
    ("ended", "branches"),
    [
        ([], ["│ │ create_adset 1", "│ │ create_adset 2"]),
        (["create_adset 2"], ["│ │ create_adset 1", "│ │ create_adset 2", "│ │ upload_video 2"]),
        (
            ["create_adset 2", "create_adset 1", "upload_video 2", "create_creative 2"],
            [
                "│ │ create_adset 1",
                "│ │ upload_video 1",
                "│ │ create_adset 2",
                "│ │ upload_video 2",
                "│ │ create_creative 2",
                "│ │ create_ad 2",
            ],
        ),
        (
            [f"{kind} {n}" for kind in ("create_adset", "upload_video", "create_creative") for n in (1, 2)],
            [
                f"│ │ {kind} {n}"
                for n in (1, 2)
                for kind in ("create_adset", "upload_video", "create_creative", "create_ad")
            ],
        ),
    ],
)
def test_the_join_hangs_from_the_current_tips_while_the_campaign_grows(ended: list[str], branches: list[str]):
    drawn = shape(grown("create_campaign", *ended))
    assert drawn == ["│   create_campaign", "├─┐", *branches, "├─┘", *TIP]


def test_the_picture_asks_for_what_tells_a_join():
    assert "edges { parentId childId waitFor isAdopted }" in GROUP_FIELDS


@pytest.mark.parametrize("width", [60, 80, 100])
def test_the_picture_shows_campaigns_progress_and_suspended_workgroups(width: int):
    steps = ("create_adset", "upload_video", "create_creative")
    graph = grown("create_campaign", *(f"{kind} {n}" for n in (1, 2) for kind in steps))
    nodes = graph["nodes"]
    nodes[0]["attempt"] = 2
    groups = [{"name": f"campaign-{x}", "progress": {"fraction": 0.25}, "graph": graph} for x in "ab"]
    workgroups = {"token-a": None, "token-b": {"suspendedUntil": "2025-01-01T00:00:01.6Z", "reason": "429"}}
    drawn = text(picture(groups, workgroups, NOW, width=width), width)
    for name in ["campaign-a", "campaign-b", *(n["name"] for n in nodes)]:
        assert drawn.count(name) == (1 if name.startswith("campaign") else 2), name
    assert drawn.count("SUCCEEDED ×2") == 2
    assert drawn.count("SUCCEEDED") == 2 * 7
    assert drawn.count("BLOCKED") == 2 * 5
    assert drawn.count("25%") == 2
    assert "token-a runs freely" in drawn
    assert "token-b suspended, 1.6 s to go: 429" in drawn


# ---------------------------------------------------------------- run


def test_plain_lines_tell_each_change_once():
    def view(state: str, attempt: int, until: str | None) -> View:
        group = {"name": "campaign-a", "graph": {"nodes": [node("create_ad 2", state, attempt=attempt)]}}
        return View(NOW, [group], {"token-a": {"suspendedUntil": until, "reason": None}})

    later = "2025-01-01T00:00:02Z"
    views = [view("RUNNING", 1, None), view("READY", 1, later), view("READY", 1, later), view("RUNNING", 2, None)]
    lines = Lines(Console())
    assert [list(lines.changes(view)) for view in views] == [
        ["campaign-a create_ad 2 new → RUNNING (attempt 1)"],
        ["campaign-a create_ad 2 RUNNING → READY (attempt 1)", "token-a suspended, 2.0 s to go"],
        [],
        ["campaign-a create_ad 2 READY → RUNNING (attempt 2)", "token-a goes on"],
    ]


async def test_a_demo_that_gets_nowhere_says_so_and_exits_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(run, "TIME_OUT_SECONDS", 0.5)
    before = asyncio.all_tasks()
    with pytest.raises(SystemExit) as ended:
        await run_demo("http://127.0.0.1:9", plain=True)
    assert ended.value.code == 1
    assert "Not finished after 0.5 s: no answer from http://127.0.0.1:9/graphql." in capsys.readouterr().out
    assert asyncio.all_tasks() == before
