"""Three tasks of lm-evaluation-harness with a dozen questions each, and folders of a decoder and its diff."""

import json
from pathlib import Path
from typing import Any

from decoders import causal, masks, shift, tokenizer
from glue_sparse import DiffInfo, SparseDiff, attach

_COMMON = """
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}, cache_dir: {cache}}}
test_split: test
fewshot_split: test
metadata: {{version: 3.0}}
"""
_TASKS = {
    "tiny_choice": """
output_type: multiple_choice
doc_to_text: "{{q}}"
doc_to_choice: choices
doc_to_target: gold
metric_list: [{metric: acc}, {metric: acc_norm}, {metric: brier_score}]
""",
    "tiny_text": """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list: [{metric: word_perplexity}, {metric: bits_per_byte}]
""",
    "tiny_answer": """
output_type: generate_until
doc_to_text: "{{q}}"
doc_to_target: answer
generation_kwargs: {until: ["zzz"], max_gen_toks: 8, do_sample: false}
metric_list: [{metric: exact_match}, {metric: chrf, aggregation: chrf}]
""",
}
NAMES = [*_TASKS]


def write_tasks(folder: Path) -> Path:
    """The folder, for `include_path`."""
    folder.mkdir()
    rows = [
        {"q": f"the {i} cat sat", "choices": [" on the mat.", " a", f" {i}"], "gold": i % 3, "answer": "the mat. cat",
         "text": f"the cat sat on the mat. a dog {i}"} for i in range(12)
    ]  # fmt: skip
    (folder / "rows.json").write_text("\n".join(map(json.dumps, rows)))
    for name, text in _TASKS.items():
        common = _COMMON.format(data=folder / "rows.json", cache=folder / "cache")
        (folder / f"{name}.yaml").write_text(f"task: {name}\n{common}{text}")
    return folder


def write_models(folder: Path, **changes: Any) -> None:
    """`base` with a tokenizer, and `diff`, without one, as a trainer leaves it."""
    model = causal(seed=2, **changes)
    model.save_pretrained(folder / "base")
    tokenizer().save_pretrained(folder / "base")
    model = type(model).from_pretrained(folder / "base")
    attach(model, masks(model, 0.3))
    shift(model, 0.2)
    info = DiffInfo(str(folder / "base"), type(model).__name__)
    SparseDiff.from_model(model, info).save_pretrained(folder / "diff")
