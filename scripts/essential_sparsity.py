"""The same as `glue-sparse drop-point`, from a checkout."""

import sys

from glue_sparse.cli.essential_sparsity import main

if __name__ == "__main__":
    sys.exit(main())
