"""CrewAI's own cost of a task: a sequential crew over the same model double, in one process.

Runs in an environment of its own, which scripts/bench makes: `peer_crewai.py BASE_URL TASKS ROUNDS`. Prints the median
milliseconds a task took.
"""

import os
import statistics
import sys
import time

os.environ["CREWAI_DISABLE_TELEMETRY"] = "true"
os.environ["CREWAI_TRACING_ENABLED"] = "false"
os.environ["OTEL_SDK_DISABLED"] = "true"

from crewai import LLM, Agent, Crew, Process, Task


def main() -> None:
    """Measure and print."""
    base_url, tasks, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    llm = LLM(model="openai/instant", base_url=base_url, api_key="paced")
    times = []
    for _ in range(rounds + 1):
        writer = Agent(role="Writer", goal="Write", backstory="A writer.", llm=llm, verbose=False)
        work = [
            Task(name=f"task{number}", description="Write a line.", expected_output="A line.", agent=writer)
            for number in range(tasks)
        ]
        crew = Crew(agents=[writer], tasks=work, process=Process.sequential, verbose=False)
        started = time.perf_counter()
        crew.kickoff()
        times.append((time.perf_counter() - started) * 1000 / tasks)
    # The first one pays for what is loaded late.
    sys.stdout.write(f"{statistics.median(times[1:]):.3f}\n")


if __name__ == "__main__":
    main()
