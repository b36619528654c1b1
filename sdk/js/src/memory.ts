/**
 * A task server in memory, by the rules of the real one, for tests of handlers and of DAGs. `testing` is its face.
 *
 * What it leaves out: leases never run out, time-outs are not kept, and it takes only what this package sends.
 */

import { Answer, Api, now, type CallOptions, type Json } from "./api.js";
import { CREATE_GROUP, CREATE_TASKS, EVENTS_POLL, FAILED_TASKS, GROUP, TASK } from "./documents.js";
import { Refused } from "./errors.js";
import { newId } from "./ids.js";
import { decode, encode } from "./json.js";
import { silent } from "./log.js";
import { Aborted, Flag } from "./waiting.js";

const ENDED = ["SUCCEEDED", "FAILED", "CANCELLED"];
const RETRY = { maxAttempts: 5, delaySeconds: 30, backoff: 1, maxDelaySeconds: 3600 };
const LONG = 3600;

/** A task as the server has it. */
export class Stored {
  readonly id: string;
  readonly name: string;
  readonly channel: string;
  readonly workgroup: string | null;
  readonly key: string | null;
  readonly input: any;
  readonly metadata: any;
  readonly priority: number;
  state = "BLOCKED";
  attempt = 0;
  output: any = null;
  readonly errors: Json[] = [];
  progress: number | null = null;
  message: string | null = null;
  remaining: number;
  /** @internal */
  failures = 0;
  /** Parents, and whether their subtrees are waited for too. @internal */
  readonly links: [Stored, boolean][] = [];
  /** The running task of the same channel and key that it rides with. @internal */
  into: Stored | undefined;
  /** @internal */
  readonly retry: typeof RETRY;

  constructor(
    /** @internal */
    readonly given: Json,
    readonly groupId: string,
    /** @internal */
    readonly seq: number,
    /** @internal */
    public runAfter: number,
    /** @internal */
    readonly spawnedBy?: Stored,
  ) {
    this.id = given["id"];
    this.name = given["name"];
    this.channel = given["channel"];
    this.workgroup = given["workgroup"] ?? null;
    this.key = given["key"] ?? null;
    this.input = given["input"] ?? null;
    this.metadata = given["metadata"] ?? null;
    this.priority = given["priority"] ?? 0;
    this.retry = { ...RETRY, ...given["retry"] };
    this.remaining = this.retry.maxAttempts;
  }

  /** @internal */
  get merges(): boolean {
    return this.key !== null && (this.given["onDuplicate"] ?? "MERGE") === "MERGE";
  }

  /** @internal */
  sameWork(other: Stored): boolean {
    return this !== other && this.channel === other.channel && this.key === other.key;
  }

  /** Spawned by it, or by what it spawned. @internal */
  under(parent: Stored): boolean {
    return this.spawnedBy !== undefined && (this.spawnedBy === parent || this.spawnedBy.under(parent));
  }

  /** Whether it waits for the other, at any distance. @internal */
  below(other: Stored): boolean {
    const seen = new Set<Stored>();
    const rest = this.links.map(([parent]) => parent);
    for (let here = rest.pop(); here; here = rest.pop()) {
      if (here === other) return true;
      if (!seen.has(here)) rest.push(...here.links.map(([parent]) => parent));
      seen.add(here);
    }
    return false;
  }
}

interface Lease {
  id: string;
  task: Stored;
  worker: string;
}

/** Takes the place of the connection to a server. `skipDelays`: when only time could help, time goes on at once. */
export class Memory extends Api {
  readonly tasks = new Map<string, Stored>();
  readonly groups = new Map<string, Json>();
  private readonly leases = new Map<string, Lease>();
  /** Lease → how it ended, and what a repeat is told. */
  private readonly over = new Map<string, { how: string; code: string }>();
  private readonly suspended = new Map<string, number>();
  private skipped = 0;
  private seq = 0;
  private version = 0;
  private change = new Flag();

  constructor(private readonly skipDelays = true) {
    super("memory", undefined, undefined, undefined, silent);
  }

  // -- looking

  /** The newest task of this name. */
  task(name: string): Stored {
    const found = [...this.tasks.values()].filter((task) => task.name === name).at(-1);
    if (!found) throw new Error(`there is no task ${name}`);
    return found;
  }

  /** Its workgroup is suspended, or its group paused. */
  held(task: Stored): boolean {
    return (this.suspended.get(task.workgroup ?? "") ?? 0) > this.time || this.groups.get(task.groupId)?.["isPaused"];
  }

  private get time(): number {
    return now() + this.skipped;
  }

  // -- people

  cancel(...ids: string[]): void {
    for (const task of ids.map((id) => this.tasks.get(id)!)) {
      if (task.state === "SUCCEEDED" || task.state === "CANCELLED") continue;
      for (const lease of [...this.leases.values()]) if (lease.task === task) this.end(lease, "", "CANCELLED");
      task.state = "CANCELLED";
    }
    this.settle();
  }

