/** Tasks that many callers add to one group: they share calls, and each fares as if it had been alone. */

import assert from "node:assert/strict";
import { test } from "node:test";

import type { Api } from "../src/api.js";
import { Refused, Unavailable } from "../src/errors.js";
import { Group } from "../src/group.js";

type Json = Record<string, any>;

/** An Api that answers each call in a later turn; it refuses a call with this task by naming it. */
class Recorder {
  readonly calls: string[][] = [];

  constructor(private readonly refuse: (names: string[]) => Error | undefined = () => undefined) {}

  async ask(_: string, variables: Json): Promise<Json> {
    const names = variables["input"].tasks.map((task: Json) => task["name"]);
    this.calls.push(names);
    await new Promise((resolve) => setTimeout(resolve, 1));
    const refused = this.refuse(names);
    if (refused) throw refused;
    return {};
  }
}

const recorded = (refuse?: (names: string[]) => Error | undefined): [Group, Recorder] => {
  const api = new Recorder(refuse);
  return [new Group(api as unknown as Api, "many"), api];
};

const naming = (bad: string) => (names: string[]) =>
  names.includes(bad) ? new Refused(`${bad} is bad`, "BAD_INPUT", ["input", "tasks", names.indexOf(bad), "channel"]) : undefined;

const add = (group: Group, names: string[]): Promise<PromiseSettledResult<unknown>[]> =>
  Promise.allSettled(names.map((name) => group.add("work", { name }, { name })));

test("one that meets nobody goes at once, and makes the group first", async () => {
  const [group, api] = recorded();
  const planned = group.task("work", undefined, { name: "planned" });
  const added = await group.add("work", { n: 1 }, { name: "a", after: [planned] });
  assert.deepEqual(api.calls, [["planned"], ["a"]]);
  assert.ok(added.sent && planned.sent);
  assert.deepEqual(group.tasks, [planned]);
});

test("ten that add task after task share calls, and each task is created once", async () => {
  const [group, api] = recorded();
  const each = async (who: number): Promise<void> => {
    for (let n = 0; n < 10; n++) await group.add("work", undefined, { name: `${who}.${n}` });
  };
  await Promise.all(Array.from({ length: 10 }, (_, who) => each(who)));
  const [first, ...rest] = api.calls;
  assert.deepEqual(first, []);
  assert.equal(new Set(rest.flat()).size, 100);
  assert.equal(rest.flat().length, 100);
  assert.ok(rest.length < 50, `${rest.length} calls`);
});

test("who is refused is refused alone", async () => {
  const [group, api] = recorded(naming("c"));
  const ends = await add(group, ["a", "b", "c", "d"]);
  assert.deepEqual(ends.map((end) => end.status), ["fulfilled", "fulfilled", "rejected", "fulfilled"]);
  assert.match(String((ends[2] as PromiseRejectedResult).reason), /c is bad/);
  assert.deepEqual(api.calls.slice(1), [["a", "b", "c", "d"], ["a", "b", "d"], ["c"]]);
});

test("what is too large together goes in halves", async () => {
  const [group, api] = recorded((names) => (names.length > 2 ? new Refused("too large", "TOO_LARGE") : undefined));
  const ends = await add(group, ["a", "b", "c", "d", "e"]);
  assert.ok(ends.every((end) => end.status === "fulfilled"));
  assert.deepEqual(api.calls.slice(1), [["a", "b", "c", "d", "e"], ["a", "b"], ["c", "d", "e"], ["c"], ["d", "e"]]);
});

test("what concerns no task concerns all of them", async () => {
  for (const error of [new Refused("no such group", "NOT_FOUND", ["input", "groupId"]), new Unavailable("no answer")]) {
    const [group, api] = recorded((names) => (names.length ? error : undefined));
    const ends = await add(group, ["a", "b"]);
    assert.deepEqual(ends.map((end) => end.status === "rejected" && end.reason), [error, error]);
    assert.equal(api.calls.length, 2);
  }
});

test("what is no JSON is refused before anything is sent", async () => {
  const [group, api] = recorded();
  await assert.rejects(group.add("work", NaN), TypeError);
  assert.deepEqual(api.calls, []);
});
