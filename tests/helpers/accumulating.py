"""One rank of test_accumulation: steps of some models and one window beside plain ones. Run by torchrun."""

import json
import sys
from pathlib import Path

from glue_sparse.benchmarks import accumulation
from glue_sparse.core import ranks

if __name__ == "__main__":
    found = accumulation.measure(2, ("ours",), [accumulation.SHAPES[int(sys.argv[2])]], sys.argv[3:])
    (Path(sys.argv[1]) / f"rank{0 if ranks.is_first() else 1}.json").write_text(json.dumps(found))
