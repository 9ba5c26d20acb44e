"""Records, provenance, atomic writes and publishing, on tables small enough to check by eye."""

import json
import subprocess

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from cam_core import files
from reproduce import provenance, results
from reproduce.files import write_parts, write_table


def record(**changes):
    row = {
        "paper": "l_cam",
        "dataset": "drawn_imagenet",
        "split": "val",
        "backbone": "resnet8",
        "weights": "",
        "recipe": "",
        "protocol": "l_cam",
        "method": "grad_cam",
        "metric": "average_drop",
        "setting": "50%",
        "value": 12.5,
        "ci_low": 10.0,
        "ci_high": 15.0,
        "n": 64,
        "seed": 0,
    }
    return {**row, **changes}


def difference(**changes):
    return {**record(value=-1.5, ci_low=-2.0, ci_high=-1.0), "than": "cam", "p": 0.01, "p_holm": 0.03, "same_as": "", **changes}


def make_run(folder, *, dirty=False, **changes):
    write_table(folder / "metrics.csv", pd.DataFrame([record(**changes)]))
    files.write_json(folder / "provenance.json", {"dirty": dirty, "commit": "abc"})
    return folder


def test_records_come_back_to_the_bit(tmp_path):
    values = [0.1 + 0.2, 1 / 3, 1e-308, 100.0]  # 0.1 + 0.2 is 0.30000000000000004
    rows = [record(value=value, setting=f"{i}", ci_low=None, ci_high=None) for i, value in enumerate(values)]
    results.save(tmp_path, rows)
    read = results.read_records(tmp_path / "metrics.csv")
    assert read.value.tolist() == values
    assert read.setting.tolist() == ["0", "1", "2", "3"]  # text, not numbers
    assert read.weights.tolist() == [""] * 4
    assert read.ci_low.isna().all()


def test_the_earlier_name_of_weights_trained_here_is_read_as_the_present_one(tmp_path):
    named = ["random", "random, plain network", "resnet50", "randomized"]
    results.save(tmp_path, [record(weights=weights, setting=f"{i}") for i, weights in enumerate(named)])
    read = results.read_records(tmp_path / "metrics.csv")
    assert read.weights.tolist() == ["trained here", "trained here, plain network", "resnet50", "randomized"]


def test_text_that_pandas_would_take_for_missing_stays_text(tmp_path):
    results.save(tmp_path, [record(setting="NA", recipe="null")])
    read = results.read_records(tmp_path / "metrics.csv")
    assert (read.setting[0], read.recipe[0]) == ("NA", "null")


