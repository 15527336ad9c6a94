"""An HTTP server of many tasks beside one model: requests for different tasks go through it in one batch.

An example to read and to change, not a product: one process, no TLS, nobody is asked who he is. For instance

    pip install "glue_sparse[serve]"
    python examples/serve.py runs/bank/minilm/fish/*/seed0 --port 8000
    curl localhost:8000/predict -H "content-type: application/json" -d '{"task": "sst2", "text": "a fine film"}'
    python examples/load_test.py http://127.0.0.1:8000
"""

import argparse
import asyncio
import queue
import threading
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, Field

from glue_sparse import TaskBank, load_base, load_tokenizer
from glue_sparse.diffs.identity import FILE_NAME, identity

MOST_CHARACTERS = 20_000
"""Of a text; what is longer than the model reads is cut, what is longer than this is refused."""


class Request(BaseModel):
    """One text, or a pair of texts, for one task."""

    task: str
    text: str = Field(min_length=1, max_length=MOST_CHARACTERS)
    text_pair: str | None = Field(None, max_length=MOST_CHARACTERS)


class Batcher:
    """A thread that takes what waits, of any tasks, and puts it through the model together.

    Args:
        bank: whose model is in eval mode.
        max_batch, max_wait: rows of a batch at most, and seconds that the first of them waits for others.
        max_waiting: requests that may wait; more are refused at once.
    """

    def __init__(self, bank: TaskBank, tokenizer: Any, max_batch: int = 32, max_wait: float = 0.004,
                 max_waiting: int = 256, max_length: int = 128, how: str = "auto"):  # fmt: skip
        self.bank, self.tokenizer, self.how = bank, tokenizer, how
        self.max_batch, self.max_wait, self.max_length = max_batch, max_wait, max_length
        self.waiting: queue.Queue[tuple[Request, Future[list[float]]] | None] = queue.Queue(max_waiting)
        self.batches = self.rows = 0
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def submit(self, request: Request) -> Future[list[float]]:
        """The logits of a request, later; raises `queue.Full`."""
        future: Future[list[float]] = Future()
        self.waiting.put_nowait((request, future))
        return future

    def close(self) -> None:
        """Answer what waits, then stop."""
        self.waiting.put(None)
        self.thread.join()

    def _run(self) -> None:
        while (first := self.waiting.get()) is not None:
            batch, until = [first], time.monotonic() + self.max_wait
            while len(batch) < self.max_batch:
                try:
                    found = self.waiting.get(timeout=max(0, until - time.monotonic()))
                except queue.Empty:
                    break
                if found is None:
                    self.waiting.put(None)
                    break
                batch.append(found)
            live = [one for one in batch if one[1].set_running_or_notify_cancel()]  # who has given up is left out
            self._answer([request for request, _ in live], [future for _, future in live])

    def _answer(self, requests: list[Request], futures: list[Future[list[float]]]) -> None:
        if not requests:
            return
        try:
            words = [self.tokenizer(one.text, one.text_pair, truncation="longest_first", max_length=self.max_length)
                     for one in requests]  # each alone: a text without a pair ends otherwise than one with an empty one
            told = self.tokenizer.pad(words, return_tensors="pt")
            rows = self.bank.forward(dict(told), [one.task for one in requests], how=self.how)["logits"]
            self.batches, self.rows = self.batches + 1, self.rows + len(requests)
            for future, logits in zip(futures, rows, strict=True):
                future.set_result(logits.tolist())
        except Exception as error:  # of one batch: the thread answers the next
            for future in futures:
                future.set_exception(error)


def bank_of(places: Sequence[str], max_loaded: int = 32) -> tuple[TaskBank, Any]:
    """A bank of the diffs in folders or files, by the names of their tasks, and the tokenizer of their base."""
    paths = [Path(place) / FILE_NAME if Path(place).is_dir() else Path(place) for place in places]
    infos = [identity(path)[1] for path in paths]
    bank = TaskBank(load_base(infos[0]).eval(), max_loaded=max_loaded)
    for path, info in zip(paths, infos, strict=True):
        bank.add(info.task or path.parent.name, path)
    return bank, load_tokenizer(infos[0].base_model)


def app_of(batcher: Batcher, timeout: float = 10) -> FastAPI:
    """The server; `/docs` describes it."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        batcher.close()

    app, bank = FastAPI(title="Tasks beside one model", lifespan=lifespan), batcher.bank

    @app.get("/health")
    def health() -> dict[str, Any]:
        if not batcher.thread.is_alive():
            raise HTTPException(503, "the thread that runs the model has ended")
        counts = {"waiting": batcher.waiting.qsize(), "batches": batcher.batches, "rows": batcher.rows}
        return {"status": "ok", "tasks": len(bank), **counts}

    @app.get("/tasks")
    def tasks() -> dict[str, Any]:
        memory = bank.memory()
        return {name: {"labels": bank.info(name).labels, "method": bank.info(name).method,
                       "bytes_in_memory": memory.tasks[name].total} for name in bank}  # fmt: skip

    @app.post("/predict")
    async def predict(request: Request) -> dict[str, Any]:
        if request.task not in bank:
            raise HTTPException(404, f"no task {request.task}: GET /tasks lists them")
        try:
            logits = await asyncio.wait_for(asyncio.wrap_future(batcher.submit(request)), timeout)
        except queue.Full:
            raise HTTPException(503, "too many requests wait: try again later", {"Retry-After": "1"}) from None
        except TimeoutError:
            raise HTTPException(504, f"no answer within {timeout} seconds") from None
        if len(logits) == 1:
            return {"task": request.task, "score": logits[0]}
        shares = torch.tensor(logits).softmax(0).tolist()
        names = bank.info(request.task).labels or [str(index) for index in range(len(shares))]
        return {"task": request.task, "label": names[shares.index(max(shares))],
                "probabilities": dict(zip(names, shares, strict=True))}  # fmt: skip

    return app


def main() -> None:
    """Read the flags and serve."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("diffs", nargs="+", help="folders of runs, or files of diffs, of one base")
    flags.add_argument("--host", default="127.0.0.1", help="by default this machine alone can ask")
    flags.add_argument("--port", type=int, default=8000)
    flags.add_argument("--max_batch", type=int, default=32, help="rows of a batch; 1 answers one after the other")
    flags.add_argument("--max_wait_ms", type=float, default=4, help="what the first row of a batch waits for others")
    flags.add_argument("--max_waiting", type=int, default=256, help="requests that may wait; more get a 503")
    flags.add_argument("--max_length", type=int, default=128, help="tokens that are read of a text")
    flags.add_argument("--how", choices=("auto", "mixed", "loop"), default="auto", help="see bank.forward")
    args = flags.parse_args()
    try:
        bank, tokenizer = bank_of(args.diffs)
    except ValueError as error:
        flags.error(str(error))
    limits = {"max_batch": args.max_batch, "max_waiting": args.max_waiting, "max_length": args.max_length}
    batcher = Batcher(bank, tokenizer, max_wait=args.max_wait_ms / 1000, how=args.how, **limits)
    uvicorn.run(app_of(batcher), host=args.host, port=args.port, log_level="warning")


if __name__ == "__main__":
    main()
