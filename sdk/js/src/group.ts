/** Producing: a DAG built in JavaScript, sent in one call, and waited for; or a group that many add to, task by task. */

import { Adding } from "./adding.js";
import { now, type Api, type Json } from "./api.js";
import { pause } from "./backoff.js";
import { CREATE_GROUP, CREATE_TASKS, EVENTS_POLL, FAILED_TASKS, GROUP, TASK } from "./documents.js";
import { Draft, type Parent, type TaskOptions } from "./draft.js";
import { GroupStuck, Refused, TaskFailed, TimeoutError } from "./errors.js";
import { newId } from "./ids.js";
import { encode } from "./json.js";
import { current, withTrace } from "./tracing.js";
import { sleep } from "./waiting.js";

const ENDED = new Set(["SUCCEEDED", "FAILED", "CANCELLED"]);
/** In these something goes on by itself. */
const MOVING = ["SCHEDULED", "READY", "RUNNING", "MERGED"];
const WAIT_SECONDS = 20;
/** How long each call may go without an answer. */
const ASK_SECONDS = 60;
/** So many tasks go in one call, or not at all. */
const MOST = 10_000;
/** More go in calls of so many, of which so many are on the way at once. */
const [PIECE, AT_ONCE] = [2_000, 3];
/** All wait for the first call, which makes the group. */
const FIRST = 200;
const ENDING = ["SUCCEEDED", "FAILED", "CANCELLED", "GROUP_FINISHED", "GROUP_DELETED", "DELETED"];

/** A task that has ended. */
interface Ended {
  name: string;
  state: string;
  output: any;
  errors: unknown[];
}

export interface GroupOptions {
  id?: string;
  metadata?: unknown;
  paused?: boolean;
}

/** What `add` takes: the options of a task, and what it waits for. */
export interface AddOptions<Result = any> extends TaskOptions<Result> {
  after?: Parent[];
  afterSubtree?: Parent[];
}

/**
 * One task group. `task` plans, `send` creates what is planned (in one call, safe to repeat), `finished` waits.
 *
 * `add` creates one task now: for groups that many callers of a program add to, for as long as they like.
 */
export class Group {
  readonly id: string;
  readonly tasks: Draft<any>[] = [];
  private created = false;
  private readonly adding = new Adding((tasks) => this.createAdded(tasks));

  constructor(
    private readonly api: Api,
    readonly name: string,
    private readonly options: GroupOptions = {},
  ) {
    this.id = options.id ?? newId();
  }

  /** Plan a task. */
  task<Result = any>(channel: string, input?: unknown, options: TaskOptions<Result> = {}): Draft<Result> {
    const planned = new Draft<Result>(channel, input, options, this);
    this.tasks.push(planned);
    return planned;
  }

  /**
   * Create a task now, and the group with what is planned if need be.
   *
   * Callers that add at the same time share calls, and each fares as if it had been alone. Rejects with Refused: then it was not
   * created; with Unavailable: then it may have been; with TypeError for what is no JSON. The group keeps nothing of it.
   */
  async add<Result = any>(channel: string, input?: unknown, options: AddOptions<Result> = {}): Promise<Draft<Result>> {
    const { after = [], afterSubtree = [], ...rest } = options;
    const planned = new Draft<Result>(channel, input, rest, this).after(...after).afterSubtree(...afterSubtree);
    const made = withTrace(planned.asInput(), current());
    encode(made); // What is no JSON is for its own caller to hear of.
    if ([...after, ...afterSubtree].some((parent) => parent instanceof Draft && !parent.sent)) await this.send();
    await this.adding.add(made);
    planned.sent = true;
    return planned;
  }

  /**
   * Create the group with what is planned, or what was planned since. Rejects with Refused: then nothing was created.
   *
   * More than 10,000 tasks go in several calls, some of them at once, parents before their children: what was created before one
   * is refused stays, and the next `send` goes on from there. Tasks that were on the way together may trade places in line.
   */
  async send(): Promise<this> {
    const unsent = this.tasks.filter((task) => !task.sent);
    if (unsent.length <= MOST) await this.create(unsent);
    else await this.sendPieces(parentsFirst(unsent));
    return this;
  }

  private async sendPieces(tasks: Draft<any>[]): Promise<void> {
    const onWay = new Map<Promise<unknown>, Set<string>>();
    try {
      for (let start = 0; start < tasks.length; ) {
        if (!this.created) await answered(onWay, 0);
        const piece = tasks.slice(start, start + (this.created ? PIECE : FIRST));
        start += piece.length;
        const parents = piece.flatMap((task) => task.parentIds);
        const waits = [...onWay.values()].some((ids) => parents.some((id) => ids.has(id)));
        await answered(onWay, waits ? 0 : AT_ONCE - 1);
        const call: Promise<unknown> = this.create(piece).finally(() => onWay.delete(call));
        onWay.set(call, new Set(piece.map((task) => task.id)));
      }
      await answered(onWay, 0);
    } finally {
      await Promise.allSettled(onWay.keys());
    }
  }

