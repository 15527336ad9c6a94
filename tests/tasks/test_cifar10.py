"""CIFAR-10 from parquet files: what is used, what is held out, what it is called, and one short run."""

import io
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import EvalPrediction

from glue_sparse.arguments.command_line import DEFAULTS
from glue_sparse.arguments.groups import ModelArguments, TaskArguments
from glue_sparse.experiments.run import run
from glue_sparse.experiments.told import parse
from glue_sparse.models.pixels import Pixels
from glue_sparse.tasks import cifar10, held_out
from glue_sparse.tasks.base import Task
from glue_sparse.tasks.registry import load_task
from pictures import Rows, pictures

ROOT = Path(__file__).parents[2]
REAL = ROOT.parent / "shared" / "data" / "cifar10"


def save(folder: Path, train: Rows, test: Rows | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for split, rows in (("train", train), ("test", test)):
        if rows is not None:
            datasets.Dataset.from_list(rows).to_parquet(str(folder / f"{split}.parquet"))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("data"), pictures(40), pictures(20))


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The cache of tables in the test's own folder."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def load(data_dir: Path | None, model: str = "resnet9", seed: int = 0, **options: Any) -> Task:
    given = TaskArguments(task="cifar10", data_dir=None if data_dir is None else str(data_dir), **options)
    return load_task(given, ModelArguments(model=model), seed)


def test_a_task_of_images(folder: Path):
    task = load(folder, seed=3)
    assert task.title == "CIFAR-10 (subset)" and task.main_metric == "accuracy"
    assert task.base_model == "resnet9@3" and task.head == ("classifier.weight",) and task.tokenizer is None
    assert task.labels[9] == "truck" and len(task.train) == 40 and list(task.evals) == ["test"]
    assert task.source["rows"] == {"train": 40, "test": 20} and task.source["images"] == "original"
    original = Image.open(io.BytesIO(pictures(40)[7]["img"]["bytes"]))
    item = task.train[7]
    assert item["labels"] == 7 and item["pixel_values"].dtype == torch.uint8
    assert np.array_equal(item["pixel_values"].permute(1, 2, 0).numpy(), np.asarray(original))
    scored = task.evals["test"][4]
    assert scored["pixel_values"].dtype == torch.float32 and scored["labels"] == 4
    batch = task.collate([task.evals["test"][i] for i in range(2)])
    raw = load(folder).evals["test"]
    assert torch.equal(batch["pixel_values"][1], raw[1]["pixel_values"])


def test_normalisation_is_that_of_the_original(folder: Path):
    test: Any = load(folder).evals["test"]
    mean, std = torch.tensor([0.4914, 0.4822, 0.4465]), torch.tensor([0.2471, 0.2435, 0.2616])
    expected = (test.pixels[3].float() / 255 - mean[:, None, None]) / std[:, None, None]
    assert test.scored == Pixels() and torch.equal(test[3]["pixel_values"], expected)


def test_fewer_rows(folder: Path):
    one, again, other = (load(folder, seed=s, max_train_samples=10, max_eval_samples=5) for s in (0, 0, 1))
    assert one.title == "CIFAR-10 (subset, 10 of 40 train rows, 5 of 20 test rows)"
    labels = [[task.train[i]["labels"] for i in range(10)] for task in (one, again, other)]
    assert labels[0] == labels[1] != labels[2]
    assert [one.evals["test"][i]["labels"] for i in range(5)] == [0, 1, 2, 3, 4]  # the first ones


def test_only_used_rows_are_decoded(tmp_path: Path):
    broken: Rows = [{"img": {"bytes": b"no image", "path": None}, "label": 0}]
    save(tmp_path / "x", pictures(5), pictures(3) + broken)
    assert load(tmp_path / "x", max_eval_samples=3).source["rows"]["test"] == 3
    with pytest.raises(ValueError, match=r"row 3 of .*x/test.parquet holds no image that can be read$"):
        load(tmp_path / "x")


def test_what_makes_a_score_say_little_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    rows = pictures(8)
    task = load(save(tmp_path / "data", rows, [{**rows[3], "label": 9}]))
    told = ["every row of test that is used has the label truck: accuracy cannot tell good from bad",
            "test asks for the label truck, which no row of train that is used has",
            "1 of 1 rows of test are rows of train too: they tell little of others"]  # fmt: skip
    assert task.source["doubts"] == told and [r.message for r in caplog.records] == [f"CIFAR-10: {one}" for one in told]


