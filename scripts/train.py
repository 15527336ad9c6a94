"""The same as `glue-sparse train`, from a checkout."""

import sys

from glue_sparse.cli.train import main

if __name__ == "__main__":
    sys.exit(main())
