"""Pre-training of BERT on text: masked words and next sentences (Devlin et al., 2019, arXiv 1810.04805)."""

from functools import partial
from typing import Any

import numpy as np
from datasets import Dataset
from torch import nn
from transformers import EvalPrediction, PreTrainedTokenizerBase

from glue_sparse.arguments.groups import ModelArguments, TaskArguments
from glue_sparse.core.active import active_tensors
from glue_sparse.core.names import block_of
from glue_sparse.costs import bert_flops
from glue_sparse.models import bert_pretraining as pretraining
from glue_sparse.models.names import BERTS, base_name, scratch_of
from glue_sparse.models.tokenizers import SpecialIds
from glue_sparse.tasks.base import Task
from glue_sparse.tasks.corpus import Corpus, Split, open_split
from glue_sparse.tasks.pretraining import prepared_text, wordpiece
from glue_sparse.tasks.pretraining.masking import Masking, MaskingCollator
from glue_sparse.tasks.pretraining.pair_stream import PairStream
from glue_sparse.tasks.pretraining.sentence_pairs import Pairs, Tokens
from glue_sparse.tasks.text import cut, seeded_head


def load(name: str, task: TaskArguments, model: ModelArguments, seed: int, do_predict: bool = False) -> Task:
    """Masked-LM and next-sentence pre-training on the text that the arguments name.

    Validation pairs and their masks do not depend on `seed`, so losses of all runs with the same tokenizer compare.

    Raises:
        ValueError: text, tokenizer or model are not to be had or do not fit each other.
    """
    if do_predict:
        raise ValueError("masked_lm has nothing to predict: leave `do_predict` out")
    base = base_name(model.model or "", seed, model.from_scratch)
    _check(task, base)
    split = open_split(task)
    tokenizer = _tokenizer(task, base, split.train)
    with seeded_head(seed):
        network = pretraining.load(base, tokenizer, model.dtype)
    tokenizer.model_max_length = min(tokenizer.model_max_length, network.config.max_position_embeddings)
    masking = Masking.of(tokenizer)
    validation, scored = _validation(split.validation, tokenizer, task, masking)
    train, trained = _train(split.train, tokenizer, task, seed)
    return Task(
        name=name,
        title=_title(split, trained, scored),
        model=network,
        head=(),
        tokenizer=tokenizer,
        train=train,
        evals={"validation": validation},
        collate=MaskingCollator(masking, seed, task.max_length if task.streaming else None),
        metrics=_metrics,
        main_metric="mlm_loss",
        metric_names=("mlm_loss", "mlm_accuracy", "nsp_loss", "nsp_accuracy"),
        source=_source(split, tokenizer, {"train": trained, "validation": scored}, bool(task.hub_dataset)),
        base_model=base,
        more_flops=partial(encoder_flops, length=task.max_length),
    )


def _source(split: Split, tokenizer: PreTrainedTokenizerBase, facts: dict[str, Any], of_hub: bool) -> dict[str, Any]:
    """Where the text came from, what is in it, and by which tokens."""
    told = {"size": len(tokenizer), "sha256": wordpiece.digest(tokenizer)}
    held = {"held_out": split.held_out} if split.held_out else {}
    return {"kind": "hub" if of_hub else "files", "name": split.train.title, **facts, "tokenizer": told, **held}


def encoder_flops(network: nn.Module, length: int) -> dict[str, float]:
    """By the formula of `bert_flops`, of the encoder alone, with the weights that are zero left out."""
    config: Any = network.config
    layers, hidden = config.num_hidden_layers, config.hidden_size
    num_entries = bert_flops.encoder_entries(layers, hidden, config.intermediate_size)
    held = [entries for name, entries in active_tensors(network) if block_of(name) and len(entries.shape) == 2]
    active = num_entries - sum(one.shape.numel() - one.num_active for one in held if one.inactive == "zero")
    return bert_flops.report(active, layers, hidden, length)


def _check(task: TaskArguments, base: str) -> None:
    """Before any text is read: raise a ValueError for a model or settings that cannot be."""
    longest = pretraining.configuration(base).max_position_embeddings
    if not 8 <= task.max_length <= longest:
        raise ValueError(f"`max_length` must be from 8 to this model's {longest} tokens, got {task.max_length}")
    if task.streaming and task.max_train_samples is not None:
        raise ValueError("`max_train_samples` counts pairs, which `streaming` makes without an end: give one of them")


