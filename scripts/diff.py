"""The same as `glue-sparse diff`, from a checkout."""

import sys

from glue_sparse.cli.diff import main

if __name__ == "__main__":
    sys.exit(main())
