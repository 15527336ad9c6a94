"""What sub-commands do once their line is read, in modules of the same names, which may load torch."""
