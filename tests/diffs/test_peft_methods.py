"""Every method of peft: merged into a diff, or refused by its name, as docs/peft.md says."""

import copy
from pathlib import Path
from typing import Any

import peft
import pytest
from peft import PEFT_TYPE_TO_CONFIG_MAPPING, PeftType
from test_peft_in import DENSE, LITTLE, QUERY, SPARSE, UNTIED, WORDS, check_same

import networks
from adapters import trained
from documented import ROOT
from glue_sparse import from_peft
from rare import rarely

EVERY: dict[str, dict[str, Any]] = {
    "adamss": {}, "beft": {}, "c3a": {"block_size": 8}, "deft": {}, "delora": {}, "frod": {}, "glora": {},
    "gralora": {}, "hra": {}, "lokr": {}, "miss": {"r": 4}, "oft": {"oft_block_size": 8, "r": 0}, "osf": {},
    "peanut": {}, "psoft": {}, "pvera": {}, "randlora": {}, "road": {"group_size": 8}, "tinylora": {}, "unilora": {},
    "vblora": {"vector_length": 8, "num_vectors": 16}, "waveft": {"n_frequency": 20},
}  # fmt: skip
"""Methods of docs/peft.md that are not above -> what they need on a small network."""


@pytest.mark.slow
@pytest.mark.parametrize("method", EVERY)
def test_every_method_that_merges_is_merged(method: str, tmp_path: Path):
    base = networks.bert(hidden_size=32)
    model = trained(base, PEFT_TYPE_TO_CONFIG_MAPPING[PeftType[method.upper()]](**QUERY, **EVERY[method]), tmp_path)
    check_same(from_peft(tmp_path, base, density=1.0), base, model, 2e-6, merges=False)


def test_the_page_names_every_method_that_is_tried():
    page = (ROOT / "docs/peft.md").read_text().lower()
    tried = {one[1].peft_type.value.lower() for one in (*SPARSE.values(), *DENSE.values(), *LITTLE.values())}
    assert {name for name in {*tried, *EVERY, *MERGELESS} if f"`{name}`" not in page} == set()


MERGELESS: dict[str, dict[str, Any]] = {
    "poly": {"r": 2, **WORDS}, "shadow": {"task_type": "CAUSAL_LM"}, "lily": WORDS,
    "adaption_prompt": {"task_type": "CAUSAL_LM", "adapter_len": 3, "adapter_layers": 1},
    "cpt": {"task_type": "CAUSAL_LM", "cpt_token_ids": [1, 2], "cpt_mask": [1, 1], "cpt_tokens_type_mask": [1, 1]},
    "prefix_tuning": {"task_type": "CAUSAL_LM", "num_virtual_tokens": 3},
    "p_tuning": {"task_type": "CAUSAL_LM", "num_virtual_tokens": 3},
    "prompt_tuning": {"task_type": "CAUSAL_LM", "num_virtual_tokens": 3},
    "lora": {"alora_invocation_tokens": [1, 2], "r": 2, **WORDS},
}  # fmt: skip
"""Methods that no change of the weights can stand for."""


@pytest.mark.parametrize("method", rarely(MERGELESS, ["lily", "lora"]))
def test_methods_that_do_not_merge_are_refused_by_name(method: str, tmp_path: Path):
    base = UNTIED()
    config = PEFT_TYPE_TO_CONFIG_MAPPING[PeftType[method.upper()]](**MERGELESS[method])
    peft.get_peft_model(copy.deepcopy(base), config).save_pretrained(str(tmp_path))
    with pytest.raises(ValueError, match=f"{method}.* (cannot be merged|changes no weight)"):
        from_peft(tmp_path, base, density=1.0)
