"""The same as `glue-sparse diff prune`, from a checkout."""

import sys

from glue_sparse.cli.prune_diff import main

if __name__ == "__main__":
    sys.exit(main())
