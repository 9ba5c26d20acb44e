"""Readers: ImageNet, PASCAL VOC 2007, CUB-200-2011, OpenImages30k and image folders, all giving `Example`.

dataset = VOC2007("data/drawn", "test", view="squash")
dataset[0].image, dataset[0].boxes, dataset.classes
"""

from cam_core.data.cub import CUB200
from cam_core.data.example import DataError, Dataset, Example, collate, inclusive_boxes, wsol_boxes
from cam_core.data.folder import ImageFolder
from cam_core.data.imagenet import ImageNet
from cam_core.data.openimages import OpenImages30k
from cam_core.data.voc import VOC2007

__all__ = [
    "CUB200",
    "VOC2007",
    "DataError",
    "Dataset",
    "Example",
    "ImageFolder",
    "ImageNet",
    "OpenImages30k",
    "collate",
    "inclusive_boxes",
    "wsol_boxes",
]
