"""Ask a server of examples/serve.py many things at once, and print how long its answers take.

    python examples/load_test.py http://127.0.0.1:8000 --requests 500 --concurrency 32
"""

import argparse
import asyncio
import random
import time
from collections import Counter

import httpx

TEXT = "a film about one man who finds the city where nothing is as good or bad as people say it was"


async def ask(
    url: str, requests: int, concurrency: int, only: str | None
) -> tuple[list[float], Counter[int], float]:
    """Seconds of each answer, how often each status came, and seconds of all."""
    chance, waits, statuses = random.Random(0), list[float](), Counter[int]()
    limits = httpx.Limits(max_connections=concurrency)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=60) as client:
        tasks = [only] if only else [*(await client.get("/tasks")).json()]
        texts = [" ".join(chance.choices(TEXT.split(), k=chance.randint(4, 40))) for _ in range(requests)]
        bodies = iter([{"task": chance.choice(tasks), "text": text} for text in texts])

        async def one_after_the_other() -> None:
            for body in bodies:
                start = time.perf_counter()
                answer = await client.post("/predict", json=body)
                waits.append(time.perf_counter() - start)
                statuses[answer.status_code] += 1

        start = time.perf_counter()
        await asyncio.gather(*(one_after_the_other() for _ in range(concurrency)))
        return waits, statuses, time.perf_counter() - start


def percentile(waits: list[float], share: float) -> float:
    """Milliseconds within which this share of the answers came."""
    return 1000 * sorted(waits)[min(len(waits) - 1, int(share * len(waits)))]


def main() -> None:
    """Read the flags, ask, and print."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("url")
    flags.add_argument("--requests", type=int, default=500)
    flags.add_argument("--concurrency", type=int, default=32, help="clients that ask one thing after the other")
    flags.add_argument("--task", help="ask for this one alone; by default each request is for any of them")
    args = flags.parse_args()
    waits, statuses, took = asyncio.run(ask(args.url, args.requests, args.concurrency, args.task))
    shares = ", ".join(f"{name} {percentile(waits, share):.0f}" for name, share in
                       (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1)))  # fmt: skip
    print(f"{len(waits)} answers ({', '.join(f'{n} x {s}' for s, n in statuses.items())}), {args.concurrency} clients: "
          f"{len(waits) / took:.1f} a second; milliseconds {shares}")  # fmt: skip


if __name__ == "__main__":
    main()
