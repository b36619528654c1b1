// A worker of the mixed run: every step of the campaign, with luck. worker.py does the same.

import { Crew, Output, Retry } from "crew-worker";

const crew = new Crew(undefined, { concurrency: 4, leaseSeconds: 2, waitSeconds: 2 });
const retry = { attempts: 50, delay: 0.1 };
const next = { create_adset: "upload_video", upload_video: "create_creative", create_creative: "create_ad" };

async function step(task) {
  await new Promise((resolve) => setTimeout(resolve, Math.random() * 300));
  if (Math.random() < 0.1) throw new Retry({ data: "bad luck", count: false });
  const follows = next[task.channel];
  if (follows) task.spawn(follows, task.input, { name: `${follows} of ${task.input}`, retry });
  return new Output({ by: "javascript" });
}

for (const channel of ["create_campaign", ...Object.keys(next), "create_ad", "verify_assets", "unpause_campaign", "send_slack"]) {
  crew.task(channel, step);
}

await crew.run();
