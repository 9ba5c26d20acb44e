"""The generator: the same bytes for a seed, and redrawing changes what it says and nothing else."""

import hashlib

import numpy as np
import pytest
from PIL import Image

from data_scripts import birds, creatures, draw, paint

IDS = {"imagenet": "ILSVRC2012_val_00000004", "voc": "050004", "cub": "50004"}


def tree_digest(root):
    sha = hashlib.sha256()
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        sha.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return sha.hexdigest()


def test_same_seed_same_bytes_other_seed_other_images(tmp_path, drawn, monkeypatch):
    monkeypatch.setattr(draw, "SMALL", {"imagenet": (3, 2), "voc": (2, 2), "cub": (2, 2)})
    first, second = (draw.draw(tmp_path / name, seed=3, small=True, progress=False) for name in ("a", "b"))
    assert tree_digest(first) == tree_digest(second)
    third = draw.draw(tmp_path / "c", seed=4, small=True, progress=False)
    assert tree_digest(first) != tree_digest(third)
    path = "VOCdevkit/VOC2007/JPEGImages/000001.jpg"  # an image does not depend on how many others are drawn
    zero = draw.draw(tmp_path / "d", seed=0, small=True, progress=False)
    assert (zero / path).read_bytes() == (drawn / path).read_bytes()


def test_complete_set_is_kept_and_foreign_folder_is_refused(drawn, tmp_path, monkeypatch):
    def never(task):
        raise AssertionError("drew again")

    monkeypatch.setattr(draw, "_draw_one", never)
    assert draw.draw(drawn, seed=0, small=True, progress=False) == drawn
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/mine.txt").write_text("precious")
    with pytest.raises(FileExistsError, match="was not drawn here"):
        draw.draw(tmp_path / "photos", small=True)
    with pytest.raises(AssertionError, match="drew again"):
        draw.draw(tmp_path / "new", small=True, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]  # a failed run leaves nothing behind


@pytest.mark.parametrize("kind", IDS)
def test_the_file_is_the_redrawn_image_after_jpeg(drawn, kind):
    name = {"imagenet": IDS["imagenet"] + ".JPEG", "voc": "050004.jpg", "cub": "*_50004.jpg"}[kind]
    stored = np.asarray(Image.open(next(drawn.rglob(name))), np.float32)
    again = np.asarray(draw.redraw(kind, IDS[kind]), np.float32)
    assert np.abs(stored - again).mean() < 6


def touched(mask: np.ndarray) -> np.ndarray:
    """A mask and its soft edge: one pixel around it, within which coverage is between 0 and a half."""
    padded = np.pad(mask, 1)
    return np.max(
        [padded[1 + dy : padded.shape[0] - 1 + dy, 1 + dx : padded.shape[1] - 1 + dx] for dy in (-1, 0, 1) for dx in (-1, 0, 1)], 0
    )


@pytest.mark.parametrize("number", [50001, 50004, 50017])
@pytest.mark.parametrize("other", [1, 6, 9])
def test_bird_cue_changes_the_differing_parts_only(number, other):
    drawing = draw.scene("cub", str(number))
    changed = draw.scene("cub", str(number), "cue", other)
    assert changed.label == other
    difference = np.abs(drawing.pixels - changed.pixels).max(2)
    cue, bird = draw.cue_mask("cub", str(number), against=other), drawing.objects[0].mask
    assert difference[~touched(bird)].max() == 0
    assert difference[~touched(cue)].sum() <= 2e-3 * difference.sum()  # slivers where three parts meet cover less than half a pixel
    assert (difference[cue] > 0).sum() >= 0.3 * cue.sum()  # spots and stripes leave some of the ground colour
    assert difference.any() == (drawing.label != other)
    assert (drawing.objects[0].mask == changed.objects[0].mask).all()
    assert (drawing.points == changed.points).all()


def test_cue_lies_in_the_bird_and_its_parts_do_not_overlap():
    for number in range(50_001, 50_011):
        drawing = draw.scene("cub", str(number))
        regions = np.stack(list(drawing.regions.values()))
        assert set(drawing.regions) == set(birds.REGIONS)
        assert regions.sum(0).max() == 1
        assert not (regions.any(0) & ~drawing.objects[0].mask).any()
        assert regions.any(0).sum() > 0.85 * drawing.objects[0].mask.sum()  # the rest is beak, eye and seams
        for other in (drawing.label, (number + 3) % 10):
            cue = draw.cue_mask("cub", str(number), against=other)
            assert cue.any() == (other != drawing.label)


def test_creature_cue_changes_nothing_outside_both_creatures():
    image_id = IDS["imagenet"]
    drawing = draw.scene("imagenet", image_id)
    for target in range(len(creatures.CLASSES)):
        changed = draw.scene("imagenet", image_id, "cue", target)
        union = touched(np.any([thing.mask for thing in drawing.objects + changed.objects], 0))
        differs = np.abs(drawing.pixels - changed.pixels).max(2) > 0
        assert not differs[~union].any()
        assert differs.any() == (target != drawing.label)


def test_voc_cue_replaces_one_class_in_place():
    image_id = next(f"{n:06d}" for n in range(50001, 50020) if len({thing.label for thing in draw.scene("voc", f"{n:06d}").objects}) > 1)
    drawing = draw.scene("voc", image_id)
    source = drawing.objects[0].label
    target = next(k for k in range(6) if k not in {thing.label for thing in drawing.objects})
    changed = draw.scene("voc", image_id, "cue", target, source)
    assert sorted({thing.label for thing in changed.objects}) == sorted({thing.label for thing in drawing.objects} - {source} | {target})
    before, after = (np.any([t.mask for t in d.objects if t.label in (source, target)], 0) for d in (drawing, changed))
    differs = np.abs(drawing.pixels - changed.pixels).max(2) > 1e-3
    assert not differs[~touched(touched(before | after))].any()
    assert (draw.cue_mask("voc", image_id, label=source) == before).all()


