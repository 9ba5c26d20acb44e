"""Facts about real data that are known beforehand; needs CAM_DATA."""

import pytest
import torch

from cam_core.data import CUB200, VOC2007, ImageNet, inclusive_boxes, wsol_boxes

pytestmark = pytest.mark.real_data


def test_imagenet_validation_images_against_the_wsol_lists(real):
    dataset = ImageNet(real, "val", view="original")
    assert len(dataset) == 620
    assert len(dataset.classes) == 1000
    assert (dataset.classes[0], dataset.classes[970]) == ("tench", "alp")
    lists = real / "ILSVRC2012/wsolevaluation/test"
    labels = dict(line.split(",") for line in (lists / "class_labels.txt").read_text().split())
    boxes: dict[str, list[list[int]]] = {}
    for line in (lists / "localization.txt").read_text().split():
        name, *corners = line.split(",")
        boxes.setdefault(name, []).append([int(value) for value in corners])
    for image_id, item in zip(dataset.ids, dataset.annotations, strict=True):
        name = f"val/{image_id}.JPEG"
        assert item.label == int(labels[name])
        assert item.official_boxes.tolist() == boxes[name]
    example = dataset[0]
    assert example.size == (375, 500)
    assert inclusive_boxes(example.boxes).tolist() == boxes["val/ILSVRC2012_val_00000002.JPEG"]
    assert wsol_boxes(example).tolist() == [
        [int(v * 224 / s) for v, s in zip(b, (500, 375) * 2, strict=True)] for b in example.official_boxes.tolist()
    ]


def test_imagenet_training_subset(real):
    dataset = ImageNet(real, "train256", limit=20)
    assert len(ImageNet(real, "train256")) == 1000
    assert [item.label for item in dataset.annotations] == list(range(20))
    assert dataset[3].boxes is None


def test_voc_test_images(real):
    dataset = VOC2007(real, "test", view="original")
    assert len(dataset) == 300
    assert len(VOC2007(real, "trainval")) == 500
    assert dataset.classes[:3] == ["aeroplane", "bicycle", "bird"]
    assert dataset.classes[-3:] == ["sofa", "train", "tvmonitor"]
    assert sum(len(dataset.present(index)) for index in range(300)) == 429
    listed = (line.split() for line in (dataset.root / "pointing_game_ebp_voc07_difficult.txt").read_text().splitlines())
    published = {image: {place for place, flag in enumerate(flags) if flag == "1"} for image, *flags in listed}
    assert {image: dataset.hard(index) for index, image in enumerate(dataset.ids)} == published
    example = dataset[0]  # 000006: a potted plant, a table, chairs, the XML by hand
    assert [dataset.classes[k] for k in example.box_labels.tolist()] == ["pottedplant", "diningtable"] + ["chair"] * 6
    assert inclusive_boxes(example.boxes)[0].tolist() == [186, 134, 281, 241]
    assert example.difficult.tolist() == [False, False, False, True, True, True, True, False]
    assert dataset.present(0) == [8, 10, 15]


def test_voc_centre_point_of_the_subset_is_scored_from_zero_based_boxes(real):
    dataset = VOC2007(real, "test", view="original", limit=40)
    for index in range(40):
        example = dataset[index]
        assert (example.boxes[:, :2] >= 0).all()
        assert (example.boxes[:, 2:] <= torch.tensor([example.size[1], example.size[0]])).all()


def test_cub_first_ten_classes(real):
    train, test = CUB200(real, "train", view="original"), CUB200(real, "test", view="original")
    assert (len(train), len(test)) == (260, 128)
    assert test.class_ids == list(range(1, 11))
    assert test.classes[0] == "Black footed Albatross"
    assert test.class_attributes.shape == (10, 312)
    assert test.attribute_names[0] == "has_bill_shape::curved_(up_or_down)"
    index = train.ids.index("2")
    assert train[index].boxes.tolist() == [[139, 30, 292, 294]]
    assert train[index].parts[:2].tolist() == [[228, 138, 1], [282, 154, 1]]
    assert train[index].parts[2, 2] == 0
    for dataset in (train, test):
        for item in dataset.annotations:
            x0, y0, x1, y1 = item.boxes[0].tolist()
            seen = item.parts[item.parts[:, 2] > 0]
            assert ((seen[:, 0] > x0 - 40) & (seen[:, 0] < x1 + 40) & (seen[:, 1] > y0 - 40) & (seen[:, 1] < y1 + 40)).all()
