"""The published budget rule, with the numbers worked out for the published model."""

import pytest

from glue_sparse.budgets import total


def test_bert_large_as_published():
    # BERT-large with 2 labels: 333,581,314 entries, head 2,050; 0.5 % in all is 1,667,906
    assert total(0.005, 333_581_314, 2_050) == 1_665_856


def test_head_is_charged_to_the_budget():
    assert total(0.1, 1000, 30) == 70
    assert total(1.0, 1000, 30) == 970


@pytest.mark.parametrize("density", [0, -0.1, 1.5, float("nan")])
def test_density_out_of_range(density: float):
    with pytest.raises(ValueError, match=r"density must be in \(0, 1\]"):
        total(density, 1000, 1)


def test_head_larger_than_the_budget_prints_both_numbers_and_a_remedy():
    # DistilBERT at 0.5 %: the head alone is larger than the whole budget
    with pytest.raises(ValueError, match=r"334,775 of 66,955,010 .* head alone has 592,130.*density above 0.00884"):
        total(0.005, 66_955_010, 592_130)
