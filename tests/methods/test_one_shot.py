"""One-shot pruning: which tensors, how many entries, and which."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from transformers import MixtralConfig, MixtralForCausalLM

from glue_sparse.core import masks
from glue_sparse.core.budgets import erdos_renyi, uniform
from glue_sparse.core.masks import density, num_active, select_in_groups
from glue_sparse.core.params import encoder_matrices, head_names
from glue_sparse.methods.one_shot import OneShot
from glue_sparse.scores.activations import wanda
from glue_sparse.scores.scores import Computed, magnitude, noise
from networks import TINY, ImageNet, bert, collate, distilbert, examples, gpt2, llama


def chosen(model: nn.Module, **options: Any) -> masks.Masks:
    score = options.pop("score", magnitude)
    return OneShot(score, **options).prepare(model, head_names(model), lambda num_samples: ())


@pytest.mark.parametrize("build", [bert, distilbert, gpt2, llama])
def test_only_matrices_inside_layers_are_pruned(build: Any):
    model = build()
    found = encoder_matrices(model, head_names(model))
    assert found and all(model.get_parameter(name).dim() == 2 for name in found)
    others = ("embed", "wte", "norm", "ln_", "classifier", "pooler", "score")
    assert not any(word in name for name in found for word in others)
    inside = {
        f"{name}.weight": module
        for name, module in model.named_modules()
        if type(module).__name__ in ("Linear", "Conv1D") and (".layer" in name or ".h." in name)
    }
    assert found.keys() == inside.keys()


def test_input_axes_follow_the_orientation():
    assert set(encoder_matrices(bert()).values()) == {-1}
    assert set(encoder_matrices(gpt2()).values()) == {-2}


def test_fused_experts_count_as_matrices():
    config: dict[str, Any] = {**TINY, "num_local_experts": 2, "num_key_value_heads": 2}
    model = MixtralForCausalLM(MixtralConfig(**config))
    found = encoder_matrices(model)
    assert any(model.get_parameter(name).dim() == 3 for name in found)
    kept = chosen(model, sparsity=0.5, distribution="erk")
    assert num_active(kept) == sum(mask.numel() for mask in kept.values()) // 2


def test_a_model_without_matrices_inside_layers_is_refused():
    with pytest.raises(ValueError, match="no matrices inside numbered layers"):
        chosen(ImageNet())
    assert num_active(chosen(ImageNet(), sparsity=0.5, tensors=["first.weight"])) == 54


@pytest.mark.parametrize("distribution", ["global", "uniform", "erk"])
@pytest.mark.parametrize("score", [magnitude, partial(noise, seed=1)], ids=["magnitude", "random"])
@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.77])
def test_counts_are_exact(distribution: Any, score: Any, sparsity: float):
    kept = chosen(bert(), sparsity=sparsity, distribution=distribution, score=score)
    entries = sum(mask.numel() for mask in kept.values())
    assert num_active(kept) == entries - round(sparsity * entries)


def test_global_magnitude_equals_one_sort_of_everything():
    model = bert()
    kept = chosen(model, sparsity=0.4)
    everything = torch.cat([model.get_parameter(name).detach().abs().flatten() for name in kept])
    threshold = everything.sort(descending=True).values[num_active(kept) - 1]
    for name, mask in kept.items():
        assert torch.equal(mask, model.get_parameter(name).abs() >= threshold)


def test_uniform_is_per_tensor_and_rows_are_per_output():
    model = bert()
    for mask in chosen(model, sparsity=0.25, distribution="uniform").values():
        assert density({"w": mask}) == 0.75
    for name, mask in chosen(model, sparsity=0.25, distribution="row").items():
        assert mask.sum(1).unique().tolist() == [mask.shape[1] * 3 // 4]
        weakest = model.get_parameter(name).abs().argsort(dim=1)[:, : mask.shape[1] // 4]
        assert not mask.gather(1, weakest).any()


def test_rows_and_patterns_follow_the_inputs_of_conv1d():
    for mask in chosen(gpt2(), sparsity=0.5, distribution="row").values():
        assert mask.sum(0).unique().tolist() == [mask.shape[0] // 2]
    for mask in chosen(gpt2(), pattern=(1, 4)).values():
        assert mask.T.reshape(-1, 4).sum(1).unique().tolist() == [1]


@pytest.mark.parametrize(("pattern", "sparsity"), [((2, 4), 0.5), ((4, 8), 0.5), ((1, 4), 0.75), ((3, 4), 0.25)])
def test_patterns_say_how_many_are_kept(pattern: tuple[int, int], sparsity: float):
    kept = chosen(bert(), pattern=pattern)
    assert density(kept) == 1 - sparsity
    for mask in kept.values():
        assert (mask.view(-1, pattern[1]).sum(1) == pattern[0]).all()


def test_equal_scores_keep_the_earlier_entry():
    tied = {"w": torch.ones(2, 4)}
    assert select_in_groups(tied, 1, 2, {"w": -1})["w"].tolist() == [[True, False, True, False]] * 2
    assert select_in_groups(tied, 1, 2, {"w": -2})["w"].tolist() == [[True] * 4, [False] * 4]


def test_bad_requests_get_one_sentence():
    with pytest.raises(ValueError, match=r"`sparsity` must be in \[0, 1\), got 1"):
        OneShot(sparsity=1.0)
    with pytest.raises(ValueError, match="got -0.1"):
        OneShot(sparsity=-0.1)
    with pytest.raises(ValueError, match="groups of 5 do not divide the 16 inputs of bert.encoder"):
        chosen(bert(), pattern=(2, 5))
    with pytest.raises(ValueError, match="1 <= kept <= group"):
        OneShot(pattern=(5, 4))
    with pytest.raises(ValueError, match="leaves nothing"):
        chosen(bert(), sparsity=0.99999)


def test_the_mask_is_the_same_for_every_task():
    """A corollary of masks from pretrained weights (arXiv 2306.03805, section 3): head and labels do not matter."""
    two, three = bert(2), bert(3)
    assert not torch.equal(two.classifier.weight[:1], three.classifier.weight[:1])
    assert masks.digest(chosen(two, sparsity=0.3)) == masks.digest(chosen(three, sparsity=0.3))


@pytest.mark.parametrize("distribution", ["global", "uniform", "row"])
def test_masks_are_nested_over_sparsity(distribution: Any):
    """The other corollary: what is pruned at a lower sparsity is pruned at a higher one, too."""
    before = None
    for sparsity in (0.1, 0.2, 0.35, 0.6, 0.9):
        now = chosen(bert(), sparsity=sparsity, distribution=distribution)
        assert before is None or not any((now[name] & ~before[name]).any() for name in now)
        before = now


def test_erdos_renyi_densities_are_those_of_the_literature():
    layer = dict.fromkeys(("q", "k", "v", "o"), (768, 768)) | {"up": (3072, 768), "down": (768, 3072)}
    for sparsity, attention, feed_forward in ((0.5, 0.333, 0.583), (0.8, 0.733, 0.833), (0.9, 0.867, 0.917)):
        total = round((1 - sparsity) * 7_077_888)
        kept = erdos_renyi(layer, total)
        assert sum(kept.values()) == total
        assert 1 - kept["q"] / 768**2 == pytest.approx(attention, abs=6e-4)
        assert 1 - kept["up"] / (768 * 3072) == pytest.approx(feed_forward, abs=6e-4)


def test_erdos_renyi_makes_small_layers_dense_and_keeps_the_total():
    shapes = {"k": (1024, 4096), "q": (4096, 4096), "mlp": (14336, 4096)}
    total = (1024 * 4096 + 4096 * 4096 + 14336 * 4096) // 2
    kept = erdos_renyi(shapes, total)
    assert kept["k"] == 1024 * 4096 and sum(kept.values()) == total
    assert erdos_renyi(shapes, total, power=0.0) == uniform({n: a * b for n, (a, b) in shapes.items()}, total)


def test_uniform_budgets_share_out_what_rounding_leaves():
    assert uniform({"a": 3, "b": 3, "c": 3}, 4) == {"a": 2, "b": 1, "c": 1}


def test_magnitudes_are_computed_when_read_and_never_all_at_once():
    model = bert()
    scores = magnitude(model, tuple(encoder_matrices(model)))
    assert isinstance(scores, Computed)
    name = next(iter(scores))
    with torch.no_grad():
        model.get_parameter(name).zero_()
    assert not scores[name].any()
    with pytest.raises(KeyError):
        scores["bert.pooler.dense.weight"]


def test_wanda_is_magnitude_times_the_norm_of_the_inputs():
    for model, axis in ((bert(), -1), (gpt2(), -2)):
        names, rows = tuple(encoder_matrices(model, head_names(model))), examples(6)
        taken: dict[str, list[torch.Tensor]] = {name: [] for name in names}
        hooks = []
        for name in names:

            def keep(module: nn.Module, inputs: Any, found: list[torch.Tensor] = taken[name]) -> None:
                found.append(inputs[0].detach().flatten(0, -2))

            hooks.append(model.get_submodule(name.removesuffix(".weight")).register_forward_pre_hook(keep))
        for row in rows:  # one at a time, so that there is no padding
            model.eval()(**collate([row]))
        for hook in hooks:
            hook.remove()
        scores = wanda(model, names, [collate(rows[:4]), collate(rows[4:])])
        for name in names:
            norm = torch.cat(taken[name]).norm(dim=0)
            expected = model.get_parameter(name).detach().abs() * (norm if axis == -1 else norm[:, None])
            torch.testing.assert_close(scores[name].sqrt(), expected, rtol=1e-4, atol=1e-6)


def test_wanda_needs_data_and_linear_layers():
    with pytest.raises(ValueError, match="needs data"):
        wanda(bert(), ("bert.encoder.layer.0.output.dense.weight",), [])
    with pytest.raises(ValueError, match="bert.embeddings.word_embeddings.weight is none"):
        wanda(bert(), ("bert.embeddings.word_embeddings.weight",), [])
