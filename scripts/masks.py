"""The same as `glue-sparse masks`, from a checkout."""

import sys

from glue_sparse.cli.masks import main

if __name__ == "__main__":
    sys.exit(main())