def _title(split: Split, trained: dict[str, Any], scored: dict[str, Any]) -> str:
    """`masked LM (a.txt)`, with what keeps a loss from being that of the whole text."""
    notes = [split.train.title, split.note]
    if "used" in trained:
        notes.append(f"{trained['used']:,} train pairs")
    if scored["used"] < scored["pairs"]:
        notes.append(f"{scored['used']:,} of {scored['pairs']:,} validation pairs")
    return f"masked LM ({'; '.join(note for note in notes if note)})"


def _tokenizer(task: TaskArguments, base: str, corpus: Corpus) -> PreTrainedTokenizerBase:
    """The tokenizer that was given, else the model's own, else one trained on the corpus."""
    if task.tokenizer is None and scratch_of(base)[0] in BERTS:
        train = wordpiece.train if task.streaming else prepared_text.tokenizer_of
        return train(corpus, task.vocab_size)
    if task.vocab_size != TaskArguments.vocab_size:
        raise ValueError("`vocab_size` is for a tokenizer trained on the text, and this run has another: leave it out")
    return wordpiece.load(task.tokenizer or base)


def _train(corpus: Corpus, tokenizer: PreTrainedTokenizerBase, task: TaskArguments, seed: int) -> tuple[Any, Any]:
    """Training pairs, and facts about them that do not depend on the seed, as the number of pairs does."""
    if task.streaming:
        facts = {"names": list(corpus.names), "bytes": corpus.num_bytes}
        return PairStream(corpus, tokenizer, task.max_length, seed), facts
    tokens, key = _tokens(corpus, tokenizer, "Tokenise")
    bounds = prepared_text.pairs_of(tokens, key, task.max_length, seed)
    kept = _kept(len(bounds), "train", task, seed)
    facts = _facts(corpus, tokens) | ({"used": len(kept)} if len(kept) < len(bounds) else {})
    return Pairs(tokens, bounds[kept], SpecialIds.of(tokenizer)), facts


def _validation(
    corpus: Corpus, tokenizer: PreTrainedTokenizerBase, task: TaskArguments, masking: Masking
) -> tuple[Pairs, Any]:
    """Pairs to score, and facts about them."""
    tokens, key = _tokens(corpus, tokenizer, "Tokenise validation text")
    bounds = prepared_text.pairs_of(tokens, key, task.max_length, seed=0)
    kept = _kept(len(bounds), "validation", task, seed=0)
    facts = _facts(corpus, tokens) | {"pairs": len(bounds), "used": len(kept)}
    return Pairs(tokens, bounds[kept], masking.ids, masking), facts


def _tokens(corpus: Corpus, tokenizer: PreTrainedTokenizerBase, desc: str) -> tuple[Tokens, str | None]:
    """All tokens of a corpus that can give pairs, and their key, or a ValueError that says what is missing."""
    tokens, key = prepared_text.tokens_of(corpus, tokenizer, desc)
    needed = "text has a sentence a line, and a blank line between documents"
    if not tokens.num_documents:
        raise ValueError(f"{corpus.title} has no text: {needed}")
    if tokens.num_documents < 2:
        raise ValueError(f"{corpus.title} has one document, and next sentences need two or more: {needed}")
    if tokens.num_sentences == tokens.num_documents:
        raise ValueError(f"no document of {corpus.title} has two sentences, so there are no next ones: {needed}")
    return tokens, key


def _kept(count: int, split: str, task: TaskArguments, seed: int) -> np.ndarray:
    """Numbers of the pairs that `max_train_samples` or `max_eval_samples` leave."""
    return np.array(cut(Dataset.from_dict({"pair": range(count)}), split, task, seed)["pair"][:], dtype=np.int64)


def _facts(corpus: Corpus, tokens: Tokens) -> dict[str, Any]:
    counts = {"documents": tokens.num_documents, "sentences": tokens.num_sentences, "tokens": len(tokens.ids)}
    return {"names": list(corpus.names), "bytes": corpus.num_bytes, **counts}


def _metrics(evaluated: EvalPrediction) -> dict[str, float]:
    """Losses in nats and accuracies, of all masked tokens and of all pairs, from the model's statistics [pairs, 5]."""
    statistics = np.asarray(evaluated.predictions, dtype=np.float64)
    loss, tokens, right, next_loss, next_right = statistics.sum(axis=0)
    return {
        "mlm_loss": loss / max(tokens, 1),
        "mlm_accuracy": right / max(tokens, 1),
        "nsp_loss": next_loss / len(statistics),
        "nsp_accuracy": next_right / len(statistics),
    }
