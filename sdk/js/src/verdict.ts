/** How an attempt ended, as the item of completeTasks or failTasks that says so. */

import type { Json } from "./api.js";
import { Discard, RateLimited, Retry, TaskError } from "./errors.js";
import { Output } from "./output.js";
import type { Task } from "./task.js";
import { withTrace } from "./tracing.js";

const STACK_CHARACTERS = 4000;

/** A CompleteTaskInput. Falsy values are results like any other; `undefined` is null. */
export function completion(task: Task, returned: unknown): Json {
  const output = returned instanceof Output ? returned : new Output(returned ?? null);
  const { children = [], childrenDelay, workgroupDelay } = output.options;
  const item: Json = { lease: task.leaseId, output: output.value ?? null };
  // A child that was spawned and returned too is one child.
  const unique = new Map([...task.children, ...children].map((child) => [child.id, child]));
  if (unique.size) item["children"] = [...unique.values()].map((child) => withTrace(child.asInput(), task.inherited));
  if (childrenDelay !== undefined) item["childrenDelaySeconds"] = childrenDelay;
  if (workgroupDelay !== undefined) item["workgroupDelaySeconds"] = workgroupDelay;
  return item;
}

/** A FailTaskInput. */
export function failure(task: Task, error: unknown): Json {
  const item: Json = { lease: task.leaseId, error: described(error) };
  if (error instanceof RateLimited) {
    item["workgroupDelaySeconds"] = error.seconds;
    item["keepAttempt"] = true;
  } else if (error instanceof Retry) {
    if (error.after !== undefined) item["retryDelaySeconds"] = error.after;
    if (!error.count) item["keepAttempt"] = true;
  } else if (error instanceof Discard) {
    item["discard"] = true;
  }
  return item;
}

/** Cut off by the worker's end: noted, not counted, ready again at once. */
export function stopped(task: Task): Json {
  return { lease: task.leaseId, error: "the worker was stopped", keepAttempt: true, retryDelaySeconds: 0 };
}

/** What the task's error entry holds: the data of a TaskError, or an error's type, text and stack. */
function described(error: unknown): unknown {
  if (error instanceof TaskError) return error.data ?? "";
  if (!(error instanceof Error)) return { type: typeof error, message: String(error) };
  return { type: error.name, message: error.message, traceback: (error.stack ?? "").slice(0, STACK_CHARACTERS) };
}

/** One line for the log. */
export function brief(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.message ? `${error.name}: ${error.message}` : error.name;
}
