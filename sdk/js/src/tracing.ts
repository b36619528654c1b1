/**
 * The trace of a task goes on where its metadata says, and goes down to the tasks that it makes (W3C trace context).
 *
 * With @opentelemetry/api installed each attempt is a span of its own. Without it the context is handed on as it came.
 */

import type * as Api from "@opentelemetry/api";

import { isObject } from "./api.js";
import type { Task } from "./task.js";

const FIELDS = ["traceparent", "tracestate"];

let otel: typeof Api | undefined;
try {
  otel = await import("@opentelemetry/api");
} catch {
  otel = undefined;
}

/** The trace context in a task's metadata. */
function carried(metadata: unknown): Record<string, string> {
  if (!isObject(metadata)) return {};
  return Object.fromEntries(FIELDS.filter((name) => typeof metadata[name] === "string").map((name) => [name, metadata[name]]));
}

/** The trace context of the caller, to put into the metadata of what it makes. */
export function current(): Record<string, string> {
  const here: Record<string, string> = {};
  otel?.propagation.inject(otel.context.active(), here);
  return here;
}

/** Runs one attempt in a span of its own; what the task spawns continues it. */
export async function attempt<Value>(task: Task, work: () => Value | Promise<Value>): Promise<Value> {
  task.inherited = carried(task.metadata);
  if (!otel) return work();
  const { context, propagation, SpanKind, SpanStatusCode, trace } = otel;
  const parent = propagation.extract(context.active(), task.inherited);
  const attributes = {
    "crew.task.id": task.id,
    "crew.task.name": task.name,
    "crew.task.attempt": task.attempt,
    "messaging.destination.name": task.channel,
    "messaging.system": "crew",
  };
  const options = { kind: SpanKind.CONSUMER, attributes };
  const span = trace.getTracer("crew-worker").startSpan(`${task.channel} process`, options, parent);
  const inner = trace.setSpan(parent, span);
  const here: Record<string, string> = {};
  propagation.inject(inner, here);
  if (Object.keys(here).length) task.inherited = here;
  try {
    return await context.with(inner, work);
  } catch (error) {
    span.recordException(error instanceof Error ? error : String(error));
    span.setStatus({ code: SpanStatusCode.ERROR, message: String(error) });
    throw error;
  } finally {
    span.end();
  }
}

/** The NewTask with the caller's trace context in its metadata, where it has none of its own. */
export function withTrace(made: Record<string, any>, here: Record<string, string>): Record<string, any> {
  const metadata: unknown = made["metadata"] ?? {};
  return Object.keys(here).length && isObject(metadata) ? { ...made, metadata: { ...here, ...metadata } } : made;
}
