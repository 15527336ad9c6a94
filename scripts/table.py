"""The same as `glue-sparse table`, from a checkout."""

import sys

from glue_sparse.cli.table import main

if __name__ == "__main__":
    sys.exit(main())