@pytest.mark.parametrize("kind", IDS)
def test_rest_keeps_the_cue_and_redraws_everything_else(kind):
    drawing, changed = draw.scene(kind, IDS[kind]), draw.scene(kind, IDS[kind], "rest")
    cue = draw.cue_mask(kind, IDS[kind])
    inner = ~touched(~cue)  # edges are blended with what is behind them
    difference = np.abs(drawing.pixels - changed.pixels).max(2)
    assert (difference[inner] > 0).mean() < 0.005  # where two pieces of an object meet a little of the ground shines through
    assert (difference[~touched(cue)] > 0.02).mean() > 0.6
    assert changed.label == drawing.label
    assert [thing.box for thing in changed.objects] == [thing.box for thing in drawing.objects]


@pytest.mark.parametrize("kind", IDS)
def test_mark_is_in_the_corner_and_nowhere_else(kind):
    plain, marked = (np.asarray(draw.redraw(kind, IDS[kind], change)).astype(int) for change in (None, "mark"))
    x0, y0, x1, y1 = draw.mark_box(plain.shape[1], plain.shape[0])
    differs = np.abs(plain - marked).max(2) > 0
    assert differs[y0:y1, x0:x1].mean() > 0.95
    differs[y0:y1, x0:x1] = False
    assert not differs.any()


def test_bad_requests_are_refused():
    with pytest.raises(ValueError, match="unknown drawn dataset 'coco'"):
        draw.redraw("coco", "1")
    with pytest.raises(ValueError, match="unknown change 'hat'"):
        draw.redraw("cub", "1", "hat")
    with pytest.raises(ValueError, match="go together"):
        draw.redraw("cub", "1", "cue")
    with pytest.raises(ValueError, match="'duck' is no id"):
        draw.redraw("cub", "duck")


def test_coverage_of_a_polygon_is_its_area():
    square = [(3.25, 4.5), (10.25, 4.5), (10.25, 9.0), (3.25, 9.0)]
    alpha = paint.fill(square, (16, 16))
    assert 7 * 4.5 <= alpha.sum() <= (7 + 1 / 4) * (4.5 + 1 / 4)  # at most half a subpixel wider on each side
    assert (alpha[5:9, 4:10] == 1).all()
    assert alpha[:4].max() == alpha[10:].max() == 0


@pytest.mark.parametrize("share", [0.3, 0.45])
def test_patterns_cover_their_share(share):
    u, v = paint.Pose(150, 150, 100).local((300, 300))
    assert paint.stripes(u, 0.3, 100, share).mean() == pytest.approx(share, abs=0.02)
    assert paint.dots(u, v, 0.3, 100, share).mean() == pytest.approx(share, abs=0.03)


@pytest.mark.parametrize("number", ["50001", "50004", "50017"])
def test_a_part_is_drawn_away_and_what_lies_elsewhere_stays(number):
    whole = draw.scene("cub", number)
    bird = whole.objects[0].mask
    for region in birds.REGIONS:
        changed = draw.scene("cub", number, without=[region])
        difference = np.abs(whole.pixels - changed.pixels).max(2)
        own = (
            whole.regions[region] if region != "head" else bird & ~np.any([whole.regions[r] for r in birds.REGIONS if r != "head"], axis=0)
        )
        elsewhere = ~touched(own) & ~touched(~bird)  # around the bird lies its shadow, which goes with the part
        assert difference[elsewhere].sum() <= 1e-2 * difference.sum()  # slivers where three parts meet
        assert (difference[whole.regions[region]] > 0).mean() > 0.95
        assert not changed.regions[region].any()
        assert (changed.objects[0].mask <= bird).all()


def test_without_all_parts_the_bird_is_gone_and_a_thing_behind_leaves_the_others():
    whole, gone = draw.scene("cub", "50004"), draw.scene("cub", "50004", without=birds.REGIONS)
    assert not gone.objects[0].mask.any()
    again = draw.scene("cub", "50004", without=birds.REGIONS + tuple(whole.around))
    for name, mask in gone.around.items():
        without = draw.scene("cub", "50004", without=[*birds.REGIONS, name])
        difference = np.abs(gone.pixels - without.pixels).max(2)
        assert (difference[mask] > 0).mean() > 0.9
        assert difference[~mask & ~np.any([m for n, m in gone.around.items() if n != name], axis=0)].max() == 0
        assert name not in without.around
    elsewhere = ~np.any(list(gone.around.values()), axis=0)
    assert (gone.pixels[elsewhere] == again.pixels[elsewhere]).all()
    with pytest.raises(ValueError, match="has no hat to leave out: take cub, and some of head"):
        draw.scene("cub", "50004", without=["hat"])
    with pytest.raises(ValueError, match="imagenet image has no birds to leave out"):
        draw.scene("imagenet", IDS["imagenet"], without=["head"])


def test_smallest_sets_of_parts_that_tell_a_species():
    for label in range(len(birds.CLASSES)):
        looks = [birds.looks(k) for k in range(len(birds.CLASSES))]
        tells = lambda regions, k=label, of=looks: [j for j in range(len(of)) if all(of[j][r] == of[k][r] for r in regions)] == [k]  # noqa: E731
        for regions in birds.sufficient_regions(label):
            assert tells(regions)
            assert not any(tells([r for r in regions if r != spared]) for spared in regions)
    assert birds.sufficient_regions(birds.CLASSES.index("Rusty Warbler")) == [("belly",), ("wing",)]
