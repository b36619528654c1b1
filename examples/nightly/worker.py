"""Makes reports. One of them takes a while, so nobody wants it made twice."""

import time

from crew_worker import Crew, Task

crew = Crew(concurrency=3)


@crew.task("report")
def report(task: Task) -> dict:
    task.log.info("makes %s", task.key)
    time.sleep(0.2)
    return {"report": task.input["report"], "day": task.input["day"], "rows": len(task.key) * 100}


if __name__ == "__main__":
    crew.run()
