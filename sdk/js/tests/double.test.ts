/** The double of crew-worker/testing: the cases of sdk/conformance.json that need no network, and what it is for. */

import assert from "node:assert/strict";
import { describe, test } from "node:test";

import { Crew, TaskError, silent } from "../src/index.js";
import { Memory, inMemory, runTask } from "../src/testing.js";
import { CASES, Run, type Place } from "./case.js";

const NETWORK = ["faults", "sendOn", "transport"];

function memorial(): Place {
  const memory = new Memory(false);
  return {
    crew(options) {
      const crew = new Crew("memory", { logger: silent, transport: "long-poll", ...options });
      crew.api = memory;
      return crew;
    },
    portWith: async () => "memory",
    async nodes(_, group) {
      const tasks = [...memory.tasks.values()].filter((task) => task.groupId === group);
      return tasks.map((task) => ({
        ...task,
        remainingAttempts: task.remaining,
        progressMessage: task.message,
        heldBy: memory.held(task) ? ["WORKGROUP_SUSPENDED"] : [],
      }));
    },
    cancel: async (_, task) => memory.cancel(task),
  };
}

describe("the double conforms", { concurrency: 8 }, () => {
  for (const given of CASES.filter((given) => NETWORK.every((name) => !(name in given)))) {
    test(given["name"], () => new Run(given, memorial()).run());
  }
});

function flaky(): Crew {
  return new Crew("http://nobody.invalid", { logger: silent }).task("work", async (task) => {
    if (task.attempt < 3) throw new TaskError(`no ${task.attempt}`);
    return `done ${task.input}`;
  });
}

test("runTask goes through all attempts and takes no time", async () => {
  const began = performance.now();
  const done = await runTask(flaky(), "work", 7, { retry: { attempts: 5, delay: 3600 } });
  assert.deepEqual([done.state, done.output, done.attempt], ["SUCCEEDED", "done 7", 3]);
  assert.deepEqual(done.errors.map((error) => error["error"]), ["no 1", "no 2"]);
  assert.ok(performance.now() - began < 5000);
});

test("tasks with one key are done once", async () => {
  const crew = flaky();
  await inMemory(crew, async (memory) => {
    const group = crew.group("twins");
    for (const name of ["a", "b"]) group.task("work", 1, { name, key: "same" });
    await group.finished(10);
    assert.deepEqual(["a", "b"].map((name) => memory.task(name).output), ["done 1", "done 1"]);
    assert.equal(memory.task("a").attempt, 3);
  });
});
