"""What is made of a text before training, once for all runs on it: its tokenizer, its tokens, and pairs of them."""

import numpy as np
import pyarrow as pa
from transformers import BertTokenizer, PreTrainedTokenizerBase

from glue_sparse.tasks import prepared
from glue_sparse.tasks.corpus import Corpus
from glue_sparse.tasks.pretraining import sentence_pairs, wordpiece
from glue_sparse.tasks.pretraining.sentence_pairs import Tokens


def tokenizer_of(corpus: Corpus, vocab_size: int) -> BertTokenizer:
    """As `wordpiece.train`, and raises as that."""
    content, num_bytes = corpus.content

    def learn() -> pa.Table:
        vocabulary = wordpiece.learn(corpus, vocab_size)
        return pa.table({"token": [*vocabulary], "number": [*vocabulary.values()]})

    key = prepared.key_of([prepared.source(wordpiece.__file__), content, vocab_size])
    found = prepared.kept(key, learn, num_bytes).to_pydict()
    return wordpiece.of_vocabulary(dict(zip(found["token"], found["number"], strict=True)))


def tokens_of(corpus: Corpus, tokenizer: PreTrainedTokenizerBase, desc: str) -> tuple[Tokens, str | None]:
    """As `sentence_pairs.tokenise`, with a key of them; without a key where the tokenizer's doing cannot be known."""
    known = prepared.identity(tokenizer)
    if known is None:
        return sentence_pairs.tokenise(corpus, tokenizer, desc), None
    content, num_bytes = corpus.content
    key = prepared.key_of([prepared.source(sentence_pairs.__file__), known, content])

    def make() -> pa.Table:
        return prepared.table_of(vars(sentence_pairs.tokenise(corpus, tokenizer, desc)))

    return Tokens(**prepared.arrays_of(prepared.kept(key, make, num_bytes))), key


def pairs_of(tokens: Tokens, key: str | None, max_length: int, seed: int) -> np.ndarray:
    """As `sentence_pairs.make_pairs`, and raises as that; `key` is that of the tokens."""
    if key is None:
        return sentence_pairs.make_pairs(tokens, max_length, seed)

    def make() -> pa.Table:
        return prepared.table_of({"bounds": sentence_pairs.make_pairs(tokens, max_length, seed).ravel()})

    key = prepared.key_of([key, max_length, seed])
    return prepared.arrays_of(prepared.kept(key, make, tokens.ids.nbytes))["bounds"].reshape(-1, 5)
