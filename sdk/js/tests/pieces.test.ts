/** Groups of more tasks than one call takes: sent in pieces, some at once, parents before their children. */

import assert from "node:assert/strict";
import { test } from "node:test";

import type { Api } from "../src/api.js";
import { Group, parentsFirst } from "../src/group.js";

type Json = Record<string, any>;

/** An Api that answers the newest call first, once nothing more is sent; it refuses the piece with this task. */
class Recorder {
  readonly calls: string[][] = [];
  onWay = 0;
  most = 0;

  constructor(public refuse = "") {}

  async ask(_: string, variables: Json): Promise<Json> {
    const names = variables["input"].tasks.map((task: Json) => task["name"]);
    this.calls.push(names);
    this.most = Math.max(this.most, ++this.onWay);
    await new Promise((resolve) => setImmediate(resolve));
    this.onWay--;
    if (names.includes(this.refuse)) throw new Error(`${this.refuse} is bad`);
    return {};
  }
}

const planned = (count: number, refuse = ""): [Group, Recorder] => {
  const api = new Recorder(refuse);
  const group = new Group(api as unknown as Api, "many");
  for (let n = 0; n < count; n++) group.task("work", undefined, { name: `${n}` });
  return [group, api];
};

test("10,000 tasks go in one call, more in pieces of 2,000 after a small one that makes the group", async () => {
  const [few, one] = planned(10_000);
  await few.send();
  assert.deepEqual(one.calls.map((names) => names.length), [10_000]);
  const [many, several] = planned(11_000);
  await many.send();
  assert.deepEqual(several.calls.map((names) => names.length), [200, 2000, 2000, 2000, 2000, 2000, 800]);
  assert.equal(several.most, 3);
  assert.ok(many.tasks.every((task) => task.sent));
});

test("no piece goes while parents of its tasks are on the way", async () => {
  const [group, api] = planned(10_001);
  for (let n = 0; n < 10_000; n++) group.tasks[n]!.after(group.tasks[n + 1]!);
  await group.send();
  assert.equal(api.most, 1);
  assert.deepEqual(api.calls.flat(), Array.from({ length: 10_001 }, (_, n) => `${10_000 - n}`));
});

test("what was created stays when a later piece is refused, and the next send goes on from there", async () => {
  const [group, api] = planned(10_001, "7000");
  await assert.rejects(group.send(), /7000 is bad/);
  assert.equal(api.onWay, 0);
  const left = group.tasks.filter((task) => !task.sent).map((task) => task.name);
  assert.ok(left.includes("7000") && !left.includes("0"));
  api.refuse = "";
  await group.send();
  assert.ok(group.tasks.every((task) => task.sent));
});

test("tasks that wait for each other are left to the server", () => {
  const [group] = planned(2);
  group.tasks[0]!.after(group.tasks[1]!);
  group.tasks[1]!.after(group.tasks[0]!);
  assert.deepEqual(new Set(parentsFirst(group.tasks)), new Set(group.tasks));
});
