/** A reporter of node's test runner: one line of JSON for each test. */

import type { TestEvent } from "node:test/reporters";

export default async function* lines(events: AsyncIterable<TestEvent>): AsyncGenerator<string> {
  for await (const { type, data } of events as AsyncIterable<{ type: string; data: any }>) {
    if (type !== "test:pass" && type !== "test:fail") continue;
    const cause = data.details?.error?.cause ?? data.details?.error;
    const error = type === "test:fail" ? String(cause?.stack ?? cause) : null;
    yield JSON.stringify({ name: data.name, ok: type === "test:pass", skipped: data.skip ?? null, seconds: data.details.duration_ms / 1000, error }) + "\n";
  }
}
