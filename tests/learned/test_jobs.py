"""The names of profiles and notebooks, and that a job trains what its notebook then loads."""

import pytest

from cam_core.learned import jobs
from data_scripts.draw import draw


def test_what_a_name_stands_for(monkeypatch, tmp_path):
    assert jobs.epochs("e50-2") == (50, 2)
    assert jobs.epochs(None) == ()
    assert jobs.find_root("cub", "somewhere").name == "somewhere"
    monkeypatch.delenv("CAM_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="cub needs its images: set CAM_DATA"):
        jobs.find_root("cub")
    monkeypatch.setenv("CAM_DATA", str(tmp_path))
    assert jobs.find_root("cub") == tmp_path
    with pytest.raises(ValueError, match="unknown dataset 'cifar': expected one of drawn_imagenet"):
        jobs.images("cifar", tmp_path)


def test_a_job_trains_what_the_notebook_loads(monkeypatch, tmp_path):
    root = draw(tmp_path / "drawn", small=True, progress=False)
    monkeypatch.setattr(jobs, "STORE", tmp_path / "models")
    folder = jobs.train("l_cam", "drawn_imagenet", "resnet8", "e1-1", 0, root, "test")
    assert folder.parent == tmp_path / "models"
    kept = {path.name for path in folder.parent.iterdir()}
    assert len(kept) == 3  # the network, Fm and Img
    classifier, _ = jobs.network("drawn_imagenet", "resnet8", root, store=jobs.STORE)
    learned = jobs.l_cam("drawn_imagenet", classifier, root, epochs=(1, 1), store=jobs.STORE)
    assert {path.name for path in folder.parent.iterdir()} == kept
    assert folder.name == learned["l_cam_img"][1]["digest"][:20]
    assert learned["l_cam_fm"][1]["deviations"]
    with pytest.raises(ValueError, match="trains nothing"):
        _nothing(monkeypatch, root)


def _nothing(monkeypatch, root):
    monkeypatch.setattr(jobs, "network", lambda *_a, **_k: (None, {"deviations": []}))
    return jobs.train("increment_cam", "imagenet", "resnet50", None, 0, root, "test")