  // -- the connection

  override async call(body: string, options: CallOptions = {}): Promise<Answer> {
    const { query, variables } = decode(body);
    const data: Json = {};
    const refused: Record<string, Refused> = {};
    for (const [name, work] of this.fields(query, variables, options)) {
      try {
        data[name] = await work();
      } catch (error) {
        if (!(error instanceof Refused)) throw error;
        data[name] = null;
        refused[name] = error;
      }
    }
    // What came over a wire may be changed by nobody: answers are JSON made anew.
    return new Answer(decode(encode(data)), refused);
  }

  private fields(query: string, asked: Json, options: CallOptions): [string, () => any][] {
    const known: Record<string, [string, () => any]> = {
      [CREATE_GROUP]: ["createTaskGroup", () => this.createGroup(asked["input"])],
      [CREATE_TASKS]: ["createTasks", () => this.create(asked["input"])],
      [GROUP]: ["taskGroup", () => this.group(asked["id"])],
      [TASK]: ["task", () => told(this.tasks.get(asked["id"]))],
      [FAILED_TASKS]: ["tasks", () => ({ nodes: this.of(asked["id"]).filter((task) => task.state === "FAILED").map(told) })],
      [EVENTS_POLL]: ["taskEvents", () => this.events(asked["after"], asked["waitSeconds"])],
    };
    if (known[query]) return [known[query]];
    const work: Record<string, (given: Json) => any> = {
      completeTasks: (given) => this.results(given["results"], "completed", (lease, item) => this.complete(lease, item)),
      failTasks: (given) => this.results(given["failures"], "failed", (lease, item) => this.fail(lease, item)),
      releaseLeases: ({ leases }) =>
        this.results(leases.map((lease: string) => ({ lease })), "released", (lease) => this.release(lease)),
      extendLeases: (given) => this.extend(given),
      claimTasks: (given) => this.claim(given, options.signal),
    };
    if (Object.keys(asked).some((name) => !work[name])) throw new Refused("the server in memory knows only what crew-worker itself sends");
    return Object.keys(work).filter((name) => name in asked).map((name) => [name, () => work[name]!(asked[name])]);
  }

  // -- creating

  private createGroup(given: Json): Json {
    if (!this.groups.has(given["id"])) {
      const made = this.made(given["id"], given["tasks"]);
      this.groups.set(given["id"], given);
      this.insert(made);
    }
    return { taskGroup: { id: given["id"] } };
  }

  private create({ groupId, tasks }: Json): Json {
    this.insert(this.made(groupId, tasks));
    return { tasks: tasks.map(({ id }: Json) => ({ id })) };
  }

  /** New tasks with their links; nothing is changed. Throws Refused. */
  private made(groupId: string, given: Json[], spawnedBy?: Stored): Stored[] {
    const made = new Map<string, Stored>();
    given.forEach((item, n) => {
      if (!item["channel"]) throw new Refused("channel is empty", "BAD_INPUT", ["tasks", n, "channel"]);
      if (!Number.isInteger(item["priority"] ?? 0)) throw new Refused("priority is no whole number", "BAD_INPUT", ["tasks", n, "priority"]);
      made.set(item["id"], new Stored(item, groupId, this.seq++, this.time + (item["delaySeconds"] ?? 0), spawnedBy));
    });
    for (const task of made.values()) {
      for (const link of task.given["parents"] ?? []) {
        const parent = made.get(link.id) ?? this.tasks.get(link.id);
        if (!parent) throw new Refused("no such parent", "BAD_INPUT", ["tasks", "parents"]);
        task.links.push([parent, link.waitFor === "SUBTREE"]);
      }
      if (!task.links.length && spawnedBy) task.links.push([spawnedBy, false]);
    }
    for (const task of made.values()) {
      if (task.below(task)) throw new Refused("the tasks wait for each other in a cycle", "BAD_INPUT", ["tasks"]);
    }
    return [...made.values()].filter((task) => !this.tasks.has(task.id) && this.isNew(task));
  }

  private isNew(task: Stored): boolean {
    const policy = task.given["onDuplicate"] ?? "MERGE";
    const same = [...this.tasks.values()].some((t) => task.key !== null && t.sameWork(task) && !ENDED.includes(t.state));
    if (same && policy === "REJECT") {
      throw new Refused(`a task of channel ${task.channel} with key ${task.key} has not ended`, "DUPLICATE_KEY");
    }
    return !(same && policy === "RETURN_EXISTING");
  }

  private insert(made: Stored[]): void {
    for (const task of made) this.tasks.set(task.id, task);
    this.settle();
  }

  // -- the graph