def test_hold_out_scores_on_training_images(folder: Path, tmp_path: Path):
    alone = save(tmp_path / "alone", pictures(40))  # without test.parquet: the test images are not looked at
    task, other = load(alone, hold_out=20), load(alone, seed=5, hold_out=20, max_train_samples=6)
    assert task.title == "CIFAR-10 (validation, subset, 20 of 40 train rows)"
    assert other.title == "CIFAR-10 (validation, subset, 6 of 40 train rows)"
    assert list(task.evals) == ["validation"] and len(task.train) == len(task.evals["validation"]) == 20
    assert Counter(task.evals["validation"][i]["labels"] for i in range(20)) == dict.fromkeys(range(10), 2)
    held, same, rest = (data.pixels for data in (task.evals["validation"], other.evals["validation"], task.train))  # pyright: ignore
    assert torch.equal(held, same)  # whatever the seed
    everything = load(folder).train.pixels  # pyright: ignore
    assert len({image.numpy().tobytes() for image in torch.cat([held, rest])}) == len(everything) == 40


def test_titles():
    def name(train: int, test: int, jpeg: bool = False) -> str:
        full = {"train": 50_000, "test": 10_000}
        return cifar10.title({"train": train, "test": test}, full, full, jpeg)

    assert name(50_000, 10_000) == "CIFAR-10"
    assert name(2_000, 10_000) == "CIFAR-10 (2,000 of 50,000 train rows)"
    assert name(50_000, 10_000, jpeg=True) == "CIFAR-10 (JPEG)"
    assert name(2_000, 10_000, jpeg=True) == "CIFAR-10 (JPEG; 2,000 of 50,000 train rows)"
    more = {"train": 50_001, "test": 10_000}
    assert cifar10.title(more, more, more) == "CIFAR-10 (not official)"
    held = {"train": 45_000, "validation": 5_000}
    found = cifar10.title(held, {"train": 50_000, "validation": 5_000}, {"train": 50_000})
    assert found == "CIFAR-10 (validation, 45,000 of 50,000 train rows)"


def test_jpeg_images_are_told(tmp_path: Path):
    save(tmp_path / "cifar10", pictures(3), pictures(3, "jpeg"))
    task = load(tmp_path)  # the folder above
    assert task.title == "CIFAR-10 (JPEG; subset)" and task.source["images"].startswith("JPEG")


def test_accuracy(folder: Path):
    predictions = np.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7], [0.9, 0.1]])
    found = load(folder).metrics(EvalPrediction(predictions=predictions, label_ids=np.array([1, 0, 0, 0])))
    assert found == {"accuracy": 0.75}


def relabelled(label: Any) -> Callable[[Path], Path]:
    return lambda path: save(path, [{**row, "label": label} for row in pictures(2)], pictures(2))


def partly(labels: Sequence[Any]) -> Callable[[Path], Path]:
    rows = [{**row, "label": label} for row, label in zip(pictures(len(labels)), labels, strict=True)]
    return lambda path: save(path, rows)


def without(column: str) -> Callable[[Path], Path]:
    rows = [{k: v for k, v in row.items() if k != column} for row in pictures(2)]
    return lambda path: save(path, rows, pictures(2))


def no_parquet(path: Path) -> Path:
    save(path, pictures(2), pictures(2))
    (path / "train.parquet").write_text("not a table")
    return path


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (lambda path: path, {}, r"train.parquet does not exist; `data_dir` is the folder of cifar10/train.parquet"),
        (lambda path: save(path, pictures(2)), {}, "test.parquet does not exist"),
        (no_parquet, {}, "train.parquet is not a readable parquet file"),
        (without("img"), {}, "has no column 'img'; found: label"),
        (without("label"), {}, "has no column 'label'; found: img"),
        (relabelled(10), {}, r"row 0 of .*data/train.parquet has the label 10, which is not a class"),
        (relabelled(None), {}, r"row 0 of .*train.parquet has the label None, which"),
        (partly([0, 1, None, 2]), {"hold_out": 2}, r"row 2 of .*train.parquet has the label None, which"),
        (partly([0, 1, 2, 10]), {"hold_out": 2, "max_train_samples": 1}, r"row 3 of .* has the label 10, which"),
        (partly(["cat", "dog", "cat"]), {"hold_out": 1}, r"row 0 of .* has the label 'cat', which"),
        (partly([3, 3, 3, 3]), {"hold_out": 1}, "^CIFAR-10: every row of train has the label cat: there is nothing to"),
        (lambda path: save(path, pictures(2, side=28), pictures(1)), {}, "has 28x28 pixels; 32x32 are expected"),
        (lambda path: save(path, pictures(2)), {"hold_out": 2}, "`hold_out` 2 leaves none of the 2 training images"),
        (lambda path: save(path, pictures(2), pictures(2)), {"max_eval_samples": 0}, "`max_eval_samples` must be at"),
    ],
)
def test_bad_data(tmp_path: Path, make: Callable[[Path], Path], options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message) as raised:
        load(make(tmp_path / "data"), **options)
    assert "\n" not in str(raised.value)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(header: bytes, *chunks: bytes) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header + b"\x08\x02\0\0\0") + b"".join(chunks)


