"""ARCC: coherency, complexity and ROAD in one number (Domeniconi et al., "How to Evaluate and Refine your CAM", ICPR 2026)."""

import numpy as np
import torch
from torch import Tensor

from cam_core.metrics.adcc import Reexplained, harmonic
from cam_core.metrics.agreement import Explain
from cam_core.metrics.road import RoadCombined
from cam_core.metrics.statistics import Array
from cam_core.probe import Probe


class ARCC(Reexplained):
    """Harmonic mean of coherency, 1 - complexity and ROAD, in percent, 0 to 100 (higher is better; 0 if any of them is 0).

    ADCC with ROAD in place of Average Drop: the target's mean probability after the least salient pixels went, minus that after the most
    salient did, over 20, 40, 60 and 80 % of the pixels, cut off at 0. Read in pytorch-grad-cam, to which the authors gave it. Here exactly
    that share of the pixels goes, a constant map has coherency 0, and nothing is added to a part that is 0.
    """

    name = "arcc"
    higher_is_better = True
    road = (0.2, 0.4, 0.6, 0.8)

    @property
    def shares(self) -> str:
        """No other metric removes these shares."""
        return "arcc"

    def _measure(self, maps: Tensor, probe: Probe, explain: Explain) -> Tensor:
        after = [RoadCombined(share).measure(maps, probe)[:, 2:] for share in self.road]
        return torch.cat([super()._measure(maps, probe, explain).cpu(), torch.stack(after, 1).mean(1)], 1)

    def each(self, rows: Array) -> Array:
        """3 / (1/coherency + 1/(1 - complexity) + 1/ROAD)."""
        coherency, complexity, morf, lerf = rows[:, 2:].T
        return harmonic(np.stack([coherency, 1 - complexity, (lerf - morf).clip(0)], 1))