  /** Those that were named, then what they spawned, where subtrees are waited for. */
  private parents(task: Stored): Stored[] {
    const named = task.links.map(([parent]) => parent);
    const roots = task.links.filter(([, subtree]) => subtree).map(([parent]) => parent);
    if (!roots.length) return named;
    const adopted = [...this.tasks.values()].filter((t) => roots.some((root) => t.under(root)) && t !== task && !t.below(task));
    return [...named, ...adopted.filter((t) => !named.includes(t))];
  }

  /** Something happened: states follow from it, and those who wait look again. */
  private settle(): void {
    this.follow();
    this.version++;
    this.change.set();
    this.change = new Flag();
  }

  private follow(): void {
    for (let moved = true; moved; ) {
      moved = false;
      for (const task of this.tasks.values()) {
        const before = task.state;
        if (before === "BLOCKED") task.state = this.state(task);
        else if (before === "SCHEDULED" && task.runAfter <= this.time) task.state = "READY";
        moved ||= task.state !== before;
      }
    }
  }

  private state(task: Stored): string {
    const policy = task.given["onParentFailure"] ?? "BLOCK";
    const states = this.parents(task).map((parent) => parent.state);
    if (policy === "CANCEL" && states.some((state) => state === "FAILED" || state === "CANCELLED")) return "CANCELLED";
    const wanted = policy === "RUN" ? ENDED : ["SUCCEEDED"];
    if (states.some((state) => !wanted.includes(state))) return "BLOCKED";
    return task.runAfter > this.time ? "SCHEDULED" : "READY";
  }

  // -- leases

  private async claim(given: Json, signal?: AbortSignal): Promise<Json> {
    const giveUp = this.time + given["waitSeconds"];
    for (;;) {
      if (signal?.aborted) throw new Aborted();
      this.follow();
      const ready = [...this.tasks.values()].filter(
        (task) => task.state === "READY" && !this.held(task) && given["channels"].includes(task.channel),
      );
      ready.sort((a, b) => b.priority - a.priority || a.seq - b.seq);
      const leases: Json[] = [];
      for (const task of ready) {
        // One with the same key may ride along with another by now.
        if (leases.length < given["limit"] && task.state === "READY") leases.push(this.lease(task, given["workerId"]));
      }
      const left = giveUp - this.time;
      if (leases.length || left <= 0) return { leases };
      await this.change.waitFor(Math.max(0, Math.min(left, this.dueIn())), signal);
    }
  }

  private lease(task: Stored, worker: string): Json {
    const lease = { id: newId(), task, worker };
    this.leases.set(lease.id, lease);
    task.state = "RUNNING";
    task.attempt++;
    task.remaining--;
    for (const twin of this.tasks.values()) {
      if (task.merges && twin.merges && twin.sameWork(task) && twin.state === "READY") {
        twin.state = "MERGED";
        twin.into = task;
        twin.attempt++;
      }
    }
    const { id, name, channel, workgroup, key, input, metadata, priority } = task;
    const more = { remainingAttempts: task.remaining, timeoutSeconds: task.given["timeoutSeconds"] ?? null, group: { id: task.groupId } };
    const parents = this.parents(task).map((p) => ({
      taskId: p.id,
      name: p.name,
      channel: p.channel,
      state: p.state,
      input: p.input,
      output: p.output,
    }));
    return { id: lease.id, attempt: task.attempt, task: { id, name, channel, workgroup, key, input, metadata, priority, ...more }, parents };
  }

  /** Seconds until the next task may run for the mere passing of time. */
  private dueIn(): number {
    const waiting = [...this.tasks.values()].filter((task) => task.state === "SCHEDULED" || task.state === "READY");
    const dues = waiting.map((task) => Math.max(task.runAfter, this.suspended.get(task.workgroup ?? "") ?? 0) - this.time);
    const dueIn = Math.min(...dues.filter((due) => due > 0));
    if (dueIn === Infinity) return LONG;
    if (!this.skipDelays || this.leases.size) return dueIn;
    this.skipped += dueIn;
    return 0;
  }

  private end(lease: Lease, how: string, code = "LOST"): void {
    this.leases.delete(lease.id);
    this.over.set(lease.id, { how, code });
  }

  private withTwins(task: Stored): Stored[] {
    return [task, ...[...this.tasks.values()].filter((twin) => twin.state === "MERGED" && twin.into === task)];
  }

  private results(items: Json[], how: string, work: (lease: Lease, item: Json) => void): Json {
    const errors: Json[] = [];
    items.forEach((item, index) => {
      const lease = this.leases.get(item["lease"]);
      const refuse = (code: string, message: string, path: readonly unknown[] = []) =>
        errors.push({ index, lease: item["lease"], code, message, path: path.map(String) });
      if (lease) {
        try {
          work(lease, item);
          this.end(lease, how);
        } catch (error) {
          if (!(error instanceof Refused)) throw error;
          refuse(error.code, error.reason, error.path);
        }
      } else {
        const ended = this.over.get(item["lease"]);
        if (ended?.how !== how) refuse(ended?.code ?? "UNKNOWN", "this lease is no longer yours");
      }
    });
    this.settle();
    return { [how]: items.length - errors.length, errors };
  }