@pytest.mark.parametrize(
    "rows, sentence",
    [
        ([], "columns"),
        ([record(value=float("nan"))], "value is not finite"),
        ([record(value=float("inf"))], "value is not finite"),
        ([record(ci_low=3.0, ci_high=2.0)], "ci_low <= ci_high"),
        ([record(), record(seed=1, ci_low=None)], "record 1 .*ci_low <= ci_high"),
        ([record(n=0)], "n is not a count"),
        ([record(n=1.5)], "n is not a count"),
        ([record(seed=0.5)], "seed"),
        ([record(method="")], "record 0: method is '', expected non-empty text"),
        ([record(), record(setting=50)], "record 1: setting is 50, expected text"),
        ([record(value="12.5")], "value is of type"),
        ([record(), record(value=3.0)], "record 1 .grad_cam average_drop 50%.: the same key stands twice"),
        ([{k: v for k, v in record().items() if k != "n"}], "missing .'n'."),
        ([record(extra=1)], "unknown .'extra'."),
    ],
)
def test_what_is_no_record_is_refused_in_one_sentence(rows, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        results.save(None, rows)
    assert "\n" not in str(caught.value)


def test_save_orders_columns_and_keeps_vectors(tmp_path):
    rows = [dict(reversed(record().items()))]
    per_image = pd.DataFrame({"image_id": ["a", "b"], "row": [np.array([0.25, 0.5]), np.array([1.0, 2.0])]})
    frame = results.save(tmp_path, rows, [per_image[:1], per_image[1:]], {"chunk": 16, "data_root": "/somewhere/private/data"})
    assert tuple(frame.columns) == results.COLUMNS
    back = pd.read_parquet(tmp_path / "per_image.parquet")
    np.testing.assert_array_equal(np.stack(back.row.tolist()), [[0.25, 0.5], [1.0, 2.0]])
    facts = json.loads((tmp_path / "run_facts.json").read_text())
    assert facts["chunk"] == 16
    assert facts["data_root"] == "data"
    assert facts["threads"] >= 1
    assert 10 < facts["peak_memory_mib"] < 1e6  # MiB, not KiB and not bytes


def test_differences_come_back_to_the_bit_beside_the_records(tmp_path):
    same = difference(than="layer_cam", p=None, p_holm=None, same_as="layer_cam", value=0.1 + 0.2, ci_low=None, ci_high=None)
    frame = pd.DataFrame([difference(), same])
    results.save(tmp_path, [record()], differences=frame[list(reversed(frame.columns))])
    read = results.read_differences(tmp_path / "differences.csv")
    assert tuple(read.columns) == results.DIFFERENCE
    assert read.value.tolist() == [-1.5, 0.1 + 0.2]
    assert read.same_as.tolist() == ["", "layer_cam"]
    assert read.p_holm.isna().tolist() == [False, True]


@pytest.mark.parametrize(
    "rows, sentence",
    [
        ([difference(p=1.5)], "difference 0 .grad_cam average_drop 50%.: p is 1.5, expected 0 to 1"),
        ([difference(p_holm=float("nan"))], "p_holm is nan"),
        ([difference(), difference(value=2.0, ci_high=2.0)], "record 1 .grad_cam minus cam .*: the same key stands twice"),
        ([record()], "missing .'p', 'p_holm', 'same_as', 'than'."),
    ],
)
def test_what_is_no_difference_is_refused_and_nothing_is_written(tmp_path, rows, sentence):
    with pytest.raises(ValueError, match=sentence):
        results.save(tmp_path, [record()], differences=pd.DataFrame(rows))
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "facts.json"
    files.write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        files.write_json(path, {("no", "key"): 2})
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]
    parts = tmp_path / "parts.parquet"
    write_parts(parts, [pd.DataFrame({"a": [1]}), pd.DataFrame({"a": [2, 3]})])
    with pytest.raises(pa.ArrowInvalid):
        write_parts(parts, [pd.DataFrame({"a": [4]}), pd.DataFrame({"a": ["no number"]})])
    assert pd.read_parquet(parts).a.tolist() == [1, 2, 3]
    write_parts(tmp_path / "nothing.parquet", [])
    assert sorted(tmp_path.iterdir()) == [path, parts]


def heats():
    """Six maps 3x4: noise of both signs, nearly constant ones (as ABN's), one constant and one that is not finite."""
    random = np.random.default_rng(0)
    heat = random.normal(0, 5, (6, 3, 4)).astype(np.float32)
    heat[2:4] = 0.9 + 1e-4 * random.random((2, 3, 4))
    heat[4], heat[5, 1, 1] = -0.3, np.nan
    return heat


