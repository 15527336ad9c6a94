"""Fine-tuning decoders through the command line: scores are those of the model that is saved, for all formats."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer

import decoders
import sft_rows
from glue_sparse import fisher, load_task
from glue_sparse.cli.main import main
from glue_sparse.core.batches import IGNORED
from glue_sparse.records.results import read
from glue_sparse.records.scales import scale_of

TEXT = "\n\n".join(f"The cat number {i} sat.\nIt was on mat {i % 7}, and all was well." for i in range(60))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a decoder, its tokenizer, and rows in every format."""
    folder = tmp_path_factory.mktemp("decoder")
    decoders.causal().save_pretrained(folder)
    decoders.tokenizer().save_pretrained(folder)
    for kind, rows in sft_rows.FORMATS.items():
        sft_rows.write(folder / "rows" / f"{kind}.jsonl", rows)
    return folder


def command(base: Path, out: Path, *more: str, kind: str = "prompts") -> list[str]:
    return ["sft", "--model", str(base), "--train_file", str(base / "rows" / f"{kind}.jsonl"), "--max_length", "64",
            "--method", "random", "--density", "0.01", "--max_steps", "4", "--learning_rate", "0.01",
            "--output_dir", str(out), *more]  # fmt: skip


def mean_loss(model: Any, data: Any) -> tuple[float, float]:
    """Loss per token and share of right tokens by the plain formula, row by row."""
    losses, right = [], []
    for row in data:
        ids, labels = torch.tensor(row["input_ids"]), torch.tensor(row["labels"])
        with torch.no_grad():
            logits, wanted = model(ids[None]).logits[0, :-1], labels[1:]
        kept = wanted != IGNORED
        losses.append(F.cross_entropy(logits[kept], wanted[kept], reduction="none"))
        right.append(logits[kept].argmax(-1) == wanted[kept])
    return torch.cat(losses).mean().item(), torch.cat(right).float().mean().item()


@pytest.mark.parametrize("kind", ["prompts", "messages"])
def test_scores_are_those_of_the_applied_diff(kind: str, base: Path, tmp_path: Path):
    assert main(command(base, tmp_path / "run", kind=kind)) == 0
    found = read(tmp_path / "run" / "results.json").metrics["validation"]
    assert main(["diff", "apply", str(tmp_path / "run"), str(tmp_path / "merged")]) == 0
    task = load_task("sft", model=str(base), train_file=str(base / "rows" / f"{kind}.jsonl"), max_length=64)
    loss, right = mean_loss(AutoModelForCausalLM.from_pretrained(tmp_path / "merged"), task.evals["validation"])
    assert found["lm_loss"] == pytest.approx(loss, rel=1e-5) and found["token_accuracy"] == pytest.approx(right)
    assert found["perplexity"] == pytest.approx(torch.tensor(loss).exp().item(), rel=1e-5)
    assert abs(loss - mean_loss(decoders.causal().eval(), task.evals["validation"])[0]) > 1e-3
    for name in ("lm_loss", "perplexity"):
        assert scale_of(name).smaller_is_better


@pytest.mark.slow
def test_a_stopped_run_goes_on_to_the_same_bits(base: Path, tmp_path: Path):
    packed = ("--packing", "--save_strategy", "steps", "--save_steps", "2", "--save_total_limit", "9")
    pytest.importorskip("trl")
    assert main(command(base, tmp_path / "whole", *packed)) == 0
    first = (tmp_path / "whole" / "sparse_diff.safetensors").read_bytes()
    for name in ("results.json", "sparse_diff.safetensors"):
        (tmp_path / "whole" / name).unlink()
    shutil.rmtree(tmp_path / "whole" / "checkpoint-4")
    assert main(command(base, tmp_path / "whole", *packed, "--resume_from_checkpoint", "last")) == 0
    assert (tmp_path / "whole" / "sparse_diff.safetensors").read_bytes() == first


def test_plain_text_trains_a_new_decoder_with_a_tokenizer_of_its_own(tmp_path: Path):
    (tmp_path / "text.txt").write_text(TEXT)
    told = ["train", "--task", "causal_lm", "--train_file", str(tmp_path / "text.txt"), "--method", "dense",
            "--vocab_size", "300", "--max_length", "32", "--max_steps", "4",
            "--output_dir", str(tmp_path / "run")]  # fmt: skip
    assert main(told) == 0
    assert main(["diff", "apply", str(tmp_path / "run"), str(tmp_path / "merged")]) == 0
    model, merged = (AutoModelForCausalLM.from_pretrained(tmp_path / name) for name in ("run/model", "merged"))
    assert all(torch.equal(p, merged.get_parameter(name)) for name, p in model.named_parameters())
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run" / "model")
    assert model.config.vocab_size == len(tokenizer) <= 300
    document = TEXT.split("\n\n")[0]
    assert tokenizer.decode(tokenizer(document)["input_ids"]) == document  # with its line break
    result = json.loads((tmp_path / "run" / "results.json").read_text())
    assert result["main_metric"] == "lm_loss" and "last 5% held out" in result["title"]


