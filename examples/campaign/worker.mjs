// The half of the campaign that is in JavaScript.

import { Crew } from "crew-worker";

const crew = new Crew(undefined, { concurrency: 20 });
const retry = { attempts: 10, delay: 0.2, backoff: 1.5, maxDelay: 2 };

crew.task("upload_video", async (task) => {
  for (let part = 1; part <= 4; part++) {
    task.check(); // throws when the task was cancelled meanwhile
    await new Promise((resolve) => setTimeout(resolve, 20));
    task.progress(part / 4, `part ${part} of 4`);
  }
  if (Math.random() < 0.15) throw new Error("the upload broke off");
  task.spawn("create_creative", undefined, { workgroup: task.workgroup, retry });
  return { video: task.input.file };
});

// Waits for the adsets and for all that grew below them: its parents are the whole tree.
crew.task("verify_assets", (task) => {
  const ads = task.outputs.filter((output) => output?.ad).map((output) => output.ad);
  return { ads: ads.sort() };
});

crew.task("send_slack", (task) => `${task.outputs[0].ads.length} ads run`);

await crew.run();