def test_maps_come_back_within_a_fraction_of_their_own_range_and_then_to_the_bit(tmp_path):
    ids, heat = [f"image {n}" for n in range(6)], heats()
    path, again = tmp_path / "maps.npz", tmp_path / "again.npz"
    results.write_maps(path, (ids, {"abn": heat, "plain: cam": -heat[:, :2]}))
    read_ids, maps = results.read_maps(path)
    assert (read_ids, list(maps), maps["abn"].dtype, maps["abn"].shape) == (ids, ["abn", "plain: cam"], np.float32, heat.shape)
    span = np.ptp(heat[:4], (1, 2), keepdims=True)
    assert (np.abs(maps["abn"][:4] - heat[:4]) <= span / 4096 + np.abs(heat[:4]) * 2**-22).all()
    for kept, given in zip(maps["abn"][:4], heat, strict=False):  # the extremes stay where they are; float16 of the raw map has none here
        assert (kept.argmin(), kept.argmax()) == (given.argmin(), given.argmax())
    assert np.ptp(heat[2].astype(np.float16)) == 0
    assert (maps["abn"][4] == np.float32(-0.3)).all()
    assert np.isnan(maps["abn"][5]).any()
    results.write_maps(again, (ids, {"abn": heat, "plain: cam": -heat[:, :2]}))
    assert path.read_bytes() == again.read_bytes()
    assert results.read_answers(path) == {}
    results.write_maps(again, (ids, {"abn": heat}), {"abn": (range(6), [0.5] * 6)})
    classes, probabilities = results.read_answers(again)["abn"]
    assert (classes.tolist(), probabilities.tolist()) == ([0, 1, 2, 3, 4, 5], [0.5] * 6)
    assert list(results.read_maps(again)[1]) == ["abn"]
    with pytest.raises(ValueError, match=r"maps of cam: expected \[5,h,w\], a map for each image, got \[6, 3, 4\]"):
        results.write_maps(path, (ids[:5], {"cam": heat}))
    path.write_bytes(again.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"maps\.npz: cannot be read as maps"):
        results.read_maps(path)


def test_maps_are_saved_and_published_with_their_run(tmp_path):
    runs, published = tmp_path / "runs", tmp_path / "results"
    folder = runs / "subset" / "lfi_cam" / "with"
    ids = list("abcdef")
    results.save(folder, [record()], maps=(ids, {"lfi_cam": heats()[:, :2]}))
    files.write_json(folder / "provenance.json", {"dirty": False})
    make_run(runs / "subset" / "lfi_cam" / "without")
    (new, old), _ = results.publish("subset", runs=runs, results=published)
    assert sorted(file.name for file in new.iterdir()) == ["maps.npz", "metrics.csv", "provenance.json"]
    assert sorted(file.name for file in old.iterdir()) == ["metrics.csv", "provenance.json"]
    assert (new / "maps.npz").read_bytes() == (folder / "maps.npz").read_bytes()
    (folder / "maps.npz").write_bytes(b"half")
    with pytest.raises(ValueError, match=r"maps\.npz: cannot be read as maps"):
        results.publish("subset", runs=runs, results=published)
    assert results.read_maps(new / "maps.npz")[0] == ids  # what was published stays


def test_load_takes_complete_runs_only(tmp_path):
    make_run(tmp_path / "smoke" / "l_cam" / "d-r-s0", value=1.0)
    make_run(tmp_path / "smoke" / "calm" / "d-r-s1", value=2.0)
    make_run(tmp_path / "smoke" / "calm" / "d-r-s2.part", value=3.0)
    make_run(tmp_path / "smoke" / "calm" / "d-r-s3.failed", value=4.0)
    (make_run(tmp_path / "smoke" / "calm" / "d-r-s4", value=5.0) / "provenance.json").unlink()
    table = results.load(tmp_path)
    assert table[["profile", "key", "value"]].to_numpy().tolist() == [
        ["smoke", "d-r-s1", 2.0],
        ["smoke", "d-r-s0", 1.0],
    ]
    one = results.load(tmp_path / "smoke" / "l_cam" / "d-r-s0")
    assert one.value.tolist() == [1.0]
    assert results.load(tmp_path / "nothing").empty


@pytest.mark.parametrize(
    "given, shown",
    [
        ("/home/someone/data/drawn", "drawn"),
        ("~/data/", "data"),
        ("C:\\Users\\someone\\data", "data"),
        ("data/drawn", "data/drawn"),
        ("50%", "50%"),
        ({"a": ["/x/y", 3]}, {"a": ["y", 3]}),
        (None, None),
    ],
)
def test_public_cuts_absolute_paths_only(given, shown):
    assert provenance.public(given) == shown


