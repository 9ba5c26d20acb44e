"""From notebooks to results: runs, batches, trainings by name, published numbers; `python -m reproduce` is its command line."""
