"""The same as `glue-sparse weights`, from a checkout."""

import sys

from glue_sparse.cli.weights import main

if __name__ == "__main__":
    sys.exit(main())
