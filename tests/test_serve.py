"""The server of examples/serve.py answers requests of several tasks together, and says no where it must."""

import asyncio
import queue
import runpy
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
import uvicorn
from fastapi.testclient import TestClient

from glue_sparse import DiffInfo, SparseDiff, load_base, load_tokenizer
from glue_sparse.core.parametrization import current_tensors

EXAMPLES = Path(__file__).parents[1] / "examples"
SERVE, ASK = (runpy.run_path(str(EXAMPLES / f"{name}.py")) for name in ("serve", "load_test"))
LABELS = {"two": ("no", "yes"), "three": ("red", "green", "blue"), "score": ()}
"""Task -> the names of its answers; none for a number."""


@pytest.fixture(scope="module")
def folders(tiny_bert: str, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Diffs of three tasks, each with a head of its own size."""
    made = []
    for seed, (task, labels) in enumerate(LABELS.items()):
        info = DiffInfo(tiny_bert, "BertForSequenceClassification", task, labels=labels, num_labels=len(labels) or 1)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = load_base(info)
            before = {name: tensor.detach().clone() for name, tensor in current_tensors(model).items()}
            with torch.no_grad():
                for tensor in model.parameters():
                    at = torch.rand(tensor.shape) < 0.05
                    tensor[at] += torch.randn(int(at.sum()))
        made.append(tmp_path_factory.mktemp(task))
        SparseDiff.between(before, model, ("classifier.weight", "classifier.bias"), info).save_pretrained(made[-1])
    return made


def batcher(folders: list[Path], **options: Any) -> Any:
    return SERVE["Batcher"](*SERVE["bank_of"](map(str, folders)), **options)


@pytest.fixture(scope="module")
def client(folders: list[Path]) -> Iterator[TestClient]:
    with TestClient(SERVE["app_of"](batcher(folders))) as client:
        yield client


def alone(folder: Path, text: str, pair: str | None) -> torch.Tensor:
    """Logits of the task's own model."""
    diff = SparseDiff.from_pretrained(folder)
    model = load_base(diff.info).eval()
    diff.apply(model)
    told = load_tokenizer(diff.info.base_model)(text, pair, return_tensors="pt")
    with torch.no_grad():
        return model(**told).logits[0]


def test_requests_of_several_tasks_get_what_each_task_alone_would_say(client: TestClient, folders: list[Path]):
    asked = [(folder, text, pair) for folder in folders
             for text, pair in (("a good film", None), ("the cat sleeps", "a dog runs"), ("bad", None))]  # fmt: skip
    tasks = dict(zip(folders, LABELS, strict=True))
    bodies = [{"task": tasks[folder], "text": text, "text_pair": pair} for folder, text, pair in asked]
    with ThreadPoolExecutor(len(bodies)) as threads:
        answers = [*threads.map(lambda body: client.post("/predict", json=body).json(), bodies)]
    for (folder, text, pair), answer in zip(asked, answers, strict=True):
        logits, labels = alone(folder, text, pair), LABELS[answer["task"]]
        if labels:
            wanted = dict(zip(labels, logits.softmax(0).tolist(), strict=True))
            assert answer["probabilities"] == pytest.approx(wanted, abs=1e-5)
            assert answer["label"] == max(wanted, key=wanted.__getitem__)
        else:
            assert answer["score"] == pytest.approx(float(logits), abs=1e-4)
    health = client.get("/health").json()
    assert health["status"] == "ok" and health["tasks"] == 3 and health["rows"] >= 9


def test_tasks_are_listed(client: TestClient):
    found = client.get("/tasks").json()
    assert {name: tuple(one["labels"]) for name, one in found.items()} == LABELS


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"task": "four", "text": "a film"}, 404),
        ({"task": "two"}, 422),
        ({"task": "two", "text": ""}, 422),
        ({"task": "two", "text": "a " * 10_001}, 422),
    ],
)
def test_bad_requests_are_refused(client: TestClient, body: dict[str, str], status: int):
    assert client.post("/predict", json=body).status_code == status
    assert client.post("/predict", json={"task": "two", "text": "a film"}).status_code == 200


def test_a_full_queue_a_slow_model_and_a_failing_one_are_told(folders: list[Path]):
    made, body = batcher(folders, max_waiting=2), {"task": "two", "text": "a film"}
    go_on = threading.Event()
    forward = made.bank.forward

    def waiting(*args: Any, **kwargs: Any) -> Any:
        go_on.wait(20)
        return forward(*args, **kwargs)

    made.bank.forward = waiting
    with TestClient(SERVE["app_of"](made, timeout=0.2)) as client:
        assert client.post("/predict", json=body).status_code == 504
        held: list[Future[Any]] = []
        with pytest.raises(queue.Full):
            while len(held) < 10:
                held.append(made.submit(SERVE["Request"](**body)))
        assert client.post("/predict", json=body).status_code == 503
        go_on.set()
        assert [len(one.result(20)) for one in held] == [2] * len(held)
        made.bank.forward = lambda *args, **kwargs: {}["gone"]
        with pytest.raises(KeyError):
            made.submit(SERVE["Request"](**body)).result(20)
        made.bank.forward = forward
        assert len(made.submit(SERVE["Request"](**body)).result(20)) == 2  # the thread goes on


def test_the_load_test_counts_answers(folders: list[Path]):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(SERVE["app_of"](batcher(folders)), port=port, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        waits, statuses, took = asyncio.run(ASK["ask"](f"http://127.0.0.1:{port}", 24, 8, None))
    finally:
        server.should_exit = True
        thread.join()
    assert statuses == {200: 24} and len(waits) == 24 and max(waits) < took
    assert ASK["percentile"]([0.001, 0.002, 0.003, 0.004], 0.5) == 3
