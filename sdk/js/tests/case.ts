/** Runs one case of sdk/conformance.json with the JavaScript SDK. tests/sdk/case.py does the same for Python. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";

import {
  Crew,
  Discard,
  Draft,
  Output,
  RateLimited,
  Refused,
  Retry,
  TaskError,
  decode,
  encode,
  silent,
  type Group,
  type Options,
  type Task,
  type TaskOptions,
} from "../src/index.js";
import { newId } from "../src/ids.js";

type Json = Record<string, any>;

export const CASES: Json[] = decode(readFileSync(new URL("../../../conformance.json", import.meta.url), "utf8")).cases;
const NODES =
  "query($id: ID!) { taskGroup(id: $id) { graph { nodes { id name channel state attempt remainingAttempts output " +
  "progress progressMessage heldBy metadata errors { attempt error } } } } }";
const CANCEL = "mutation($ids: [ID!]) { cancelTasks(ids: $ids) { affected } }";
const SECONDS = 20;

/** Where the cases run: a real server with a fault proxy, or the double. */
export interface Place {
  crew(options: Options, through?: string): Crew;
  portWith(faults: Json[]): Promise<string>;
  nodes(looker: Crew, group: string): Promise<Json[]>;
  cancel(looker: Crew, task: string): Promise<unknown>;
}

export function served(url: string, control: string): Place {
  return {
    crew: (options, through) => new Crew(through ?? url, { logger: silent, ...options }),
    async portWith(faults) {
      const response = await fetch(control, { method: "POST", body: encode(faults) });
      return ((await response.json()) as { url: string }).url;
    },
    nodes: async (looker, group) => (await looker.ask(NODES, { id: group }))["taskGroup"]?.graph.nodes ?? [],
    cancel: (looker, task) => looker.ask(CANCEL, { ids: [task] }),
  };
}

/** Handlers that do as the case says, and what they saw. */
class Script {
  readonly suffix = newId().slice(-12);
  readonly ran: Record<string, number> = {};
  readonly most: Record<string, number> = {};
  readonly stopped: string[] = [];
  private readonly now: Record<string, number> = {};
  readonly tries: Record<string, number> = {};

  constructor(private readonly steps: Record<string, Json[]>) {}

  /** A channel or workgroup of this run's own; the empty one stays as it is. */
  own(name: string): string {
    return name && `${name}-${this.suffix}`;
  }

  register(crew: Crew): void {
    for (const [channel, steps] of Object.entries(this.steps)) {
      const handle = (task: Task) => (steps[0]!["plain"] ? this.outcome(this.next(channel, task), task) : this.handled(channel, task));
      const { concurrency } = steps[0]!;
      crew.task(this.own(channel), concurrency ? { concurrency } : {}, handle);
    }
  }

  private next(channel: string, task: Task): Json {
    const tries = (this.tries[task.id] = (this.tries[task.id] ?? 0) + 1);
    this.ran[channel] = (this.ran[channel] ?? 0) + 1;
    const steps = this.steps[channel]!;
    return steps[Math.min(tries, steps.length) - 1]!;
  }

  private async handled(channel: string, task: Task): Promise<unknown> {
    const step = this.next(channel, task);
    this.now[channel] = (this.now[channel] ?? 0) + 1;
    this.most[channel] = Math.max(this.most[channel] ?? 0, this.now[channel]);
    try {
      if (step["progress"]) task.progress(...(step["progress"] as [number, string]));
      await pause(step["wait"] ?? 0, task.signal);
      return this.outcome(step, task);
    } catch (error) {
      if (task.cancelled) this.stopped.push(task.name);
      throw error;
    } finally {
      this.now[channel]!--;
    }
  }

