"""How much do two forms of one method differ in their maps?

    CAM_DATA=... CAM_WEIGHTS=... python -m studies.forms resnet18
    CAM_DATA=... CAM_WEIGHTS=... python -m studies.forms squeezenet1_1 --only is_cam

For each pair: Pearson's correlation of the two native maps of an image (mean with a bootstrap interval, and worst), and the share of the
finished map inside the boxes. The second form is one of ours under its own name, or what another package computes under the same name
(`studies.peers`); ``otherwise`` says the difference. IS-CAM needs ten passes per channel for each of its two forms: use a small network and
few images. Results: results/studies/forms-<backbone>.csv.
"""

import argparse
from collections.abc import Sequence

import pandas as pd
import torch
from tqdm import tqdm

from cam_core import METHODS, Probe, load_classifier, maps
from cam_core.data import inclusive_boxes
from cam_core.metrics.localization import inside
from cam_core.metrics.statistics import bootstrap
from reproduce import sources
from reproduce.files import write_table
from studies.peers import OTHERWISE, changed, otherwise

# (form, other form, images): the last ones take many passes
PAIRS = (
    ("grad_cam_pp", "grad_cam_pp[authors]", 40),
    ("grad_cam_pp", "grad_cam_pp[l_cam]", 40),
    ("eigen_cam", "eigen_cam[centred]", 40),
    ("layer_cam", "layer_cam[fused]", 40),
    ("group_cam", "group_cam[head]", 40),
    ("smooth_grad", "smooth_grad[calm]", 8),
    ("var_grad", "var_grad[calm]", 8),
    ("integrated_gradients", "integrated_gradients[calm]", 8),
    ("score_cam", "score_cam[softmax]", 6),
    ("score_cam", "score_cam[l_cam]", 6),
    ("is_cam", "is_cam[cumulative]", 4),
    *((changed(peer), peer, 6 if "ScoreCAM" in peer else 40) for peer in OTHERWISE),
)


def compare(backbone: str, pairs: Sequence[tuple[str, str, int]] = PAIRS) -> pd.DataFrame:
    """One row per pair."""
    classifier = load_classifier(backbone)
    frozen, data = classifier.frozen(), sources.images("imagenet", sources.find_root("imagenet"), limit=max(n for *_, n in pairs))("squash")
    rows = []
    for form, other, count in tqdm(pairs, backbone, unit="pair"):
        correlations, energies = [], []
        for example in (data[i] for i in range(count)):
            probe = Probe(frozen, example.image[None])
            pair = [METHODS[form](probe), (METHODS.get(other) or OTHERWISE[other])(probe)]
            size = max(heat.shape[-2:] for heat in pair)
            pair = [maps.upsample(heat, size) for heat in pair]
            correlations.append(float(maps.correlation(*pair)))
            boxes = inside(inclusive_boxes(example.boxes), (224, 224)) if example.boxes is not None else torch.zeros(224, 224)
            finished = [maps.upsample(maps.min_max(heat), (224, 224))[0] for heat in pair]
            energies.append([float((heat * boxes).sum() / heat.sum().clamp_min(1e-12)) for heat in finished])
        values = torch.tensor(correlations, dtype=torch.float64)
        values = values[values.isfinite()]
        low, high = bootstrap(values.numpy())
        share = 100 * torch.tensor(energies).mean(0)
        rows.append(
            {
                "form": form,
                "other": other,
                "correlation": float(values.mean()),
                "ci_low": low,
                "ci_high": high,
                "worst": float(values.min()),
                "energy": float(share[0]),
                "energy_other": float(share[1]),
                "n": len(values),
                "otherwise": otherwise(other) if other in OTHERWISE else "",
            }
        )
    return pd.DataFrame(rows).assign(backbone=backbone, weights=classifier.weights)


def main() -> None:
    """Run it for one network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backbone")
    parser.add_argument("--only", default="", help="compare only pairs one of whose names begins so; what was measured of the others stays")
    given = parser.parse_args()
    frame = compare(given.backbone, [pair for pair in PAIRS if any(name.startswith(given.only) for name in pair[:2])])
    path = sources.HOME / f"results/studies/forms-{given.backbone}.csv"
    if given.only and path.exists():
        before = pd.read_csv(path, float_precision="round_trip")
        again = before.set_index(["form", "other"]).index.isin(frame.set_index(["form", "other"]).index)
        frame = pd.concat([before[~again], frame], ignore_index=True)
    write_table(path, frame)
    print(frame.round(3).to_string(index=False))


if __name__ == "__main__":
    main()
