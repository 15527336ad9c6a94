"""Tasks of one bank may have heads of several sizes; outputs and losses are those of a model each."""

from typing import Any

import pytest
import torch

from bank_tasks import made
from glue_sparse import SparseDiff, TaskBank
from networks import bert, collate, examples, gpt2

SIZES = {"sts": 1, "rte": 2, "mnli": 3}
LABELS = {"rte": ("yes", "no"), "mnli": ("yes", "perhaps", "no")}


def diffs() -> dict[str, SparseDiff]:
    return {
        name: made(bert(size), seed, num_labels=size, labels=LABELS.get(name, ()), task=name)
        for seed, (name, size) in enumerate(SIZES.items())
    }


def alone(diff: SparseDiff) -> Any:
    """A model that was made for one task."""
    size = diff.info.num_labels or 0
    model = bert(size, id2label=dict(enumerate(diff.info.labels or ("LABEL_0",)))).eval()
    diff.apply(model)
    return model


def batch(size: int) -> dict[str, Any]:
    found = collate(examples(4, max(size, 2)))
    return found | {"labels": found["labels"].float()} if size == 1 else found


@pytest.mark.parametrize("first", [None, "sts", "mnli"])
def test_outputs_and_losses_are_those_of_a_model_each(first: str | None):
    bank, tasks = TaskBank(bert(2).eval()), diffs()
    model: Any = bank.model
    for name, diff in tasks.items():
        bank.add(name, diff)
    with torch.no_grad():
        own = model(**batch(2))  # from here on transformers has noted a kind of loss
        bank.use(first)
        for name in ("rte", "sts", "mnli", "rte", "mnli", "sts"):
            bank.use(name)
            wanted, size = alone(tasks[name]), SIZES[name]
            found, other = model(**batch(size)), wanted(**batch(size))
            assert torch.equal(found.logits, other.logits) and found.logits.shape == (4, size)
            assert torch.equal(found.loss, other.loss) and found.loss > 0
            config = model.config
            assert model.num_labels == config.num_labels == model.classifier.out_features == size
            assert config.id2label == wanted.config.id2label
            assert config.label2id == {label: index for index, label in config.id2label.items()}
            assert config.problem_type == ("regression" if size == 1 else "single_label_classification")
        bank.use(None)
        back = model(**batch(2))
    assert torch.equal(back.logits, own.logits) and torch.equal(back.loss, own.loss)
    assert model.config.id2label == {0: "LABEL_0", 1: "LABEL_1"} and model.classifier.out_features == 2


def test_several_labels_at_once_stay_so():
    base: Any = bert(3, problem_type="multi_label_classification")
    bank = TaskBank(base)
    bank.add("a", made(bert(3), num_labels=3, labels=("x", "y", "z")))
    bank.use("a")
    assert base.config.problem_type == "multi_label_classification"
    assert base(**batch(3) | {"labels": torch.ones(4, 3)}).loss > 0


def test_the_last_head_of_a_stack_says_the_outputs():
    bank, tasks = TaskBank(bert(2)), diffs()
    model: Any = bank.model
    for name, diff in tasks.items():
        bank.add(name, diff)
    bare = made(bert(2), 9, num_labels=2)
    bank.add("language", SparseDiff(bare.indices, bare.values, {}, bare.shapes, bare.digests, bare.info))
    for names, size in ((("mnli", "language"), 3), (("language", "sts"), 1), (("sts", "mnli"), 3), (("language",), 2)):
        bank.use(*names)
        assert model.num_labels == len(model.config.id2label) == model.classifier.out_features == size, names


def test_a_base_that_has_noted_a_loss_of_its_own_keeps_it():
    base: Any = bert(2)
    bank = TaskBank(base)
    bank.add("sts", diffs()["sts"])
    assert base(**batch(2)).loss > 0 and base.config.problem_type == "single_label_classification"
    with bank.using("sts"):
        assert base(**batch(1)).loss > 0
    assert base.config.problem_type == "single_label_classification"


def test_a_decoder_scores_with_another_number_of_outputs():
    torch.manual_seed(0)
    base, wide = gpt2(2).eval(), gpt2(4).eval()
    wide.transformer.load_state_dict(base.transformer.state_dict())
    bank, diff = TaskBank(base), made(wide, num_labels=4)
    bank.add("a", diff)
    with bank.using("a"), torch.no_grad():
        assert torch.equal(base(**batch(4)).loss, wide(**batch(4)).loss)


def test_other_tensors_have_the_shape_of_the_base():
    diff = made(bert(3), num_labels=3)
    half = {name: tensor for name, tensor in diff.whole.items() if name != "classifier.bias"}
    wrong = diff.whole | {"bert.pooler.dense.bias": torch.zeros(3)}
    bank = TaskBank(bert(2))
    with pytest.raises(ValueError, match="pooler.dense.bias has shape"):
        bank.add("a", SparseDiff(diff.indices, diff.values, wrong, diff.shapes, diff.digests, diff.info))
    bank.add("b", SparseDiff(diff.indices, diff.values, half, diff.shapes, diff.digests, diff.info))
    with pytest.raises(ValueError, match="classifier.bias would have 2 outputs and classifier.weight 3"):
        bank.use("b")
    assert bank.in_use == ()


def test_a_head_that_reads_something_else_is_refused():
    diff = made(bert(2))
    with pytest.raises(ValueError, match="`pooling` mean"):
        TaskBank(bert(2)).add("a", with_pooling(diff, "mean"))


def with_pooling(diff: SparseDiff, pooling: Any) -> SparseDiff:
    info = type(diff.info)(**{**vars(diff.info), "pooling": pooling})
    return SparseDiff(diff.indices, diff.values, diff.whole, diff.shapes, diff.digests, info)
