"""Answers: where they lie in windows of tokens, how they are read from logits, and how they are scored."""

import unicodedata
from typing import Any

import evaluate
import numpy as np
import pytest
from conftest import SPECIAL, WORDS
from datasets import Dataset
from tokenizers.pre_tokenizers import ByteLevel
from transformers import BertTokenizer, GPT2Tokenizer, RobertaTokenizer

from glue_sparse.tasks import metrics
from glue_sparse.tasks.squad.answers import best_answers, text_of
from glue_sparse.tasks.squad.windows import Window, encode, spans_of

QUESTION = "who is the man ?"
TRICKY = [
    ("the cafe\u0301 is open", "cafe\u0301"),  # a combining mark, which BERT strips, at the end of the answer
    ("une e\u0301te\u0301\u0323 bleue", "e\u0301te\u0301\u0323"),
    ("un caf\u00e9 noir", "caf\u00e9"),
    ("so \U0001f600\U0001f603 glad", "\U0001f603"),
    ("a \U0001f469\u200d\U0001f680 flies", "\U0001f469\u200d\U0001f680 flies"),
    ("\u6771\u4eac\u306f\u65e5\u672c\u306e\u9996\u90fd", "\u65e5\u672c"),
    ("code \uff21\uff22\uff23\uff11 here", "\uff22\uff23"),
    ("a\t\tcat  sat\u00a0on it", "cat  sat"),
    ("   the cat  ", "the cat"),
    ("in (1990\u201391), twice", "1990\u201391"),
]


def rows(*questions: tuple[str, str, int], question: str = QUESTION) -> Dataset:
    """Questions from (context, answer, answer_start)."""
    return Dataset.from_list(
        [
            {"id": f"q{i}", "question": question, "context": c, "answers": {"text": [a], "answer_start": [s]}}
            for i, (c, a, s) in enumerate(questions)
        ]
    )


def wordpieces() -> Any:
    """A BERT tokenizer of single characters, which lower-cases and strips accents."""
    text = "".join(context for context, _ in TRICKY) + QUESTION
    letters = sorted({c for c in unicodedata.normalize("NFD", text.lower()) if not c.isspace()})
    vocabulary = [*SPECIAL, *letters, *(f"##{c}" for c in letters)]
    return BertTokenizer(vocab={word: i for i, word in enumerate(vocabulary)})


def byte_level(trim_offsets: bool) -> Any:
    """A RoBERTa tokenizer of single bytes: one character may be several tokens, and a space is one too."""
    words = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *sorted(ByteLevel.alphabet())]
    vocabulary = {word: i for i, word in enumerate([*words, "\u0120t", "\u0120c"])}
    merges: Any = [("\u0120", "t"), ("\u0120", "c")]
    return RobertaTokenizer(vocab=vocabulary, merges=merges, trim_offsets=trim_offsets)


@pytest.fixture(scope="module")
def words() -> Any:
    return BertTokenizer(vocab={word: i for i, word in enumerate((*SPECIAL, *WORDS.split()))})


@pytest.mark.parametrize(("context", "answer"), TRICKY, ids=range(len(TRICKY)))
@pytest.mark.parametrize("tokenizer", [wordpieces(), byte_level(True), byte_level(False)], ids=["bert", "trim", "raw"])
def test_labels_lead_back_to_the_answer(tokenizer: Any, context: str, answer: str):
    encoded = encode(rows((context, answer, context.index(answer))), tokenizer, 200, 20, True)
    (window,) = spans_of(encoded)
    first, last = (encoded[f"{end}_positions"][0] - window.first for end in ("start", "end"))
    assert first >= 0
    assert text_of(context, window.spans[first, 0], window.spans[last, 1]) == answer


CONTEXT = WORDS.replace("##", "").split()[:40]


def labels(tokenizer: Any, first: int, last: int) -> list[tuple[int, int]]:
    """Labels of the windows of 40 words, of which words `first` to `last` answer; 16 words a window, 4 shared."""
    answer, before = " ".join(CONTEXT[first : last + 1]), " ".join([*CONTEXT[:first], ""])
    encoded = encode(rows((" ".join(CONTEXT), answer, len(before))), tokenizer, 24, 4, False)
    return list(zip(encoded["start_positions"], encoded["end_positions"], strict=True))


def test_windows_overlap_by_doc_stride_and_leave_the_question_whole(words: Any):
    encoded = encode(rows((" ".join(CONTEXT), "the", 0), ("the cat", "cat", 4)), words, 24, 4, True)
    shown = [" ".join(words.convert_ids_to_tokens(ids)) for ids in encoded["input_ids"]]
    head = f"[CLS] {QUESTION} [SEP]"
    parts = [CONTEXT[0:16], CONTEXT[12:28], CONTEXT[24:40], ["the", "cat"]]
    assert shown == [f"{head} {' '.join(part)} [SEP]" for part in parts]
    assert [window.question for window in spans_of(encoded)] == [0, 0, 0, 1]
    assert {window.first for window in spans_of(encoded)} == {7}