  private complete({ task }: Lease, item: Json): void {
    check(item["output"], "output");
    let children: Stored[];
    try {
      children = this.made(task.groupId, item["children"] ?? [], task);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      const code = error.path.at(-1) === "priority" ? "BAD_INPUT" : "INVALID_CHILDREN";
      throw new Refused(error.reason, code, ["children", ...error.path.slice(1)]);
    }
    for (const child of children) this.tasks.set(child.id, child);
    for (const done of this.withTwins(task)) Object.assign(done, { state: "SUCCEEDED", output: item["output"] ?? null, progress: 1 });
    for (const child of this.tasks.values()) {
      if (item["childrenDelaySeconds"] === undefined || !child.links.some(([parent]) => parent === task)) continue;
      child.runAfter = Math.max(child.runAfter, this.time + item["childrenDelaySeconds"]);
    }
    this.suspend(task.workgroup, item["workgroupDelaySeconds"]);
  }

  private fail({ task, worker }: Lease, item: Json): void {
    check(item["error"], "error");
    for (const each of this.withTwins(task)) this.failed(each, item, worker);
    this.suspend(task.workgroup, item["workgroupDelaySeconds"]);
  }

  private failed(task: Stored, item: Json, worker: string): void {
    task.errors.push({ attempt: task.attempt, error: item["error"], workerId: worker });
    if (item["keepAttempt"]) task.remaining++;
    else task.failures++;
    const { delaySeconds, backoff, maxDelaySeconds } = task.retry;
    const own = Math.min(maxDelaySeconds, delaySeconds * backoff ** Math.max(0, task.failures - 1));
    let delay: number = item["retryDelaySeconds"] ?? (item["keepAttempt"] ? 0 : own);
    if (!task.workgroup) delay = Math.max(delay, item["workgroupDelaySeconds"] ?? 0);
    task.runAfter = this.time + delay;
    task.state = item["discard"] || task.remaining <= 0 ? "FAILED" : delay > 0 ? "SCHEDULED" : "READY";
  }

  private release({ task }: Lease): void {
    for (const each of this.withTwins(task)) {
      each.state = "READY";
      each.attempt--;
    }
    task.remaining++;
  }

  private suspend(workgroup: string | null, seconds: number | undefined): void {
    if (workgroup && seconds) this.suspended.set(workgroup, Math.max(this.suspended.get(workgroup) ?? 0, this.time + seconds));
  }

  private extend(given: Json): Json {
    for (const { lease, fraction, message } of given["progress"] ?? []) {
      const task = this.leases.get(lease)?.task;
      if (task) Object.assign(task, { progress: fraction ?? null, message: message ?? null });
    }
    const ids: string[] = given["leases"];
    const gone = ids.filter((id) => !this.leases.has(id));
    const errors = gone.map((lease) => ({ index: ids.indexOf(lease), lease, code: this.over.get(lease)?.code ?? "UNKNOWN", message: "", path: null }));
    const suspended = ids.filter((id) => this.leases.has(id) && this.held(this.leases.get(id)!.task));
    return { expiresAt: null, suspended, errors };
  }

  // -- reading

  private async events(after: string | null, wait: number): Promise<Json> {
    if (after !== null && Number(after) === this.version) await this.change.waitFor(wait);
    return { cursor: String(this.version), events: [] };
  }

  private of(group: string): Stored[] {
    return [...this.tasks.values()].filter((task) => task.groupId === group);
  }

  private group(id: string): Json | null {
    const group = this.groups.get(id);
    if (!group) return null;
    const states = this.of(id).map((task) => task.state);
    const counts = [...new Set(states)].map((state) => ({ state, count: states.filter((s) => s === state).length }));
    const done = states.filter((state) => state === "SUCCEEDED" || state === "CANCELLED").length;
    const progress = { fraction: done / Math.max(1, states.length), total: states.length, counts };
    return { id, name: group["name"], isPaused: group["isPaused"], finishedAt: states.length && done === states.length ? "now" : null, progress };
  }
}

function told(task: Stored | undefined): Json | null {
  if (!task) return null;
  const { id, name, state, output, attempt, errors } = task;
  return { id, name, state, output, attempt, errors };
}

/** Throws Refused for what PostgreSQL cannot keep. */
function check(value: unknown, name: string): void {
  if (encode(value ?? null).includes("\\u0000")) throw new Refused(`${name} holds U+0000, which cannot be kept`, "BAD_INPUT", [name]);
}
