/**
 * Tests of handlers, and of whole DAGs, without a server: a double of it runs in memory, by the same rules.
 *
 *     import { inMemory, runTask } from "crew-worker/testing";
 *
 *     test("greet", async () => {
 *       const done = await runTask(crew, "greet", { name: "you" });
 *       assert.deepEqual([done.state, done.output], ["SUCCEEDED", "hello you"]);
 *     });
 *
 *     test("campaign", () =>
 *       inMemory(crew, async (memory) => {
 *         const group = crew.group("campaign");
 *         group.task("create_ad", { name: "first" });
 *         await group.finished();
 *         assert.equal(memory.task("create_ad").attempt, 2);
 *       }));
 *
 * Delays and back-offs take no time there: when nothing runs and only time could help, the clock is put forward.
 */

import type { Crew } from "./client.js";
import type { TaskOptions } from "./draft.js";
import { Memory, type Stored } from "./memory.js";
import type { Options } from "./worker.js";

export { Memory, Stored } from "./memory.js";

/** While `test` runs, `crew` speaks to a server in memory, and its worker runs. The options are those of `Crew.work`. */
export async function inMemory<Value>(
  crew: Crew,
  test: (memory: Memory) => Promise<Value>,
  { skipDelays = true, ...options }: Options & { skipDelays?: boolean } = {},
): Promise<Value> {
  const memory = new Memory(skipDelays);
  const before = crew.api;
  crew.api = memory;
  const work = crew.handlers.size ? crew.work({ transport: "long-poll", stopSeconds: 1, ...options }) : undefined;
  try {
    return await test(memory);
  } finally {
    crew.stop();
    await work?.catch(() => {});
    crew.api = before;
  }
}

/** Runs one task to its end, through all its attempts. The options are those of `Group.task`. Rejects with TimeoutError. */
export function runTask(crew: Crew, channel: string, input?: unknown, options: TaskOptions = {}, timeout = 10): Promise<Stored> {
  return inMemory(crew, async (memory) => {
    const task = crew.group("test").task(channel, input, options);
    await task.finished(timeout);
    return memory.tasks.get(task.id)!;
  });
}