  private outcome(step: Json, task: Task): unknown {
    this.children(step["spawn"] ?? [], (channel, input, options) => task.spawn(channel, input, options));
    if ("error" in step) throw new Error(step["error"]);
    if ("taskError" in step) throw new TaskError(step["taskError"]);
    if ("discard" in step) throw new Discard(step["discard"]);
    if ("retry" in step) throw new Retry(step["retry"]);
    if ("rateLimited" in step) throw new RateLimited(step["rateLimited"]);
    if ("rateLimitedBy" in step) throw RateLimited.fromResponse({ status: 429, headers: step["rateLimitedBy"] });
    if ("output" in step) {
      const { value, children, childrenDelay } = step["output"];
      const made = this.children(children, (channel, input, options) => new Draft(channel, input, options));
      return new Output(value, { children: made, childrenDelay });
    }
    if ("echo" in step) return this.echo(step["echo"], task);
    return step["strange"] ? { nan: NaN } : step["return"];
  }

  private echo(what: string, task: Task): unknown {
    if (what !== "task") return (task as any)[what];
    const { name, channel, attempt, workgroup, key, metadata } = task;
    const bare = (text: string | null) => text?.replace(`-${this.suffix}`, "") ?? null;
    return { name, channel: bare(channel), attempt, workgroup: bare(workgroup), key, metadata };
  }

  private children(given: Json[], make: (channel: string, input: unknown, options: TaskOptions) => Draft): Draft[] {
    const made: Record<string, Draft> = {};
    for (const child of given) {
      const draft = make(this.own(child["channel"]), child["input"], options(child));
      made[child["name"]] = link(child, draft, made);
    }
    return Object.values(made);
  }
}

function options(given: Json): TaskOptions {
  const { channel, input, after, afterSubtree, ...rest } = given;
  return rest;
}

function link(given: Json, draft: Draft, made: Record<string, Draft>): Draft {
  const of = (names: string[] = []) => names.filter((name) => made[name]).map((name) => made[name]!);
  return draft.after(...of(given["after"])).afterSubtree(...of(given["afterSubtree"]));
}

/** Ends early, by throwing, when the signal is aborted. */
function pause(seconds: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const abort = () => {
      clearTimeout(timer);
      reject(signal!.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", abort);
      resolve();
    }, seconds * 1000);
    if (signal?.aborted) abort();
    signal?.addEventListener("abort", abort, { once: true });
  });
}

