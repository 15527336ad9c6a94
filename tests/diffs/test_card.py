"""Model cards: valid whatever names hold, honest, without places of this machine, and with programs that run."""

import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from torch import nn

from glue_sparse import DiffInfo, FixedMask, SparseDiff, attach, noise, select
from glue_sparse.core.active import active_tensors
from glue_sparse.core.parametrization import wholly_active
from glue_sparse.core.params import body_names, head_names
from glue_sparse.diffs import bases, card, pruned_model
from glue_sparse.diffs.card import Contents, Measured
from glue_sparse.models import vision
from networks import bert, collate, examples, gpt2

INFO = DiffInfo("org/base", "BertForSequenceClassification", "rte", "fish", 0.005, ("no", "yes"))
CONTENTS = Contents(INFO, 113, 22_000, 770, 4_000)
RUN = Measured(
    title="RTE (subset)", metrics={"validation": {"loss": 0.6, "accuracy": 0.7123}}, seed=3, data="nyu-mll/glue",
    dataset="nyu-mll/glue", trained=883, command="glue-sparse train --task rte --seed 3", versions={"torch": "2"},
    date="2026-01-02T03:04:05",
)  # fmt: skip


def metadata(text: str) -> dict[str, Any]:
    return ModelCard(text).data.to_dict()


def program(text: str) -> str:
    return re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)[0]


def trained(model: nn.Module, info: DiffInfo) -> SparseDiff:
    """A diff of entries that differ from the base, and of its head."""
    masks = select(noise(model, body_names(model, head_names(model)), seed=0), 200)
    attach(model, masks)
    for _, entries in active_tensors(model):
        entries.values.data.add_(0.5)
    for parameter in wholly_active(model).values():
        parameter.data.add_(0.5)
    return SparseDiff.from_model(model, info)


def test_a_card_says_what_it_is_and_what_was_measured():
    text = card.of_diff(CONTENTS, "fish", RUN)
    told = metadata(text)
    assert (told["library_name"], told["base_model"], told["base_model_relation"]) == (
        "glue_sparse", "org/base", "adapter",
    )  # fmt: skip
    assert told["pipeline_tag"] == "text-classification" and told["tags"] == ["sparse-diff", "fish"]
    assert told["datasets"] == ["nyu-mll/glue"] and "language" not in told and "license" not in told
    result = told["model-index"][0]["results"][0]
    assert result["metrics"] == [{"type": "accuracy", "value": 0.7123}]
    assert result["dataset"] == {
        "name": "RTE (subset)", "type": "nyu-mll/glue", "config": "rte", "split": "validation",
    }  # fmt: skip
    assert all(words in text for words in ("seed 3", "RTE (subset)", "0.7123", "113 of 22,000", "4,000", RUN.command))


@pytest.mark.parametrize(("value", "shown"), [(0.71234, "0.71234"), (1.0, "1"), (1e300, "1e+300"), (3e-7, "3e-07")])
def test_a_metric_of_any_size_is_a_short_number(value: float, shown: str):
    text = card.of_diff(CONTENTS, "x", replace(RUN, metrics={"validation": {"perplexity": value}}))
    assert re.search(rf"`perplexity` \| {re.escape(shown)} +\|", text)
    assert metadata(text)["model-index"][0]["results"][0]["metrics"][0]["value"] == value


def test_what_trained_whole_is_not_called_some_entries():
    text = card.of_diff(replace(CONTENTS, active=0, masked=0), "x")
    assert "all tensors, stored whole" in text and "0 of 0" not in text and "not a whole model" not in text


def test_without_a_run_no_metric_is_claimed():
    text = card.of_diff(CONTENTS, "fish")
    assert "No metric was recorded" in text and "model-index" not in metadata(text) and "seed" not in text


@pytest.mark.parametrize(
    ("base", "hub_id"),
    [
        ("minilm", "sentence-transformers/all-MiniLM-L6-v2"),
        ("org/name", "org/name"),
        ("resnet9@0", None),
        ("org/name@scratch7", None),
        ("bare_name", None),
        ("/home/someone/private/bert", None),
        ("../elsewhere/bert", None),
        ("its base model", None),
        ("a: [b\n--- {", None),
    ],
)
def test_only_what_is_known_to_be_on_the_hub_is_a_base_there(base: str, hub_id: str | None):
    text = card.of_diff(replace(CONTENTS, info=replace(INFO, base_model=base)), "fish", RUN)
    told = metadata(text)
    assert told.get("base_model") == hub_id and told.get("base_model_relation") == (hub_id and "adapter")
    assert "someone" not in text and "elsewhere" not in text
    assert "@" not in base or "random weights" in text