def test_documents_are_whole_and_end_with_the_end_token(base: Path, tmp_path: Path):
    (tmp_path / "text.txt").write_text(TEXT)
    task = load_task("causal_lm", model=str(base), train_file=str(tmp_path / "text.txt"), max_length=16)
    ids = [one for row in task.train["input_ids"] for one in row]
    assert task.tokenizer is not None
    assert task.tokenizer.decode(ids) == "".join(f"{one}<eos>" for one in TEXT.split("\n\n")[:57])


def test_fisher_takes_a_packed_row_for_one_example(base: Path):
    pytest.importorskip("trl")
    rows = str(base / "rows" / "prompts.jsonl")
    task = load_task("sft", model=str(base), train_file=rows, max_length=32, packing=True)
    batch = task.collate([task.train[i] for i in range(3)])
    name, total = "model.layers.0.mlp.up_proj.weight", 0
    found = fisher(task.model, (name,), [batch], progress=False)[name]
    for i in range(3):
        one = {key: value[i : i + 1] for key, value in batch.items()}
        loss = task.model.eval()(**one).loss
        total = total + torch.autograd.grad(loss, task.model.get_parameter(name))[0] ** 2
    torch.testing.assert_close(found, total, rtol=1e-4, atol=1e-9)


WRONG = [
    (("--hub_dataset", "a/b"), "sft needs exactly one of --data_dir, --train_file and --hub_dataset, got --train_file"),
    (("--do_predict",), "sft has nothing to predict"),
    (("--completion_only_loss", "true"), "text.jsonl has none: leave it out"),
    (("--assistant_only_loss",), "--assistant_only_loss is for conversations, and text.jsonl has none"),
    (("--packing_strategy", "wrapped"), "--packing_strategy has no effect without --packing"),
    (("--method", "head", "--density", "0.005"), "nothing of this model would train: the method chose no weight of it"),
    (("--max_length", "4"), "--max_length must be from 8"),
    (("--label_smoothing_factor", "0.1"), "--label_smoothing_factor is for classes, which --task sft does not have"),
]


@pytest.mark.parametrize(("more", "said"), WRONG)
def test_what_cannot_be_is_said(more: tuple[str, ...], said: str, base: Path, tmp_path: Path, capsys: Any):
    told = command(base, tmp_path / "run", *more, kind="text")
    with pytest.raises(SystemExit) as stopped:
        main(told)
    assert stopped.value.code and said in capsys.readouterr().err
    assert not (tmp_path / "run" / "results.json").exists()


def test_conversations_need_a_template(base: Path, tmp_path: Path):
    plain = decoders.tokenizer().__class__.from_pretrained(base)
    plain.chat_template = None
    decoders.causal().save_pretrained(tmp_path / "plain")
    plain.save_pretrained(tmp_path / "plain")
    rows = str(base / "rows" / "messages.jsonl")
    with pytest.raises(ValueError, match="messages.jsonl holds conversations, and the tokenizer has no chat template"):
        load_task("sft", model=str(tmp_path / "plain"), train_file=rows, max_length=64)
    (tmp_path / "chat.jinja").write_text(decoders.CHAT)
    told = load_task("sft", model=str(tmp_path / "plain"), train_file=rows, max_length=64,
                     chat_template=str(tmp_path / "chat.jinja"))  # fmt: skip
    own = load_task("sft", model=str(base), train_file=rows, max_length=64)
    assert [*told.train["input_ids"]] == [*own.train["input_ids"]]


@pytest.mark.parametrize("kind", ["prompts", "messages", "tools"])
def test_rows_of_the_hub_are_those_of_files(kind: str, base: Path, tmp_path: Path):
    """A folder is read by the same library as a data set of the hub, which gives rows the fields of all."""
    for split in ("train", "validation"):
        sft_rows.write(tmp_path / "hub" / f"{split}.jsonl", sft_rows.FORMATS[kind])
    places: list[dict[str, Any]] = [{"hub_dataset": str(tmp_path / "hub")}, {"data_dir": str(tmp_path / "hub")}]
    hub, files = (load_task("sft", model=str(base), max_length=64, **told) for told in places)
    for name in ("input_ids", "labels"):
        assert [*hub.train[name]] == [*files.train[name]]
    assert len(hub.evals["validation"]) == len(sft_rows.FORMATS[kind]) and hub.source["kind"] == "hub"
