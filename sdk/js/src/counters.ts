/** What a worker did, as numbers, and as Prometheus reads them. */

const HELP = {
  crew_worker_tasks_total: ["counter", "Attempts ended, by channel and outcome."],
  crew_worker_seconds_total: ["counter", "Time spent in handlers."],
  crew_worker_repeats_total: ["counter", "Calls sent again for want of an answer."],
  crew_worker_running: ["gauge", "Handlers that run now."],
  crew_worker_undelivered: ["gauge", "Results that the server has not answered yet."],
} as const;

type Name = keyof typeof HELP;

export class Counters {
  private readonly values = new Map<Name, Map<string, number>>();

  add(name: Name, labels: Record<string, string> = {}, value = 1): void {
    const found = this.of(name);
    const key = inside(labels);
    found.set(key, (found.get(key) ?? 0) + value);
  }

  set(name: Name, value: number): void {
    this.of(name).set("", value);
  }

  /** How many attempts ended so: completed, failed, lost, released, … */
  total(outcome: string): number {
    let sum = 0;
    for (const [key, value] of this.of("crew_worker_tasks_total")) {
      if (key.includes(`outcome="${outcome}"`)) sum += value;
    }
    return sum;
  }

  /** In Prometheus's text format. */
  exposition(): string {
    const lines: string[] = [];
    for (const [name, [kind, told]] of Object.entries(HELP)) {
      lines.push(`# HELP ${name} ${told}`, `# TYPE ${name} ${kind}`);
      for (const [key, value] of [...this.of(name as Name)].sort()) lines.push(`${name}${key && `{${key}}`} ${value}`);
    }
    return lines.join("\n") + "\n";
  }

  private of(name: Name): Map<string, number> {
    let found = this.values.get(name);
    if (!found) this.values.set(name, (found = new Map()));
    return found;
  }
}

function inside(labels: Record<string, string>): string {
  return Object.entries(labels)
    .map(([label, text]) => `${label}="${text.replace(/\\/g, "\\\\").replace(/"/g, '\\"').replace(/\n/g, "\\n")}"`)
    .join();
}
