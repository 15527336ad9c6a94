"""The model for pre-training: equal to the stock one, with active entries, saved for others, and by name."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig, GPT2Config, GPT2LMHeadModel

from glue_sparse import SparseDiff
from glue_sparse.core.active import active_tensors, attach
from glue_sparse.core.masks import Masks
from glue_sparse.core.params import head_names, sparsifiable
from glue_sparse.diffs import pruned_model
from glue_sparse.diffs.identity import DiffInfo
from glue_sparse.models import bert_family, names, of_diff, tokenizers
from glue_sparse.models import bert_pretraining as pretraining
from glue_sparse.models.bert_pretraining import BertForPreTraining
from networks import TINY

EMBEDDING = "bert.embeddings.word_embeddings.weight"


def model(seed: int = 0) -> BertForPreTraining:
    """A small model whose biases and norms are no zeros and ones, in eval mode."""
    sizes: dict[str, Any] = {**TINY, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = BertConfig(**sizes, initializer_range=0.3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = BertForPreTraining(config)
        for parameter in network.parameters():
            parameter.data += 0.1 * torch.randn(parameter.shape)
    return network.eval()


def stock(network: BertForPreTraining) -> transformers.BertForPreTraining:
    other = transformers.BertForPreTraining(network.config)
    other.load_state_dict(network.state_dict())
    return other.eval()


def batch(masked: tuple[int, ...] = (0, 3, 1), seed: int = 0) -> dict[str, Tensor]:
    """Examples of 12 tokens, padded from the tenth on, with so many masked tokens."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, 50, (len(masked), 12), generator=generator)
    labels = torch.full_like(ids, -100)
    for row, count in enumerate(masked):
        places = torch.randperm(10, generator=generator)[:count]
        labels[row, places] = torch.randint(50, (count,), generator=generator)
    attended = (torch.arange(12) < 10).long().expand(len(masked), 12)
    types = (torch.arange(12) > 5).long().expand(len(masked), 12)
    is_random = torch.arange(len(masked)) % 2
    return {"input_ids": ids * attended, "attention_mask": attended, "token_type_ids": types, "labels": labels,
            "next_sentence_label": is_random}  # fmt: skip


def test_loss_and_gradients_are_those_of_the_stock_model():
    ours, inputs = model(), batch()
    theirs = stock(ours)
    loss, expected = ours(**inputs).loss, theirs(**inputs).loss
    assert torch.allclose(loss, expected, atol=1e-6)
    loss.backward()
    expected.backward()
    named = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        gradient, other = parameter.grad, named[name].grad
        assert gradient is not None and other is not None and torch.allclose(gradient, other, atol=1e-6), name
    assert ours.cls.predictions.decoder.weight is ours.get_parameter(EMBEDDING)


def test_statistics_are_of_each_example():
    ours, inputs = model(), batch(masked=(0, 3, 1, 5))
    inputs["labels"][1, 2] = 7
    found: Tensor = ours(**inputs).statistics
    logits = stock(ours)(**{k: v for k, v in inputs.items() if "label" not in k})
    for row in range(4):
        labels, scores = inputs["labels"][row], logits.prediction_logits[row]
        losses = torch.nn.functional.cross_entropy(scores, labels, reduction="sum", ignore_index=-100)
        right = (scores.argmax(-1) == labels).sum()
        next_loss = -logits.seq_relationship_logits[row].log_softmax(-1)[inputs["next_sentence_label"][row]]
        next_right = logits.seq_relationship_logits[row].argmax() == inputs["next_sentence_label"][row]
        expected = torch.stack([losses, (labels != -100).sum(), right, next_loss, next_right])
        assert torch.allclose(found[row], expected, atol=1e-5)
    assert not found.requires_grad


def test_without_labels_it_returns_the_logits_of_the_stock_model():
    ours, inputs = model(), {"input_ids": batch()["input_ids"]}
    assert torch.equal(ours(**inputs).prediction_logits, stock(ours)(**inputs).prediction_logits)


def test_a_batch_without_masked_tokens_has_the_loss_of_next_sentences():
    ours, inputs = model(), batch(masked=(0, 0))
    output = ours(**inputs)
    output.loss.backward()
    assert torch.allclose(output.loss, output.statistics[:, 3].mean()) and not output.statistics[:, :3].any()
    assert all(p.grad is None or p.grad.isfinite().all() for p in ours.parameters())


def test_bfloat16_is_close():
    ours, inputs = model(), batch(masked=(4, 4))
    exact = ours(**inputs).loss
    with torch.autocast("cpu", torch.bfloat16):
        output = ours(**inputs)
    output.loss.backward()
    assert output.loss.dtype == output.statistics.dtype == torch.float32
    assert torch.allclose(output.loss, exact, rtol=0.05) and ours.get_parameter(EMBEDDING).grad is not None


def test_what_is_sparse_and_what_the_head_is():
    network = model()
    found = sparsifiable(network, ())
    assert len(found) == 6 * TINY["num_hidden_layers"] and all(n.startswith("bert.encoder.layer.") for n in found)
    assert all(axis == -1 for axis in found.values())
    assert all(name.startswith("cls.") for name in head_names(network))