def test_questions_are_counted_on_and_lose_the_spaces_around_them(words: Any):
    encoded = encode(rows(*[("cat", "cat", 0)] * 1001), words, 24, 4, True)  # one more than is tokenised at once
    assert [window.question for window in spans_of(encoded)] == list(range(1001))
    data = [rows(("cat", "cat", 0), question=question) for question in ("who", "  who ")]
    tight, loose = (encode(one, byte_level(True), 64, 4, False) for one in data)
    assert tight["input_ids"] == loose["input_ids"]


def test_only_windows_that_hold_the_whole_answer_are_labelled(words: Any):
    assert labels(words, 14, 15) == [(21, 22), (9, 10), (0, 0)]  # just inside the first window
    assert labels(words, 15, 16) == [(0, 0), (10, 11), (0, 0)]  # one word too far
    assert labels(words, 12, 13) == [(19, 20), (7, 8), (0, 0)]  # the first words of the second
    assert labels(words, 11, 12) == [(18, 19), (0, 0), (0, 0)]
    assert labels(words, 39, 39) == [(0, 0), (0, 0), (22, 22)]
    assert labels(words, 10, 17) == [(0, 0)] * 3  # no window holds it


def test_a_window_that_ends_within_a_character_does_not_hold_it():
    tokenizer, context = byte_level(True), "\U0001f600" * 20  # four tokens each
    encoded = encode(rows((context, context[6], 6)), tokenizer, 46, 4, True)
    assert len(spans_of(encoded)[0].spans) == 27  # 6.75 characters
    found = list(zip(encoded["start_positions"], encoded["end_positions"], strict=True))
    assert found[0] == (0, 0) and found[1][1] - found[1][0] == 3


def test_a_long_question_is_cut_and_the_log_says_so(words: Any, caplog: pytest.LogCaptureFixture):
    encoded = encode(rows((" ".join(CONTEXT), "the", 0), question="  who" * 30), words, 24, 4, False)
    assert all(ids[1:10] == [*words("who " * 8)["input_ids"][1:9], words.sep_token_id] for ids in encoded["input_ids"])
    assert "1 questions longer than 8 tokens are cut" in caplog.text


def test_what_leaves_no_room_or_does_not_fit_is_one_sentence(words: Any):
    data = rows(("the cat", "cat", 4))
    with pytest.raises(ValueError, match="`doc_stride` 5 is too large for `max_length` 23, .* at least 24"):
        encode(data, words, 23, 5, False)
    assert len(encode(data, words, 24, 5, False)) == 1
    left = BertTokenizer(vocab=words.get_vocab(), padding_side="left")
    slow = type("SlowTokenizer", (BertTokenizer,), {"is_fast": False})(vocab=words.get_vocab())
    no_cls = GPT2Tokenizer(vocab={c: i for i, c in enumerate(sorted(ByteLevel.alphabet()))}, merges=[])
    for tokenizer in (left, no_cls, slow):
        with pytest.raises(ValueError, match=r"begins with \[CLS\] and pads .*Tokenizer does not"):
            encode(data, tokenizer, 64, 5, False)


def logits(width: int, **at: float) -> np.ndarray:
    """[width] zeros but for the positions in `at`, such as p3=1.5; -100 beyond position 11, as Trainer pads."""
    values = np.full(width, -100.0, dtype=np.float32)
    values[:12] = 0
    for position, value in at.items():
        values[int(position[1:])] = value
    return values


LETTERS = "a b c d e f g h i j"
SPANS = np.array([[2 * i, 2 * i + 1] for i in range(10)])


def answers(starts: list[np.ndarray], ends: list[np.ndarray], *windows: Window, best: int = 20, longest: int = 30):
    contexts = [LETTERS] * (1 + max(window.question for window in windows))
    return best_answers(np.stack(starts), np.stack(ends), windows, contexts, best, longest)


def test_the_best_answer_over_all_windows_of_a_question():
    windows = [Window(0, 2, SPANS[:6]), Window(0, 2, SPANS[4:]), Window(1, 2, SPANS[:6])]
    starts = [logits(20, p3=5), logits(20, p2=4, p7=5.5), logits(20, p4=1)]
    ends = [logits(20, p4=5), logits(20, p7=6), logits(20, p5=1)]
    first, second = answers(starts, ends, *windows)
    assert [one.text for one in first[:3]] == ["j", "b c", "e f g h i j"]
    assert (first[0].start_logit, first[0].end_logit) == (5.5, 6)
    scores = np.array([one.start_logit + one.end_logit for one in first])
    np.testing.assert_allclose([one.probability for one in first], np.exp(scores) / np.exp(scores).sum())
    assert len(first) == 20 and second[0].text == "c d"


