// Delivers webhooks: signed as Standard Webhooks says, repeated with back-off, given up where nobody lives any more.

import { createHmac } from "node:crypto";

import { Crew, Discard, RateLimited } from "crew-worker";

const crew = new Crew();
const secret = process.env.WEBHOOK_SECRET ?? "only for examples";

crew.task("webhook", { concurrency: 20 }, async (task) => {
  const { url, event } = task.input;
  const body = JSON.stringify(event);
  const at = Math.floor(Date.now() / 1000);
  const signature = createHmac("sha256", secret).update(`${task.id}.${at}.${body}`).digest("base64");
  const response = await fetch(url, {
    method: "POST",
    headers: {
      "content-type": "application/json",
      "webhook-id": task.id, // the same at every attempt: a receiver can tell repeats
      "webhook-timestamp": String(at),
      "webhook-signature": `v1,${signature}`,
    },
    body,
    signal: AbortSignal.any([task.signal, AbortSignal.timeout(10_000)]),
  });
  if (response.status === 410) throw new Discard("the receiver is gone");
  if (response.status === 429) throw RateLimited.fromResponse(response); // all of this receiver waits, no other
  if (!response.ok) throw new Error(`the receiver answered ${response.status}`);
  return { status: response.status, attempts: task.attempt };
});

await crew.run();
