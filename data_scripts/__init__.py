"""Data: `draw` (three drawn datasets in the official layouts), `get` (real ones), `subsets` (fixed lists), `check` (a data root)."""
