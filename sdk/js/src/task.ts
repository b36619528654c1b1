/** The task as its handler sees it. */

import type { Json } from "./api.js";
import { Draft, type TaskOptions } from "./draft.js";
import type { Fields, Level, Logger } from "./log.js";

/** What one parent produced. */
export interface Parent {
  taskId: string;
  name: string;
  channel: string;
  state: string;
  input: any;
  output: any;
}

/** As last said by the handler, and whether the server knows. */
export interface Progress {
  fraction: number | undefined;
  message: string | undefined;
  news: boolean;
}

/** Thrown by `Task.check`: the lease is lost or the task cancelled, so what is done here counts for nothing. */
export class Cancelled extends Error {
  constructor() {
    super("the lease is lost, the task cancelled, or the worker stopped");
    this.name = "Cancelled";
  }
}

/** Puts the task's ids into every record. */
export class TaskLog {
  constructor(
    private readonly logger: Logger,
    private readonly ids: Fields,
  ) {}

  debug(message: string, fields: Fields = {}): void {
    this.log("debug", message, fields);
  }

  info(message: string, fields: Fields = {}): void {
    this.log("info", message, fields);
  }

  warn(message: string, fields: Fields = {}): void {
    this.log("warn", message, fields);
  }

  error(message: string, fields: Fields = {}): void {
    this.log("error", message, fields);
  }

  private log(level: Level, message: string, fields: Fields): void {
    this.logger.log(level, message, { ...this.ids, ...fields });
  }
}

/** One attempt at one task. */
export class Task<Input = any> {
  readonly leaseId: string;
  readonly attempt: number;
  readonly id: string;
  readonly name: string;
  readonly channel: string;
  readonly workgroup: string | null;
  readonly key: string | null;
  readonly input: Input;
  readonly metadata: any;
  readonly priority: number;
  readonly remainingAttempts: number;
  readonly timeoutSeconds: number | null;
  readonly groupId: string;
  readonly parents: Parent[];
  readonly children: Draft<any>[] = [];
  readonly log: TaskLog;
  /** @internal */
  lastProgress: Progress = { fraction: undefined, message: undefined, news: false };
  /** The trace context that its children continue. @internal */
  inherited: Record<string, string> = {};
  private readonly cutting = new AbortController();

  constructor(
    lease: Json,
    readonly workerId: string,
    logger: Logger,
    private readonly onProgress: () => void = () => {},
  ) {
    const task: Json = lease["task"];
    this.leaseId = lease["id"];
    this.attempt = lease["attempt"];
    this.id = task["id"];
    this.name = task["name"];
    this.channel = task["channel"];
    this.workgroup = task["workgroup"] ?? null;
    this.key = task["key"] ?? null;
    this.input = task["input"] ?? null;
    this.metadata = task["metadata"] ?? null;
    this.priority = task["priority"] ?? 0;
    this.remainingAttempts = task["remainingAttempts"] ?? 0;
    this.timeoutSeconds = task["timeoutSeconds"] ?? null;
    this.groupId = task["group"]?.id ?? "";
    this.parents = lease["parents"] ?? [];
    this.log = new TaskLog(logger, {
      task_id: this.id,
      group_id: this.groupId,
      channel: this.channel,
      workgroup: this.workgroup,
      attempt: this.attempt,
      lease_id: this.leaseId,
      worker_id: workerId,
    });
  }

  /** Of its parents, in their order. */
  get outputs(): any[] {
    return this.parents.map((parent) => parent.output);
  }

  /** Aborted when there is no more sense in going on: hand it to fetch and the like. */
  get signal(): AbortSignal {
    return this.cutting.signal;
  }

  get cancelled(): boolean {
    return this.signal.aborted;
  }

  /** Throws Cancelled when there is no more sense in going on. */
  check(): void {
    if (this.cancelled) throw new Cancelled();
  }

  /** @internal */
  cut(): void {
    this.cutting.abort(new Cancelled());
  }

  /**
   * Plan a continuation: made when this task completes, or not at all. Takes what `Group.task` takes.
   *
   * It becomes a child of this task unless it is told to come `after` others planned here.
   */
  spawn(channel: string, input?: unknown, options: TaskOptions = {}): Draft {
    const child = new Draft(channel, input, options);
    this.children.push(child);
    return child;
  }

  /** Say how far it is, from 0 to 1, and what it is at; it reaches the server within about a second. */
  progress(fraction?: number | null, message?: string | null): void {
    const last = this.lastProgress;
    this.lastProgress = {
      fraction: fraction == null ? last.fraction : Math.min(1, Math.max(0, Number(fraction))),
      message: message == null ? last.message : String(message).slice(0, 2000),
      news: true,
    };
    this.onProgress();
  }
}
