"""Data, head and metric of each problem. May import models, arguments, core and writing."""