def test_provenance_names_versions_and_hides_the_disk(tmp_path):
    content = provenance.provenance({"seed": 3, "data_root": str(tmp_path / "data"), "out_dir": "runs/x"}, chunk=8)
    assert content["seed"] == 3
    assert content["chunk"] == 8
    assert content["parameters"] == {"seed": 3, "data_root": "data", "out_dir": "runs/x"}
    assert content["packages"]["pandas"] == pd.__version__
    assert content["data_digest"] is None  # unknown is said, not left out
    assert str(tmp_path) not in json.dumps(content)


def test_git_state_is_dirty_by_code_not_by_prose(tmp_path):
    def git(*arguments):
        who = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        subprocess.run(["git", *who, "-C", str(tmp_path), *arguments], check=True, capture_output=True)

    assert provenance.git_state(tmp_path) == (None, None)
    git("init", "--quiet")
    (tmp_path / "cam_core").mkdir()
    (tmp_path / "cam_core" / "maps.py").write_text("x = 1\n")
    git("add", ".")
    git("commit", "--quiet", "-m", "first")
    (tmp_path / "README.md").write_text("prose\n")
    commit, dirty = provenance.git_state(tmp_path)
    assert (len(commit), dirty) == (40, False)
    (tmp_path / "cam_core" / "maps.py").write_text("x = 2\n")
    assert provenance.git_state(tmp_path) == (commit, True)


def test_publish_copies_numbers_and_nothing_else(tmp_path):
    runs, published = tmp_path / "runs", tmp_path / "results"
    run = make_run(runs / "subset" / "calm" / "cub-resnet50-s0", value=7.0)
    (run / "notebook.ipynb").write_text("{}")
    make_run(published / "subset" / "calm" / "cub-resnet50-s0", value=6.0)  # an older number: replaced
    other = make_run(published / "subset" / "l_cam" / "kept", value=5.0)
    folders, refused = results.publish("subset", runs=runs, results=published)
    assert refused == []
    assert sorted(file.name for file in folders[0].iterdir()) == ["metrics.csv", "provenance.json"]
    assert results.load(folders[0]).value.tolist() == [7.0]
    assert results.load(other).value.tolist() == [5.0]
    assert sorted(p.name for p in (published / "subset" / "calm").iterdir()) == ["cub-resnet50-s0"]


def test_differences_are_published_where_a_run_has_them(tmp_path):
    runs, published = tmp_path / "runs", tmp_path / "results"
    make_run(runs / "subset" / "calm" / "old")
    run = make_run(runs / "subset" / "calm" / "with")
    write_table(run / "differences.csv", pd.DataFrame([difference()]))
    (old, new), _ = results.publish("subset", runs=runs, results=published)
    assert [(folder / "differences.csv").exists() for folder in (old, new)] == [False, True]
    assert (new / "differences.csv").read_bytes() == (run / "differences.csv").read_bytes()
    write_table(run / "differences.csv", pd.DataFrame([difference(p=2.0)]))
    with pytest.raises(ValueError, match=r"differences\.csv: difference 0"):
        results.publish("subset", runs=runs, results=published)


@pytest.mark.parametrize("dirty", [True, None])
def test_publish_refuses_uncommitted_code_unless_told(tmp_path, dirty):
    runs, published = tmp_path / "runs", tmp_path / "results"
    make_run(runs / "subset" / "calm" / "a", dirty=dirty)
    make_run(runs / "subset" / "calm" / "b")
    folders, refused = results.publish("subset", runs=runs, results=published)
    assert [folder.name for folder in folders] == ["b"]
    assert refused[0].startswith("calm/a: not published")
    folders, refused = results.publish("subset", runs=runs, results=published, allow_dirty=True)
    assert [folder.name for folder in folders] == ["a", "b"]
    assert json.loads((folders[0] / "provenance.json").read_text())["dirty"] is dirty
    with pytest.raises(FileNotFoundError, match="no complete run"):
        results.publish("paper", runs=runs, results=published)
