"""What the README says that a batch costs is what was measured."""

import pandas as pd

from benchmarks import batch


def test_the_readme_tells_what_was_measured():
    file = batch.HOME / "results/benchmarks/batch.csv"
    table = pd.read_csv(file) if file.exists() else pd.DataFrame(columns=["contender", "found"])
    assert batch.BLOCK.findall(batch.README.read_text()) == [batch.told(table)]
    few = pd.DataFrame({"contender": [batch.IDLE, batch.START, batch.START + batch.CPU], "found": [2.34, 1.06, 8]})
    said = "A batch with nothing to do takes 2.3 s, the start of a notebook 1.1 s beyond `import torch` (`python -m"
    assert batch.told(few).split("\n")[1].startswith(said)
