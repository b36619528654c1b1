/** `Crew`: one server, the handlers that work for it, and the groups that are sent to it. */

import { Api, type Json } from "./api.js";
import { Counters } from "./counters.js";
import type { Rung } from "./climber.js";
import { CrewError } from "./errors.js";
import { Group, type GroupOptions } from "./group.js";
import type { Handle, Handler } from "./handler.js";
import { lines, type Logger } from "./log.js";
import { Worker, onSignals, type Options } from "./worker.js";

const DEFAULT_URL = "http://127.0.0.1:8000";

export interface CrewOptions extends Options {
  /** An API key; CREW_KEY without it. */
  key?: string;
  namespace?: string;
  /** Where log records go; lines of JSON on stderr without it. */
  logger?: Logger;
}

/**
 * A Crew server. Nothing is sent before `run`, `send` or `ask`. The URL defaults to CREW_URL.
 *
 *     const crew = new Crew("http://127.0.0.1:8000", { concurrency: 20 });
 *     crew.task("greet", async (task) => `hello ${task.input.name}`);
 *     await crew.run();
 */
export class Crew {
  readonly counters = new Counters();
  /** @internal */
  readonly handlers = new Map<string, Handler>();
  /** @internal */
  api: Api;
  private worker: Worker | undefined;

  constructor(
    url: string = process.env["CREW_URL"] || DEFAULT_URL,
    private readonly options: CrewOptions = {},
  ) {
    const key = options.key ?? process.env["CREW_KEY"];
    this.api = new Api(url, key || undefined, options.namespace, options.silenceSeconds, options.logger ?? lines());
  }

  // -- working

  /**
   * Registers a function for a channel. It takes a `Task`; what it returns is the task's output.
   *
   * `concurrency`: at most so many at once in this worker. Without it the channel shares the worker's own number.
   */
  task<Input = any>(channel: string, handle: Handle<Input>): this;
  task<Input = any>(channel: string, options: { concurrency?: number }, handle: Handle<Input>): this;
  task(channel: string, first: Handle | { concurrency?: number }, second?: Handle): this {
    const [{ concurrency }, handle] = typeof first === "function" ? [{ concurrency: undefined }, first] : [first, second!];
    if (this.handlers.has(channel)) throw new CrewError(`channel "${channel}" has a handler already`);
    if (concurrency !== undefined && !(concurrency >= 1)) {
      throw new CrewError(`concurrency of channel "${channel}" is ${concurrency}: it must be 1 or more`);
    }
    this.handlers.set(channel, { channel, handle, ...(concurrency !== undefined && { concurrency }) });
    return this;
  }

  /** Works until SIGTERM or SIGINT, and resolves when what ran has finished and is delivered. */
  async run(options: Options = {}): Promise<void> {
    this.worker = this.made(options);
    const before = onSignals(this.worker);
    try {
      await this.worker.run();
    } finally {
      before();
    }
  }

  /** Works until `stop` is called; signals are the caller's. */
  async work(options: Options = {}): Promise<void> {
    this.worker = this.made(options);
    await this.worker.run();
  }

  /** Stops the worker as SIGTERM does; called again, as a second one does. */
  stop(): void {
    this.worker?.stop();
  }

  /** How tasks come now: long-poll, sse or websocket. */
  get transport(): Rung {
    return this.worker?.transport ?? "long-poll";
  }

  private made(options: Options): Worker {
    return new Worker(this.api, [...this.handlers.values()], { ...this.options, ...options }, this.counters);
  }

  // -- producing

  /** Plan a task group. */
  group(name: string, options: GroupOptions = {}): Group {
    return new Group(this.api, name, options);
  }

  /**
   * The data of any GraphQL operation. Repeated until it is answered, for up to `patience` seconds (60), so a mutation
   * should carry ids of its own. Rejects with Refused, Unavailable, NotCrew.
   */
  ask(document: string, variables: Json = {}, options: { wait?: number; patience?: number } = {}): Promise<Json> {
    return this.api.ask(document, variables, { patience: 60, ...options });
  }
}
