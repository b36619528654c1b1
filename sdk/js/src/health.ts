/** An HTTP endpoint for probes and Prometheus: GET /healthz and GET /metrics. Only where it is asked for. */

import { createServer, type Server } from "node:http";

import type { Worker } from "./worker.js";

export interface HealthOptions {
  host?: string;
  port: number;
}

/** Status, content type, body. */
function answer(worker: Worker, path: string): [number, string, string] {
  if (path === "/healthz") {
    const told = {
      status: worker.stopping ? "stopping" : "ok",
      worker: worker.id,
      transport: worker.transport,
      running: worker.running,
      undelivered: worker.undelivered,
    };
    return [worker.stopping ? 503 : 200, "application/json", JSON.stringify(told)];
  }
  if (path === "/metrics") {
    worker.counters.set("crew_worker_running", worker.running);
    worker.counters.set("crew_worker_undelivered", worker.undelivered);
    worker.counters.set("crew_worker_repeats_total", worker.repeats);
    return [200, "text/plain; version=0.0.4", worker.counters.exposition()];
  }
  return [404, "text/plain", "there are /healthz and /metrics\n"];
}

export function serveHealth(worker: Worker, { host = "127.0.0.1", port }: HealthOptions): Promise<Server> {
  const server = createServer((request, response) => {
    const [status, type, body] = answer(worker, (request.url ?? "").split("?")[0]!);
    response.writeHead(status, { "content-type": type, connection: "close" }).end(body);
  });
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, host, () => resolve(server));
  });
}