def test_a_local_base_is_named_and_its_licence_read(tmp_path: Path):
    (tmp_path / "org" / "bert").mkdir(parents=True)
    base = str(tmp_path / "org" / "bert")
    assert metadata(card.of_diff(replace(CONTENTS, info=replace(INFO, base_model=base)), "x")).get("license") is None
    for told, wanted in (("apache-2.0", "apache-2.0"), ("'My own: words'", None), ("[a, b]", None)):
        (tmp_path / "org" / "bert" / "README.md").write_text(f"---\nlicense: {told}\n---\n# Bert\n")
        bases._licence.cache_clear()
        text = card.of_diff(replace(CONTENTS, info=replace(INFO, base_model=base)), "x")
        assert metadata(text).get("license") == wanted and "licence of the base applies" in text
        assert str(tmp_path) not in text and "`bert`" in text
    (tmp_path / "org" / "bert" / "README.md").write_text("---\n a: [\n---\n")
    bases._licence.cache_clear()
    assert bases.base_of(base).licence == {}


ODD = 'a\n---\nb: [c] #| "d" `e` </td> \ud800 é \x07'


@pytest.mark.parametrize("cls", ["x\nimport this\nForCausalLM", "x, y\nBertForSequenceClassification"])
def test_a_class_that_is_no_name_brings_no_code(cls: str):
    text = program(card.of_diff(replace(CONTENTS, info=replace(INFO, model_class=cls)), "x"))
    assert text.count("import") == 1


def test_any_name_leaves_the_card_valid_and_short(tmp_path: Path):
    labels = tuple(f"label {i}\n: {{" for i in range(2000))
    info = DiffInfo(ODD, ODD, ODD, ODD, 0.1, labels)
    run = replace(RUN, title=ODD, data=ODD, command=ODD * 500, metrics={ODD: {ODD: 0.5}}, dataset=None)
    for text in (
        card.of_diff(Contents(info, 1, 2, 3, 4), ODD, run),
        card.of_model(replace(info, model_class="Net"), "transformers", ODD, True, {}, run),
    ):
        card.write(text, tmp_path)
        read = ModelCard.load(tmp_path / "README.md")
        assert read.data["model-index" if "model-index" in read.data else "eval_results"]
        assert ODD in read.data["tags"] and len(text) < 12_000
        compile(program(read.content), "card", "exec")
        assert text.count("\n# ") == 1 and "and 199" in text


@pytest.mark.parametrize(
    ("told", "public"),
    [
        ("train --data_dir /home/me/glue --seed 1", "train --data_dir glue --seed 1"),
        ("--a=/x/y --b ~/z/w ../../u/v file:///q/r", "--a=y --b w v r"),
        (r"C:\Users\me\x.csv D:/data/y", "x.csv y"),
        ("--hub_token hf_abcdefgh123 --push hf_zyxwvuts", "--hub_token ... --push ..."),
        ("https://host/a/b org/name runs/x s3://b/c 1/2", "https://host/a/b org/name runs/x s3://b/c 1/2"),
    ],
)
def test_places_and_tokens_are_not_told(told: str, public: str):
    assert bases.public(told) == public


def test_a_path_with_spaces_is_cut_where_it_is_known():
    run = replace(RUN, command="train --data_dir /home/me/my data/glue", paths=["/home/me/my data/glue"])
    assert "train --data_dir glue\n" in card.of_diff(CONTENTS, "x", run)


def test_a_quoted_path_stays_one_word():
    for path in ("/home/me/it's mine/my data", "/home/me/plain/my data"):
        run = replace(RUN, command=shlex.join(["train", "--train_file", path, "--seed", "1"]), paths=[path])
        assert "train --train_file 'my data' --seed 1\n" in card.of_diff(CONTENTS, "x", run)