def test_active_entries_of_the_tied_embedding(tmp_path: Path):
    """The decoder uses the same entries; a diff of them goes round."""
    network, inputs = model(), batch()
    theirs, before = stock(network), {name: value.clone() for name, value in network.state_dict().items()}
    masks: Masks = {EMBEDDING: torch.rand(50, 16, generator=torch.Generator().manual_seed(0)) < 0.2}
    attach(network, masks)
    loss, expected = network(**inputs).loss, theirs(**inputs).loss
    loss.backward()
    expected.backward()
    gradient = theirs.get_parameter(EMBEDDING).grad
    values = dict(active_tensors(network))[EMBEDDING].values
    assert gradient is not None and values.grad is not None
    assert torch.allclose(values.grad, gradient[masks[EMBEDDING]], atol=1e-6)
    torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=0.1).step()
    trained = network(**inputs).loss
    SparseDiff.from_model(network).save_pretrained(tmp_path)
    diff, other = SparseDiff.from_pretrained(tmp_path), model()
    assert diff.whole.keys() == {n for n, _ in theirs.named_parameters()} - {EMBEDDING}
    diff.restore(other)
    assert torch.equal(other(**inputs).loss, trained)
    plain = model()
    diff.apply(plain)
    assert torch.equal(plain(**inputs).loss, trained)
    assert plain.cls.predictions.decoder.weight is plain.get_parameter(EMBEDDING)
    diff.remove(plain)
    assert all(torch.equal(value, before[name]) for name, value in plain.state_dict().items())


@pytest.mark.parametrize("attached", [False, True])
def test_a_saved_model_is_a_stock_one(attached: bool, tmp_path: Path, tiny_bert: str):
    network, inputs = model(), batch()
    if attached:
        names = [*sparsifiable(network), EMBEDDING]
        masks = {name: torch.ones_like(network.get_parameter(name), dtype=torch.bool) for name in names}
        attach(network, masks, "zero")
    expected = network(**inputs).loss
    pruned_model.write(network, AutoTokenizer.from_pretrained(tiny_bert), tmp_path)
    stock_class: Any = transformers.BertForPreTraining
    read, report = stock_class.from_pretrained(tmp_path, output_loading_info=True)
    assert type(read) is stock_class and read.config.architectures == ["BertForPreTraining"]
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    assert torch.allclose(read(**inputs).loss, expected, atol=1e-6)
    classifier, report = AutoModelForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert report["missing_keys"] == {"classifier.weight", "classifier.bias"}
    assert torch.equal(classifier.get_parameter("bert.pooler.dense.weight"), read.bert.pooler.dense.weight)
    assert len(AutoTokenizer.from_pretrained(tmp_path)) == 62


@pytest.mark.parametrize(("name", "entries"), [("bert_tiny", 393_216), ("bert_mini", 3_145_728)])
def test_members_of_the_family_have_the_sizes_of_the_paper(name: str, entries: int):
    network = pretraining.load_base(f"{name}@scratch7", vocab_size=64)
    assert sum(network.get_parameter(found).numel() for found in sparsifiable(network)) == entries
    assert network.config.vocab_size == 64 and network.config.num_attention_heads * 64 == network.config.hidden_size
    assert network.config.hidden_dropout_prob == 0.0 and network.config.max_position_embeddings == 512
    assert names.base_name(name, 7, from_scratch=False) == f"{name}@scratch7"
    assert names.base_name(f"{name}@scratch3", 7, from_scratch=True) == f"{name}@scratch3"


def test_larger_members_have_dropout():
    found = {name: bert_family.config_of(name) for name in bert_family.SIZES}
    assert [c.hidden_dropout_prob for c in found.values()] == [0.0, 0.0, 0.0, 0.1, 0.1]
    layers = {name: 12 * c.num_hidden_layers * c.hidden_size**2 for name, c in found.items()}
    assert layers["bert_small"] == 12_582_912 and layers["bert_medium"] == 25_165_824
    assert layers["bert_base"] == 84_934_656


def test_random_weights_depend_on_the_name_and_the_vocabulary():
    before = torch.get_rng_state()
    one, again, other = (pretraining.load_base(f"bert_tiny@scratch{seed}", 64) for seed in (7, 7, 8))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), again.parameters(), strict=True))
    matrix = "bert.encoder.layer.0.output.dense.weight"
    weight = one.get_parameter(matrix)
    assert not torch.equal(weight, other.get_parameter(matrix))
    assert weight.abs().max() <= 0.04 and weight.std().item() == pytest.approx(0.0176, rel=0.02)  # of 0.02, cut at 0.04
    info = DiffInfo(base_model="bert_tiny@scratch7", model_class="BertForPreTraining", vocab_size=64)
    found = of_diff.load_base(info, info.base_model)
    assert type(found) is BertForPreTraining
    assert torch.equal(found.get_parameter(EMBEDDING), one.get_parameter(EMBEDDING))


def test_a_member_without_a_tokenizer_is_not_for_other_tasks():
    with pytest.raises(ValueError, match="^bert_mini is an architecture without a tokenizer: pre-train it with `task`"):
        tokenizers.load_tokenizer("bert_mini@scratch7")


def test_models_that_cannot_be_pre_trained(tmp_path: Path, tiny_bert: str):
    GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=2)).save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    with pytest.raises(ValueError, match="is of type gpt2; masked_lm trains models of type bert"):
        pretraining.load(str(tmp_path), tokenizer)
    tokenizer.add_tokens(["zebra"])
    with pytest.raises(ValueError, match="the tokenizer has 63 tokens and model .* 62: leave `tokenizer` out"):
        pretraining.load(tiny_bert, tokenizer)
    assert pretraining.load(f"{tiny_bert}@scratch7", tokenizer).config.vocab_size == 63
