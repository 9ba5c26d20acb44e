"""From nothing, or from what lies on a disk, to a checked data set below the data root: ``python -m data_scripts get NAME``."""
