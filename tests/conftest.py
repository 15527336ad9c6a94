"""What all tests share: no network, one thread, and a BERT small enough to train in a moment."""

import atexit
import gc
import os
import shutil
import signal
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"  # read when the libraries are imported

from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizer

from glue_sparse.models.language_models import LanguageModel
from languages import language_model

torch.set_num_threads(1)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell leaves it to `bash run_tests.sh &`
    signal.signal(signal.SIGINT, signal.default_int_handler)

MEMORY = "/dev/shm"
if "TMPDIR" not in os.environ and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > 2 << 30:
    os.environ["TMPDIR"] = tempfile.tempdir = MEMORY  # some disks take milliseconds to delete one of thousands of files

if "XDG_CACHE_HOME" not in os.environ:  # what tests prepare is not to be kept where the user's runs look for theirs
    os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="cache")
    atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = """
    the a an of to in is was not and or good bad great poor film movie book story plot cat dog bird fish man
    woman child city river house sleeps runs eats sees likes hates reads writes who what where when why how
    yes no very too one two three ##s ##ed ##ing . , ?
"""


def pytest_collection_finish() -> None:
    """Every training ends with a garbage collection, which would walk through all that the libraries hold."""
    gc.collect()
    gc.freeze()
    atexit.register(gc.unfreeze)


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a 2-layer BERT (safetensors) and its tokenizer, as AutoModel and AutoTokenizer read them."""
    folder = str(tmp_path_factory.mktemp("tiny_bert"))
    tokenizer = BertTokenizer(vocab={word: index for index, word in enumerate((*SPECIAL, *WORDS.split()))})
    tokenizer.model_max_length = 128
    tokenizer.save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=128,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(params=["causal", "masked"])
def language(request: pytest.FixtureRequest, tiny_bert: str) -> LanguageModel:
    """A small language model of each kind."""
    return language_model(request.param, tiny_bert)


@pytest.fixture
def causal(tiny_bert: str) -> LanguageModel:
    """A small GPT-2."""
    return language_model("causal", tiny_bert)


@pytest.fixture
def rte(tmp_path: Path) -> Path:
    """A GLUE folder with a small RTE."""
    folder = tmp_path / "glue" / "RTE"
    folder.mkdir(parents=True)
    label = ("entailment", "not_entailment")
    for split, count in (("train", 40), ("dev", 12)):
        lines = [f"{i}\tthe cat sleeps . {'no' * (i % 2)}\ta dog runs\t{label[i % 2]}" for i in range(count)]
        (folder / f"{split}.tsv").write_text("\n".join(["index\tsentence1\tsentence2\tlabel", *lines]) + "\n")
    (folder / "test.tsv").write_text("index\tsentence1\tsentence2\n0\tthe cat\ta dog\n1\tthe bird\ta fish\n")
    return folder.parent