def test_another_place_is_put_into_the_program_alone():
    labels = ('.from_pretrained("a")', 'diff = SparseDiff.from_pretrained("b")')
    text = card.placed(card.of_diff(replace(CONTENTS, info=replace(INFO, labels=labels)), "fish"), "me/x")
    assert 'SparseDiff.from_pretrained("me/x")' in program(text) and all(label in text for label in labels)


def test_a_density_is_called_what_the_run_calls_it():
    text = card.of_diff(replace(CONTENTS, info=replace(INFO, method="rigl", density=0.1)), "x")
    assert "| `rigl`, `density` 10.000%" in text and "of all weights" not in text  # of the pruned tensors, there


def test_a_readme_of_ones_own_stays(tmp_path: Path):
    diff = trained(bert(), INFO)
    diff.save_pretrained(tmp_path)
    written = (tmp_path / "README.md").read_text()
    assert card.is_ours(tmp_path) and not card.is_foreign(tmp_path)
    (tmp_path / "README.md").write_text(written + "more")
    diff.save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == written
    own = written.replace(card.MARK, "")
    (tmp_path / "README.md").write_text(own)
    diff.save_pretrained(tmp_path)
    pruned_model.write_plain(bert(), None, tmp_path)
    assert (tmp_path / "README.md").read_text() == own and (tmp_path / "config.json").exists()


def test_checkpoints_have_no_card(tmp_path: Path):
    model = bert()
    attach(model, select(noise(model, body_names(model, head_names(model)), seed=0), 200))
    FixedMask(noise, density=0.5).save(model, INFO, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["sparse_diff.safetensors"]


@pytest.mark.parametrize("build", [bert, gpt2])
def test_the_program_of_a_diff_loads_it(build: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = build()
    model.save_pretrained("my base")
    info = DiffInfo(str(tmp_path / "my base"), type(model).__name__, "rte", "random", labels=("LABEL_0", "LABEL_1"))
    trained(model, info).save_pretrained('a "diff"')
    names: dict[str, Any] = {}
    exec(program(Path('a "diff"', "README.md").read_text()), names)
    batch = collate(examples(2))
    assert torch.equal(names["model"].eval()(**batch).logits, model.eval()(**batch).logits)


def test_the_program_of_a_diff_of_ones_own_network_takes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    names = {"model": nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))}
    names["model"].load_state_dict(model.state_dict())
    attach(model, {"0.weight": torch.eye(3).bool()})
    model.get_submodule("0").parametrizations.weight[0].values.data.add_(1)  # pyright: ignore
    SparseDiff.from_model(model, DiffInfo(model_class="Net")).save_pretrained("net")
    exec(program(Path("net", "README.md").read_text()), names)
    assert torch.equal(names["model"](torch.ones(1, 3)), model(torch.ones(1, 3)))


@pytest.mark.parametrize("name", ["bert", "resnet9"])
def test_the_program_of_an_ordinary_model_loads_it(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    model = bert() if name == "bert" else vision.load_scratch("resnet9@0", ("a", "b"))
    info = DiffInfo("org/base" if name == "bert" else "resnet9@0", task="rte", method="dense")
    pruned_model.write_plain(model, None, tmp_path / "merged", info=info, run=RUN)
    text = Path("merged", "README.md").read_text()
    told, names = metadata(text), {}
    assert (told["library_name"], told.get("base_model"), told.get("base_model_relation"), told["pipeline_tag"]) == (
        ("transformers", "org/base", "finetune", "text-classification") if name == "bert"
        else ("glue_sparse", None, None, "image-classification")
    )  # fmt: skip
    assert told["model-index"] and "0.7123" in text
    exec(program(text), names)
    assert all(torch.equal(tensor, model.state_dict()[key]) for key, tensor in names["model"].state_dict().items())


def test_each_network_for_images_has_a_task_and_is_built_by_its_base():
    for cls in vision.CLASSES:
        text = card.of_diff(replace(CONTENTS, info=replace(INFO, model_class=cls, base_model="resnet9@0")), "x")
        assert metadata(text)["pipeline_tag"] == "image-classification" and "load_base" in program(text)


def test_each_alias_has_a_name_on_the_hub():
    assert bases.HUB_IDS.keys() == bases.ALIASES.keys()