SIDES = struct.pack(">II", 32, 32)
WHOLE = pictures(1)[0]["img"]["bytes"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no image that can be read"),
        (WHOLE[: len(WHOLE) // 2], "holds no image that can be read"),
        (WHOLE.replace(b"IDAT", b"\0DAT"), "holds no image that can be read"),  # a SyntaxError of PIL's
        (png(SIDES, chunk(b"IDAT", b"not compressed")), "holds no image that can be read"),
        (png(SIDES, chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(2**21)))), "holds no image that can be read"),
        (png(struct.pack(">II", 10_000, 10_000), chunk(b"IDAT", b"")), "has 10000x10000 pixels; 32x32 .*"),  # PIL warns
        (png(struct.pack(">II", 20_000, 20_000), chunk(b"IDAT", b"")), "holds no image that can .*"),  # PIL refuses
    ],
)
@pytest.mark.filterwarnings("error")
def test_damaged_images(content: bytes, message: str):
    where = "row 5 of some/train.parquet"
    with pytest.raises(ValueError, match=f"^{where} {message}$"):
        cifar10._image(content, where)


def test_a_damaged_image_is_told_by_the_row_of_its_file(tmp_path: Path):
    rows = pictures(20)
    held, *_ = held_out.choose([*map(str, range(20))], 10, [row["label"] for row in rows])
    rows[held]["img"]["bytes"] = WHOLE.replace(b"IDAT", b"\0DAT")
    save(tmp_path / "cifar10", rows)
    with pytest.raises(ValueError, match=rf"^row {held} of .*cifar10/train.parquet holds no image that can be read$"):
        load(tmp_path, hold_out=10)  # in the split validation, but in the file of the training images


def test_img_that_is_a_number(tmp_path: Path):
    save(tmp_path, [{"img": 3, "label": 0}], pictures(1))
    with pytest.raises(ValueError, match="the column 'img' of .* does not hold images"):
        load(tmp_path)


def test_contradictions(folder: Path, tiny_bert: str):
    with pytest.raises(ValueError, match="is not an image classifier"):
        load(folder, model=tiny_bert)
    with pytest.raises(ValueError, match="`task` rte needs a model for text"):
        load_task(TaskArguments(task="rte"), ModelArguments(model="resnet9@1"), 0)
    with pytest.raises(ValueError, match="`hold_out` must be at least 0"):
        TaskArguments(task="cifar10", hold_out=-1)
    with pytest.raises(ValueError, match="no unlabelled test images"):
        load_task(TaskArguments(task="cifar10"), ModelArguments(model="resnet9"), 0, do_predict=True)
    with pytest.raises(ValueError, match="neither in the Hugging Face cache nor"):
        load(None)


def test_settings():
    config = DEFAULTS
    for method in ("dense", "fish"):
        found = parse(["--task", "cifar10", "--method", method], config=config)
        training = found.training
        assert found.model.model == "resnet9" and training.optim == "sgd" and training.dataloader_drop_last
        assert (training.learning_rate, training.num_train_epochs, training.max_grad_norm) == (0.4, 24, 0)
        assert training.get_warmup_steps(24 * 97) == 5 * 97
    assert parse(["--task", "cifar10", "--model", "resnet34"], config=config).model.model == "resnet34"


@pytest.mark.slow
def test_a_run_scores_every_image(folder: Path, tmp_path: Path):
    flags = "--max_train_samples 8 --per_device_train_batch_size 4 --num_train_epochs 1 --method fish --num_samples 2"
    argv = ["--task", "cifar10", "--data_dir", str(folder), "--max_eval_samples", "3", *flags.split(),
            "--density", "0.01", "--output_dir", str(tmp_path / "run"), "--disable_tqdm", "true"]  # fmt: skip
    result = run(parse(argv, config=DEFAULTS))
    assert result.title == "CIFAR-10 (subset, 8 of 40 train rows, 3 of 20 test rows)"
    # a batch is dropped when it is not full only in training: three images are less than a batch of 500
    assert result.metrics["test"]["accuracy"] * 3 == pytest.approx(round(result.metrics["test"]["accuracy"] * 3))


def test_real_images():
    if not REAL.is_dir():
        pytest.skip(f"{REAL} does not exist")
    task = load(REAL, max_train_samples=20, max_eval_samples=10)
    assert task.title == "CIFAR-10 (JPEG; 20 of 50,000 train rows, 10 of 10,000 test rows)"
