"""Train, evaluate and save one model: for example

    python scripts/train.py --task rte --model minilm --data_dir path/to/glue --method fish --density 0.005

On several GPUs: `accelerate launch scripts/train.py ...`; on CPU `torchrun --nproc_per_node 2 scripts/train.py ...`.
"""

from pathlib import Path

from glue_sparse.experiments.run import main

if __name__ == "__main__":
    main(__doc__ or "", Path(__file__).parents[1] / "configs" / "defaults.yaml")
