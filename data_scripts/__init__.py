"""Making and checking data: `draw` (three drawn datasets in the official layouts), `check` (a data root, drawn or real)."""
