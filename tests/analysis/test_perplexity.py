"""Perplexity by hand, for causal and masked language models, and what has none."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import RobertaConfig, RobertaForMaskedLM

from glue_sparse.analysis.perplexity import NOT_COUNTED, Window, perplexity, read_text, tokenize, windows
from glue_sparse.models.language_models import LanguageModel, load_language_model
from languages import language_model, saved, text


@pytest.fixture
def masked(tiny_bert: str) -> LanguageModel:
    return language_model("masked", tiny_bert)


def log_probabilities(language: LanguageModel, ids: Tensor) -> Tensor:
    """[tokens, words] for one window, in float64."""
    with torch.no_grad():
        return language.network(input_ids=ids[None]).logits[0].double().log_softmax(-1)


@pytest.mark.parametrize(("length", "stride"), [(8, None), (8, 3), (8, 8), (8, 1), (32, None), (7, 5)])
def test_causal_perplexity_is_the_hand_formula(causal: LanguageModel, length: int, stride: int | None):
    tokens = tokenize(causal, text(28))
    assert len(tokens.ids) == 29, "[CLS] and the words, but no [SEP]"
    losses = []
    for place in range(1, len(tokens.ids)):
        start = 0
        while start + length <= place:  # the first window that reaches this token
            start += stride or length
        if start < place:
            losses.append(-float(log_probabilities(causal, tokens.ids[start:place])[-1, tokens.ids[place]]))
    found = perplexity(causal, windows(causal, tokens, length, stride=stride))
    assert found.num_tokens == len(losses) and found.kind == "causal"
    assert found.loss == pytest.approx(sum(losses) / len(losses), rel=1e-5)
    assert found.perplexity == pytest.approx(math.exp(sum(losses) / len(losses)), rel=1e-5)


def test_masked_perplexity_is_the_hand_formula(masked: LanguageModel):
    cut = windows(masked, tokenize(masked, text(50)), 22)
    losses = []
    for window in cut:
        for place in range(len(window.ids)):
            if window.targets[place] != NOT_COUNTED:
                losses.append(-float(log_probabilities(masked, window.ids)[place, window.targets[place]]))
    found = perplexity(masked, cut)
    assert found.num_tokens == len(losses) == 3 + 3 + 2, "15 % of windows of 20, 20 and 10 words"
    assert found.perplexity == pytest.approx(math.exp(sum(losses) / len(losses)), rel=1e-5)


def places(cut: list[Window]) -> list[list[int]]:
    """Where each window is counted."""
    return [(window.targets != NOT_COUNTED).nonzero().squeeze(1).tolist() for window in cut]


def test_masked_windows_hide_words_alone_by_seed_and_number(masked: LanguageModel):
    tokens = tokenize(masked, text(45) + " zzz [SEP] the")
    cls, sep, unknown, mask = masked.tokenizer("[CLS] [SEP] [UNK] [MASK]", add_special_tokens=False)["input_ids"]
    assert unknown in tokens.ids and sep in tokens.ids
    cut = windows(masked, tokens, 12, seed=3)
    original = [torch.where(w.targets == NOT_COUNTED, w.ids, w.targets) for w in cut]
    assert torch.equal(torch.cat([ids[1:-1] for ids in original]), tokens.ids)
    for window in cut:
        assert int(window.ids[0]) == cls and int(window.ids[-1]) == sep
        hidden = window.targets != NOT_COUNTED
        assert hidden.tolist() == [token == mask for token in window.ids.tolist()] and hidden.any()
        assert not set(window.targets[hidden].tolist()) & {cls, sep, unknown, mask}
    other = tokenize(masked, text(48, seed=1))
    assert places(cut[:4]) == places(windows(masked, other, 12, seed=3)[:4])
    assert places(cut[:4]) != places(windows(masked, tokens, 12, seed=4)[:4])
    assert len(set(map(tuple, places(cut[:4])))) > 1


def test_batch_size_does_not_matter(language: LanguageModel):
    cut = windows(language, tokenize(language, text(61)), 8)
    one, four = (perplexity(language, cut, batch_size=size) for size in (1, 4))
    assert one.num_tokens == four.num_tokens and one.loss == pytest.approx(four.loss, rel=1e-6)


def test_a_uniform_model_has_the_vocabulary_as_perplexity(language: LanguageModel):
    tokens = tokenize(language, text(40))
    with torch.no_grad():
        for parameter in language.network.parameters():
            if parameter.shape[0] == language.num_words:  # embeddings, which are the head's weights too, and its bias
                parameter.zero_()
    found = perplexity(language, windows(language, tokens, 16))
    assert found.perplexity == pytest.approx(language.num_words, rel=1e-6)


def test_a_checkpoint_says_its_kind(language: LanguageModel, tmp_path: Path):
    loaded = load_language_model(saved(language, tmp_path), device="cpu")
    assert loaded.kind == language.kind and type(loaded.network) is type(language.network)
    found, expected = (perplexity(m, windows(m, tokenize(m, text(30)), 16)) for m in (loaded, language))
    assert found == expected


def test_what_has_no_perplexity_is_refused(masked: LanguageModel, tiny_bert: str, tmp_path: Path):
    with pytest.raises(ValueError, match="is a BertModel, without a language-model head"):
        load_language_model(tiny_bert)
    with pytest.raises(ValueError, match="no weights for 6 tensors of BertForMaskedLM"):
        load_language_model(tiny_bert, "masked", device="cpu")
    with pytest.raises(ValueError, match="not a causal model"):
        load_language_model(saved(masked, tmp_path / "masked"), "causal", device="cpu")
    with pytest.raises(ValueError, match="of type gpt2, which cannot be a masked"):
        load_language_model(saved(language_model("causal", tiny_bert), tmp_path / "causal"), "masked", device="cpu")
    with pytest.raises(ValueError, match="no usable model"):
        load_language_model(str(tmp_path), device="cpu")
    with pytest.raises(ValueError, match="device nonsense cannot be used"):
        load_language_model(str(tmp_path / "masked"), device="nonsense")


def test_the_longest_window_leaves_out_positions_before_the_padding_index(masked: LanguageModel):
    sizes: dict[str, Any] = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    config = RobertaConfig(vocab_size=20, max_position_embeddings=34, pad_token_id=1, **sizes)
    roberta = LanguageModel("roberta", RobertaForMaskedLM(config).eval(), masked.tokenizer, "masked")
    assert roberta.max_length == 32 and masked.max_length == 32
    assert roberta.network(input_ids=torch.full((1, 32), 5)).logits.shape == (1, 32, 20)
    with pytest.raises((IndexError, RuntimeError)):
        roberta.network(input_ids=torch.full((1, 33), 5))


def test_bad_texts_and_windows_are_refused(language: LanguageModel, tmp_path: Path):
    (tmp_path / "empty").write_text(" \n")
    (tmp_path / "binary").write_bytes(b"abc\xff\xfe")
    for name, message in (("empty", "is empty"), ("binary", "is not UTF-8 text: line 1 has other bytes")):
        with pytest.raises(ValueError, match=message):
            read_text(tmp_path / name)
    with pytest.raises(ValueError, match="2 at least"):
        tokenize(language, "cat" if language.kind == "masked" else "")
    tokens = tokenize(language, text(40))
    for length, message in ((33, "exceed the 32 positions"), (1, "no room"), (0, "no room")):
        with pytest.raises(ValueError, match=message):
            windows(language, tokens, length)
    for stride in (0, 9):
        with pytest.raises(ValueError, match="stride"):
            windows(language, tokens, 8, stride=stride)
    with pytest.raises(ValueError, match="1 window at least"):
        perplexity(language, windows(language, tokens, 8), batch_size=0)
    with torch.no_grad():
        language.network.get_input_embeddings().weight[:] = math.nan  # pyright: ignore
    with pytest.raises(ValueError, match="loss .* is nan"):
        perplexity(language, windows(language, tokens, 8))
