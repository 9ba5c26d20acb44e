"""Our speed beside the peers', measured in one run; each module writes one csv to results/benchmarks/."""
