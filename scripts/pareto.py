"""The same as `glue-sparse pareto`, from a checkout."""

import sys

from glue_sparse.cli.pareto import main

if __name__ == "__main__":
    sys.exit(main())