async function within<Value>(seconds: number, work: Promise<Value>): Promise<Value> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not done in ${seconds} s`)), seconds * 1000);
  });
  return Promise.race([work, late]).finally(() => clearTimeout(timer));
}

export class Run {
  private readonly script: Script;
  private readonly drafts: Record<string, Draft> = {};
  private worker!: Crew;
  private looker!: Crew;
  private group!: Group;

  constructor(
    private readonly given: Json,
    private readonly place: Place,
  ) {
    this.script = new Script(given["handlers"]);
  }

  async run(): Promise<void> {
    const { given, place } = this;
    const through = given["faults"] && (await place.portWith(given["faults"]));
    this.worker = place.crew({ deliverSeconds: 5, ...given["worker"] }, through);
    this.looker = place.crew({});
    this.script.register(this.worker);
    this.group = place.crew({}, given["producerThrough"] && through).group(given["name"]);
    const work = this.worker.work();
    try {
      await Promise.race([this.course(work), work.then(() => new Promise<never>(() => {}))]);
    } finally {
      this.worker.stop();
      await within(15, work).finally(() => this.worker.stop());
    }
  }

  private async course(work: Promise<void>): Promise<void> {
    const { given } = this;
    const began = performance.now();
    if (given["refused"]) return this.refused();
    await pause(given["sendAfter"] ?? 0);
    await this.on(given["sendOn"]);
    await this.planned().send();
    await this.meanwhile();
    await this.results();
    if (given["do"] === "stop") await within(15, work);
    const held: string[] = given["held"] ?? [];
    await this.until(Object.fromEntries(held.map((name) => [name, { heldBy: ["WORKGROUP_SUSPENDED"] }])));
    await this.until(given["expect"]);
    const found = await this.nodes();
    if (given["total"]) assert.equal(Object.keys(found).length, given["total"]);
    assert.ok(performance.now() - began >= (given["least"] ?? 0) * 1000, "it came too early");
    await this.seen();
  }

  private planned(): Group {
    const { script, drafts } = this;
    for (const task of this.given["tasks"]) {
      const own = task["workgroup"] ? { ...task, workgroup: script.own(task["workgroup"]) } : task;
      drafts[task["name"]] = this.group.task(script.own(task["channel"]), task["input"], options(own));
    }
    for (const task of this.given["tasks"]) link(task, drafts[task["name"]]!, drafts);
    return this.group;
  }

  private async refused(): Promise<void> {
    const code = this.given["refused"];
    await assert.rejects(this.planned().send(), (error) => error instanceof Refused && error.code === code);
    assert.deepEqual(await this.place.nodes(this.looker, this.group.id), []);
  }

  private async meanwhile(): Promise<void> {
    for (const [name, state] of Object.entries(this.given["when"] ?? {})) {
      await this.until({ [name]: { state } });
      // It may be leased, and the lease on its way to the worker still.
      await patiently(() => state !== "RUNNING" || this.drafts[name]!.id in this.script.tries);
      if (this.given["do"] === "stop") this.worker.stop();
      else await this.place.cancel(this.looker, this.drafts[name]!.id);
    }
    if (this.given["seen"]) await this.until(this.given["seen"]);
  }

  private async results(): Promise<void> {
    const wanted = this.given["finished"];
    if (wanted) {
      const answer = await said(this.group.finished(wanted === "TimeoutError" ? 1 : SECONDS));
      assert.ok(answer === wanted || answer === this.group, `finished: ${String(answer)}`);
    }
    for (const [name, value] of Object.entries<any>(this.given["results"] ?? {})) {
      assert.deepEqual(await said(this.drafts[name]!.result(SECONDS)), value?.$fails ?? value);
    }
  }

  private async seen(): Promise<void> {
    const { given, script } = this;
    const stopped: string[] = given["stopped"] ?? [];
    await patiently(() => script.stopped.length >= stopped.length);
    for (const [name, n] of Object.entries(given["ran"] ?? {})) assert.equal(script.ran[name] ?? 0, n, `ran ${name}`);
    for (const [name, n] of Object.entries(given["most"] ?? {})) assert.equal(script.most[name] ?? 0, n, `most ${name}`);
    assert.deepEqual(script.stopped, stopped);
    await this.on(given["transport"]);
  }

  private on(transport?: string): Promise<void> {
    return patiently(() => !transport || this.worker.transport === transport);
  }

  private async until(wanted: Json): Promise<void> {
    let found: Json = {};
    await patiently(
      async () => matches(wanted, (found = await this.nodes())),
      () => `wanted ${encode(wanted)}, found ${encode(found)}; ran ${encode(this.script.ran)}`,
    );
  }

  private async nodes(): Promise<Record<string, Json>> {
    const nodes = await this.place.nodes(this.looker, this.group.id);
    const absent = Object.keys(this.given["expect"]).map((name) => [name, null]);
    return Object.fromEntries([...absent, ...nodes.map((node) => [node["name"], node])]);
  }
}

async function patiently(check: () => boolean | Promise<boolean>, what = () => "it did not come about"): Promise<void> {
  const giveUp = performance.now() + SECONDS * 1000;
  while (!(await check())) {
    if (performance.now() > giveUp) assert.fail(what());
    await pause(0.02);
  }
}

/** What it answered, or the name of what it threw. */
async function said(work: Promise<unknown>): Promise<unknown> {
  try {
    return await work;
  } catch (error) {
    return (error as Error).name;
  }
}

/** Objects by the fields that are wanted, lists one by one, all else exactly (0 is not false). */
export function matches(wanted: any, found: any): boolean {
  if (wanted?.$any) return found !== null;
  if (wanted?.$has) return encode(found).includes(wanted.$has);
  if (wanted?.$in) return wanted.$in.includes(found);
  if (Array.isArray(wanted)) {
    return Array.isArray(found) && wanted.length === found.length && wanted.every((value, n) => matches(value, found[n]));
  }
  if (wanted !== null && typeof wanted === "object") {
    return found !== null && typeof found === "object" && Object.keys(wanted).every((key) => matches(wanted[key], found[key] ?? null));
  }
  return wanted === found;
}
