"""The same as `glue-sparse benchmark`, from a checkout."""

import sys

from glue_sparse.cli.benchmark import main

if __name__ == "__main__":
    sys.exit(main())
