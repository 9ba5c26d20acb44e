"""ROAD (Rong et al., ICML 2022): the network's answer when pixels are removed in the map's order and imputed from the others."""

from collections.abc import Hashable
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import splu
from torch import Tensor

from cam_core.methods.control import image_seeds
from cam_core.metrics.metric import Metric, Rate
from cam_core.metrics.removal import ranks
from cam_core.metrics.statistics import Array
from cam_core.probe import Probe

STENCIL = {(0, 1): 1 / 6, (1, 0): 1 / 6, (1, 1): 1 / 12, (1, -1): 1 / 12}  # half of the eight neighbours; the others follow by symmetry


@lru_cache(4)
def _laplacian(height: int, width: int) -> sparse.csr_array:
    """Weighted neighbours of every pixel, [H·W, H·W]: their sum on the diagonal, minus each weight beside it."""
    index = np.arange(height * width).reshape(height, width)
    pairs = []
    for (down, right), weight in STENCIL.items():
        here = index[: height - down, max(0, -right) : width - max(0, right)].ravel()
        pairs.append((here, here + down * width + right, np.full(len(here), weight)))
    rows, columns, weights = (np.concatenate(part) for part in zip(*pairs, strict=True))
    one_way = sparse.csr_array((weights, (rows, columns)), shape=(index.size, index.size))
    both = one_way + one_way.T
    return sparse.csr_array(sparse.diags_array(both.sum(1)) - both)


def impute(image: NDArray[np.floating], missing: NDArray[np.bool_]) -> Array:
    """Image [C,H,W] whose ``missing`` pixels [H,W] are the weighted mean of their neighbours, all at once (ROAD), float64.

    Direct neighbours weigh 1/6, diagonal ones 1/12, at the border relative to those that exist. ValueError if no pixel is left.
    """
    if missing.all():
        raise ValueError("no pixel is left to impute the others from: remove fewer")
    gone, values = missing.ravel(), image.reshape(len(image), -1).T.astype(np.float64)
    if not gone.any():
        return image.astype(np.float64)
    equations = _laplacian(*missing.shape)[gone]
    # Written with the sums on the diagonal the system is symmetric and needs no pivoting.
    solver = splu(sparse.csc_array(equations[:, gone]), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    values[gone] = solver.solve(-(equations[:, ~gone] @ values[~gone]))
    return np.ascontiguousarray(values.T).reshape(image.shape)


class _Imputed(Metric):
    """The measure of ROAD: a ``share`` of the pixels is removed and imputed from the others, without retraining (Rong et al., ICML 2022).

    Exactly int(share·H·W) pixels are removed, the most salient (MoRF) or the least (LeRF, where the authors count the fraction that stays);
    ties are shuffled by the image's content. Imputed in [0, 1], where noise N(0, ``noise``²) is added, equal for all methods. Maps [B,H,W].
    Rows [B,4]: whether the target is the prediction after MoRF and LeRF, and the target's probability after both.
    """

    protocol = "road"

    def __init__(self, share: float = 0.5, noise: float = 0.01, seed: int = 0) -> None:
        super().__init__()
        if not 0 < share < 1:
            raise ValueError(f"{self.name}: share must lie between 0 and 1, got {share}: 0.1 removes a tenth of the pixels")
        self.share, self.noise, self.seed = share, noise, seed
        self.setting = f"{100 * share:g}%" + (f" noise {noise:g}" if noise != 0.01 else "") + (f" seed {seed}" if seed else "")

    @property
    def shares(self) -> Hashable:
        """Both orders and their difference share one imputation."""
        return "imputed", self.share, self.noise, self.seed

    def _measure(self, maps: Tensor, probe: Probe) -> Tensor:
        self._refuse_size(maps, probe)
        rank = ranks(maps, image_seeds(probe, self.seed))
        n = rank[0].numel()
        count = int(self.share * n)
        removed = torch.stack([rank < count, rank >= n - count], 1).cpu().numpy()

        def drawn() -> list[Array]:
            return [np.random.default_rng(seed).normal(0, self.noise, probe.images.shape[1:]) for seed in image_seeds(probe, self.seed)]

        noise = probe.once(("road noise", self.noise, self.seed), drawn)
        images = probe.images.cpu().numpy()

        def imputed(image: Tensor, order: Tensor) -> Tensor:
            made = [impute(images[i], removed[i, o]) + removed[i, o] * noise[i] for i, o in zip(image, order, strict=True)]
            return torch.from_numpy(np.stack(made)).to(probe.images)

        logits = probe.score_made(imputed, torch.ones(len(maps), 2, dtype=torch.bool)).double()
        return torch.cat([(logits.argmax(-1) == probe.targets[:, None]).double(), probe.probability(logits)], 1)


class RoadMorf(Rate, _Imputed):
    """Accuracy in percent after the most salient pixels were removed and imputed (lower is better)."""

    name = "road_morf"
    higher_is_better = False


class RoadLerf(Rate, _Imputed):
    """Accuracy in percent after the least salient pixels were removed and imputed (higher is better)."""

    name = "road_lerf"
    higher_is_better = True
    column = 1


class RoadCombined(_Imputed):
    """Half of the target's mean probability after LeRF minus that after MoRF, -50 to 50 % (as pytorch-grad-cam; higher is better)."""

    name = "road_combined"
    unit = 50
    higher_is_better = True

    def each(self, rows: Array) -> Array:
        """The target's probability after LeRF minus that after MoRF."""
        return rows[:, 3] - rows[:, 2]