  private async create(unsent: Draft<any>[]): Promise<void> {
    const here = current();
    const tasks = unsent.map((task) => withTrace(task.asInput(), here));
    if (!this.created) {
      const { metadata, paused = false } = this.options;
      const group: Json = { id: this.id, name: this.name, isPaused: paused, tasks };
      if (metadata != null) group["metadata"] = metadata;
      await this.ask(CREATE_GROUP, { input: group });
      this.created = true;
    } else if (tasks.length) {
      await this.createAdded(tasks);
    }
    for (const task of unsent) task.sent = true;
  }

  private async createAdded(tasks: Json[]): Promise<void> {
    if (!this.created) await this.send();
    await this.ask(CREATE_TASKS, { input: { groupId: this.id, tasks } });
  }

  /**
   * Sends what is unsent, and waits until every task has SUCCEEDED or is CANCELLED.
   *
   * Rejects with GroupStuck when nothing in it goes on by itself, with TimeoutError after `timeout` seconds.
   */
  async finished(timeout?: number): Promise<this> {
    if (!this.created || this.tasks.some((task) => !task.sent)) await this.send();
    for await (const _ of this.news(timeout)) {
      const found: Json | null = (await this.ask(GROUP, { id: this.id }))["taskGroup"];
      if (!found) throw new Refused(`no task group ${this.id}`, "NOT_FOUND", ["id"]);
      const counts = new Map<string, number>(found["progress"].counts.map((count: Json) => [count["state"], count["count"]]));
      if (found["finishedAt"] || ![...counts.values()].some(Boolean)) return this;
      if (counts.get("FAILED") && !MOVING.some((state) => counts.get(state)) && !found["isPaused"]) {
        throw new GroupStuck(this.name, await this.failed());
      }
    }
    throw new Error("unreachable");
  }

  /** @internal */
  async ended(task: Draft<any>, timeout?: number): Promise<Ended> {
    if (!task.sent) await this.send();
    for await (const _ of this.news(timeout, task.id)) {
      const found: Json | null = (await this.ask(TASK, { id: task.id }))["task"];
      if (!found) throw new Refused(`no task ${task.id}`, "NOT_FOUND", ["id"]);
      if (ENDED.has(found["state"])) return { name: found["name"], state: found["state"], output: found["output"], errors: errorsOf(found) };
    }
    throw new Error("unreachable");
  }

  /** @internal */
  async output(task: Draft<any>, timeout?: number): Promise<any> {
    const { name, state, output, errors } = await this.ended(task, timeout);
    if (state !== "SUCCEEDED") throw new TaskFailed(name, state, errors);
    return output;
  }

  private ask(document: string, variables: Json, wait = 0): Promise<Json> {
    return this.api.ask(document, variables, { wait, patience: ASK_SECONDS });
  }

  private async failed(): Promise<TaskFailed[]> {
    const found: Json[] = (await this.ask(FAILED_TASKS, { id: this.id }))["tasks"].nodes;
    return found.map((task) => new TaskFailed(task["name"], task["state"], errorsOf(task)));
  }

  /** Yields at once, and whenever it is time to look again: by the event log, or every so often without it. */
  private async *news(timeout?: number, task?: string): AsyncGenerator<void> {
    const giveUp = timeout === undefined ? Infinity : now() + timeout;
    const filter: Json = { groupId: this.id, kinds: ENDING, ...(task && { taskIds: [task] }) };
    let cursor: string | null = null;
    let hasEvents = true;
    for (let looks = 0; ; looks++) {
      const left = giveUp - now();
      if (left <= 0 && looks) throw new TimeoutError(`${this.name} is not finished after ${timeout} s`);
      if (hasEvents) {
        try {
          const wait = Math.min(WAIT_SECONDS, Math.max(0, left));
          const asked: Json = { after: cursor, filter, waitSeconds: wait };
          cursor = (await this.ask(EVENTS_POLL, asked, wait))["taskEvents"].cursor;
        } catch (error) {
          if (!(error instanceof Refused)) throw error;
          // CURSOR_EXPIRED says to read afresh; a server without the event log knows no such field.
          hasEvents = error.code === "CURSOR_EXPIRED";
          cursor = null;
        }
      } else if (looks) {
        await sleep(Math.min(pause(looks, 0.1, 2), Math.max(0, left)));
      }
      yield;
    }
  }
}

/** Until no more than so many are on the way. */
async function answered(onWay: Map<Promise<unknown>, unknown>, most: number): Promise<void> {
  while (onWay.size > most) await Promise.race(onWay.keys());
}

/** In the order planned, but none before its parents. (What waits for itself is for the server to refuse.) */
export function parentsFirst(tasks: Draft<any>[]): Draft<any>[] {
  const planned = new Map(tasks.map((task) => [task.id, task]));
  const ordered = new Map<string, Draft<any>>();
  const begun = new Set<string>();
  for (const task of tasks) {
    const line = [task];
    for (let last = line.at(-1); last; last = line.at(-1)) {
      begun.add(last.id);
      const before = last.parentIds.flatMap((id) => (begun.has(id) ? [] : (planned.get(id) ?? [])));
      if (before.length) line.push(...before);
      else if (line.pop() && !ordered.has(last.id)) ordered.set(last.id, last);
    }
  }
  return [...ordered.values()];
}

function errorsOf(task: Json): unknown[] {
  return task["errors"].map((error: Json) => error["error"]);
}
