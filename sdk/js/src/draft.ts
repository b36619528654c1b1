/** A task that is being planned: by a producer for a group, or by a handler as a continuation of its own task. */

import type { Json } from "./api.js";
import type { Group } from "./group.js";
import { newId } from "./ids.js";

export type OnDuplicate = "MERGE" | "RETURN_EXISTING" | "REJECT" | "ALLOW";
export type OnParentFailure = "BLOCK" | "CANCEL" | "RUN";

/** Up to `attempts`; before the next one delay × backoff^(n−1) seconds, at most `maxDelay`. */
export interface RetryPolicy {
  attempts?: number;
  delay?: number;
  backoff?: number;
  maxDelay?: number;
}

/** Times are in seconds. */
export interface TaskOptions<Result = any> {
  name?: string;
  workgroup?: string;
  key?: string;
  onDuplicate?: OnDuplicate;
  priority?: number;
  runAfter?: Date;
  delay?: number;
  retry?: RetryPolicy | number;
  timeout?: number;
  weight?: number;
  seed?: boolean;
  onParentFailure?: OnParentFailure;
  metadata?: unknown;
  /** Makes the result of the output: a parser of zod or the like, or any function. */
  returns?: (output: any) => Result;
  id?: string;
}

export type Parent = Draft<any> | string;

/** One planned task. `after` and `afterSubtree` say what it waits for; both return it. */
export class Draft<Result = any> {
  readonly id: string;
  readonly name: string;
  sent = false;
  private readonly parents: [Parent, "TASK" | "SUBTREE"][] = [];

  constructor(
    readonly channel: string,
    readonly input: unknown = undefined,
    private readonly options: TaskOptions<Result> = {},
    private readonly group?: Group,
  ) {
    this.id = options.id ?? newId();
    this.name = options.name ?? channel;
  }

  /** Wait for these tasks: planned here, or the ids of tasks of the same group. */
  after(...parents: Parent[]): this {
    for (const parent of parents) this.parents.push([parent, "TASK"]);
    return this;
  }

  /** Wait for these tasks and all that they go on to spawn: the join of a tree that still grows. */
  afterSubtree(...parents: Parent[]): this {
    for (const parent of parents) this.parents.push([parent, "SUBTREE"]);
    return this;
  }

  /** The tasks it waits for, in any way. */
  get parentIds(): string[] {
    return this.parents.map(([parent]) => (typeof parent === "string" ? parent : parent.id));
  }

  /** The NewTask to send. */
  asInput(): Json {
    const o = this.options;
    const given: Json = {
      id: this.id,
      name: this.name,
      channel: this.channel,
      workgroup: o.workgroup,
      key: o.key,
      onDuplicate: o.onDuplicate,
      priority: o.priority,
      runAfter: o.runAfter?.toISOString(),
      delaySeconds: o.delay,
      retry: o.retry === undefined ? undefined : policy(o.retry),
      timeoutSeconds: o.timeout,
      progressWeight: o.weight,
      isSeed: o.seed,
      onParentFailure: o.onParentFailure,
      input: this.input ?? undefined,
      metadata: o.metadata ?? undefined,
      parents: this.parents.length ? this.parents.map(([parent, waitFor]) => link(parent, waitFor)) : undefined,
    };
    return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined));
  }

  /** The state in which the task has ended. Rejects with TimeoutError after `timeout` seconds. */
  async finished(timeout?: number): Promise<string> {
    return (await this.ofGroup().ended(this, timeout)).state;
  }

  /** Its output, through `returns`, once it has succeeded. Rejects with TaskFailed, TimeoutError. */
  async result(timeout?: number): Promise<Result> {
    const output = await this.ofGroup().output(this, timeout);
    return this.options.returns ? this.options.returns(output) : output;
  }

  private ofGroup(): Group {
    if (this.group) return this.group;
    throw new Error(`${this.name} is a continuation: only tasks of a group can be waited for here`);
  }
}

function policy(given: RetryPolicy | number): Json {
  const { attempts = 5, delay = 30, backoff = 1, maxDelay = 3600 } = typeof given === "number" ? { attempts: given } : given;
  return { maxAttempts: attempts, delaySeconds: delay, backoff, maxDelaySeconds: maxDelay };
}

/** A ParentInput. */
function link(parent: Parent, waitFor: "TASK" | "SUBTREE"): Json {
  const place = { id: typeof parent === "string" ? parent : parent.id };
  return waitFor === "TASK" ? place : { ...place, waitFor };
}
