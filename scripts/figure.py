"""The same as `glue-sparse figure`, from a checkout."""

import sys

from glue_sparse.cli.figure import main

if __name__ == "__main__":
    sys.exit(main())