def test_invalid_spans_are_skipped():
    window = Window(0, 3, SPANS[:5])  # positions 3 to 7
    high = {"p0": 9.0, "p2": 9.0, "p8": 9.0, "p15": 9.0}  # [CLS], question, [SEP] and padding
    starts, ends = logits(20, p6=5, p3=1, **high), logits(20, p4=5, p7=2, **high)
    assert answers([starts], [ends], window)[0][0].text == "d e"  # 6 to 4 would score 10
    found = {one.text for one in answers([starts], [ends], window, longest=2)[0]}
    assert found == {"a", "b", "c", "d", "e", "a b", "b c", "c d", "d e"}
    assert [one.text for one in answers([starts], [ends], window, best=1)[0]] == []  # best start is after best end
    assert answers([starts * np.nan], [ends], window) == [[]]
    twice = Window(0, 3, np.array([[0, 1], [0, 1], [2, 3]]))  # two tokens that stand for one character
    ((best, *_),) = answers([logits(20, p4=5)], [logits(20, p3=5)], twice)
    assert best.text == "a" and best.start_logit + best.end_logit == 5


def test_of_equal_texts_the_best_one_is_kept():
    windows = [Window(0, 2, SPANS[:6]), Window(0, 2, SPANS[:6])]
    ((best, *others),) = answers([logits(12, p3=1), logits(12, p3=4)], [logits(12, p3=1), logits(12, p3=4)], *windows)
    assert (best.text, best.start_logit, best.end_logit) == ("b", 4, 4)
    assert "b" not in {one.text for one in others}


def test_padding_and_ties_do_not_matter():
    window = Window(0, 2, SPANS)
    found = [answers([logits(width)], [logits(width)], window, best=3)[0] for width in (12, 30)]
    assert found[0] == found[1]
    assert [one.text for one in found[0]] == ["a", "a b", "a b c"]
    twice = answers([logits(12)] * 2, [logits(12)] * 2, Window(0, 2, SPANS[5:]), Window(0, 2, SPANS), best=2)[0]
    assert [one.text for one in twice] == ["f", "f g"]
    assert answers([logits(12, p5=1)], [logits(12, p4=1)], window)[0][0].text == "a b c"  # before an equal "d"
    with pytest.raises(ValueError, match="1 outputs do not fit the 2 windows"):
        answers([logits(12)], [logits(12)], window, window)


@pytest.mark.parametrize(
    ("answer", "reference", "exact", "f1"),
    [
        ("The Denver Broncos!", "denver  broncos", 1, 1),
        ("Denver", "the Denver Broncos", 0, 2 * 1 * 0.5 / 1.5),
        ("a cat and a cat", "cat", 0, 2 * (1 / 3) * 1 / (4 / 3)),  # words count as often as both have them
        ("cat cat", "cat cat dog", 0, 4 / 5),
        ("U.S.", "us", 1, 1),
        ("x\u2013the\u2013y", "x\u2013 \u2013y", 1, 1),  # an article leaves a gap
        ("theory", "ory", 0, 0),  # articles are whole words
        ("b-a-c", "bac", 1, 1),  # punctuation goes first and leaves no gap
        ("\u201cfox\u201d", "fox", 0, 0),  # only ASCII punctuation goes
        ("the", "a", 1, 0),  # nothing is left: v1.1 counts an exact match and no words in common
        ("", "cat", 0, 0),
    ],
)
def test_metrics_by_hand(answer: str, reference: str, exact: float, f1: float):
    assert metrics.exact_match(answer, reference) == exact
    assert metrics.token_f1(answer, reference) == pytest.approx(f1)


def test_metrics_take_the_best_reference_and_the_mean_over_questions():
    found = metrics.squad(["in 1990", "cat", ""], [["1990", "in 1991 or 1990"], ["dog"], ["x"]])
    assert found == {"exact_match": 0.0, "f1": pytest.approx((2 * 0.5 / 1.5) / 3)}
    assert metrics.squad(["cat", "dog"], [["a", "the cat"], ["cat"]]) == {"exact_match": 0.5, "f1": 0.5}
    with pytest.raises(ValueError, match="1 answers cannot be scored against 2 questions"):
        metrics.squad(["x"], [["x"], ["y"]])


def test_metrics_equal_those_of_the_evaluate_package():
    try:
        official = evaluate.load("squad")
    except (OSError, ConnectionError) as error:
        pytest.skip(f"evaluate's squad metric is neither here nor to be reached: {type(error).__name__}")
    texts, references = ["The U.S.", "a cat", "", "x y"], [["us"], ["dog", "cats cat"], ["no"], ["y z", "x"]]
    expected = official.compute(
        predictions=[{"id": str(i), "prediction_text": text} for i, text in enumerate(texts)],
        references=[
            {"id": str(i), "answers": {"text": found, "answer_start": [0] * len(found)}}
            for i, found in enumerate(references)
        ],
    )
    assert {k: 100 * v for k, v in metrics.squad(texts, references).items()} == pytest.approx(expected)
