"""What was asked of the speed of masked images, and what is found: `python -m benchmarks.goals`, about twelve minutes on two idle cores.

It races the contenders that a goal names, in turn, and writes their rows into the tables of `benchmarks.methods` and `benchmarks.metrics`;
the other rows stay. `python -m benchmarks.whole` measures the last goal. The table of the goals is made from these files.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from benchmarks import methods, metrics, whole
from benchmarks.race import HOME, write
from cam_core.pretrained import LITE

FOLDER = HOME / "results/benchmarks"
OURS, PRODUCT = "score_cam[softmax]", "floor: its multiply-adds as one matrix product"
FLOORS = ("floor: ", metrics.PRODUCTS)
ALONE = ", PyTorch alone"  # rows of `make bench` that no goal names


@dataclass(frozen=True)
class Goal:
    """``ours`` beside the fastest contender of the group that begins with one of ``beside``; asked is a ratio of times."""

    what: str
    file: str
    group: str
    ours: str
    beside: tuple[str, ...]
    asked: str

    def found(self, folder: Path = FOLDER) -> dict[str, object]:
        """The row of the table; without ratios where the file or its rows are not there."""
        row: dict[str, object] = {"group": "goals", "contender": self.what, "asked": self.asked}
        path = folder / f"{self.file}.csv"
        rows = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=["group", "contender"])
        rows = rows[rows.group == self.group].set_index("contender")
        peers = rows[rows.index.str.startswith(self.beside)] if len(rows) else rows
        if not len(peers) or self.ours not in rows.index:
            return row
        ours, peer = rows.loc[self.ours], peers.loc[peers.seconds.idxmin()]
        floors = rows[rows.index.str.startswith(FLOORS)]
        if self.asked.startswith("at most"):  # the time that ours takes, over that of the product
            return row | {"found": ours.seconds / peer.seconds, "cpu": ours.cpu_seconds / peer.cpu_seconds, "beside": peer.name}
        most = peer.seconds / floors.seconds.min() if len(floors) else None
        return row | {"found": peer.seconds / ours.seconds, "cpu": peer.cpu_seconds / ours.cpu_seconds, "beside": peer.name, "most": most}


NETWORKS = {"resnet18": "ResNet-18", LITE: "EfficientNet-Lite0"}  # where the processor has much to multiply, and where little
LIBRARIES = ("grad-cam: ", "torchcam: ")
GOALS = (
    Goal("Score-CAM, ResNet-18", "methods", methods.SCORE_CAM["resnet18"], OURS, LIBRARIES, "at least 1.9"),
    Goal("Score-CAM, EfficientNet-Lite0", "methods", methods.SCORE_CAM[LITE], OURS, LIBRARIES, "at least 1.8"),
    Goal("Score-CAM, MobileNetV2", "methods", methods.SCORE_CAM["mobilenet_v2"], OURS, LIBRARIES, "at least 1.8"),
    *(
        Goal(f"insertion and deletion, {name}", "metrics", metrics.CURVE_RACE[key], "cam_core", ("torchcam: ",), "at least 2")
        for key, name in NETWORKS.items()
    ),
    *(
        Goal(f"RISE, {name}", "methods", methods.RISE[key], "rise", ("torchray: ", "rise, as one"), "at least 2")
        for key, name in NETWORKS.items()
    ),
    Goal("masked passes of ResNet-18 over their multiply-adds", "methods", methods.SCORE_CAM["resnet18"], OURS, (PRODUCT,), "at most 1.3"),
    Goal("runs of the subset profile, in small", "whole", whole.TOGETHER, whole.ENGINE, (whole.BEFORE,), "at least 1.5"),
)


def table(folder: Path = FOLDER) -> pd.DataFrame:
    """A row for each goal."""
    return pd.DataFrame([goal.found(folder) for goal in GOALS]).reindex(
        columns=["group", "contender", "asked", "found", "cpu", "beside", "most"]
    )


def main() -> None:
    """Race what the goals name, write, say what is reached."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="the first has the slow first calls: two or more")
    parser.add_argument("--no-race", action="store_true", help="only make the table of what was measured before")
    given = parser.parse_args()
    if given.rounds < 2:
        parser.error("one round is the slow first call alone: take two or more")
    if not given.no_race:
        chosen = {
            name: ({c: how for c, how in contenders.items() if ALONE not in c}, long)
            for name, (contenders, long) in methods.wanted(*methods.SCORE_CAM.values(), *methods.RISE.values(), methods.BFLOAT16).items()
        }
        frames, _ = methods.measured(chosen, 7, given.rounds, count=1, side=112)
        methods.keep(frames, chosen)
        named = argparse.Namespace(rounds=given.rounds, contenders=["cam_core", "torchcam: DeletionInsertionMetric", metrics.PRODUCTS])
        write(metrics.curve_race(named), "metrics", replace="contender")
    write([table()], "goals")
    print(table().to_string())


if __name__ == "__main__":
    main()
