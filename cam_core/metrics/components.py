"""The bounding boxes of all contours of a map at all 255 thresholds, in one pass over the pixels, without OpenCV.

At level k the foreground of a uint8 image is img > k. The contours that `cv2.findContours(RETR_TREE)` lists there are the outlines of the
8-connected components of the foreground and of the 4-connected holes in it (background that the frame does not reach). Going through the
pixels from bright to dark, components only grow and merge, so a union-find carries each component's box from level to level: a component
tree. Holes are components of the inverted image. Rows of the result are *nodes*: a component that does not change over a range of levels.
"""

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

LEVELS = 255
LOW, HIGH, X0, Y0, X1, Y1, AREA, FIRST = range(8)  # columns of a node

Nodes = NDArray[np.int32]
Image = NDArray[np.uint8]


def components(image: Image) -> Nodes:
    """Nodes [m,8] of the 8-connected components of image > k, for every k in 0..254.

    Columns: lowest and highest k at which the component is this one; its box x0, y0, x1, y1 (inclusive pixels); twice the area
    within its outline if it has no hole (2 x 2 cells with four pixels count 2, with three 1: `cv2.contourArea` doubled); a number
    that grows with its first pixel in scan order.
    """
    nodes = _nodes(np.pad(image, 1), True)
    nodes[:, X0 : Y1 + 1] -= 1
    return nodes


def holes(image: Image) -> Nodes:
    """Nodes of the 4-connected background components that do not reach the frame; the box is that of the contour around them."""
    inverted = np.pad(np.pad(255 - image, 1, constant_values=255), 1)
    nodes = _nodes(inverted, False)
    nodes = nodes[nodes[:, X0] > 1]  # all but the one that touches the frame
    nodes[:, [LOW, HIGH]] = 254 - nodes[:, [HIGH, LOW]]
    nodes[:, X0 : Y1 + 1] -= np.array([3, 3, 1, 1], np.int32)  # 2 of padding, 1 since the contour is on the foreground
    return nodes


def _nodes(image: Image, eight: bool) -> Nodes:
    """Nodes in the coordinates of ``image``, whose outermost pixels must be 0, so that no border check is needed."""
    flat, width = image.ravel(), image.shape[1]
    order = np.argsort(255 - flat, kind="stable")[: np.count_nonzero(flat)]  # bright to dark
    around = np.array([-width, -1, 1, width, -width - 1, -width + 1, width - 1, width + 1])[: 8 if eight else 4]
    state, nodes = np.zeros((2, flat.size, 8), np.int32)  # large enough: every node starts at another pixel
    count = _sweep(flat, width, order, around, np.full(flat.size, -1, np.int32), state, nodes)
    return np.array(nodes[:count])


def fill_holes(image: Image) -> Image:
    """The image whose foreground at every level is the original's with its holes filled (minimax path from the frame to each pixel)."""
    passed = np.full(image.size, 256)
    _flood(np.ascontiguousarray(image).ravel(), image.shape[1], passed, np.full(256, -1), np.empty(image.size, np.int64))
    return passed.astype(np.uint8).reshape(image.shape)


def best_node(nodes: Nodes, score: ArrayLike) -> NDArray[np.int64]:
    """For each level the index of the node with the highest score [m] there, the first of equals; -1 if there is none. [255]"""
    best = np.full(LEVELS, -1)
    _best(nodes, np.asarray(score, np.float64), best)
    return best


@njit(cache=True)
def _find(parent, p):  # type: ignore[no-untyped-def]
    while parent[p] != p:
        parent[p] = parent[parent[p]]
        p = parent[p]
    return p


@njit(cache=True)
def _close(nodes, count, state, root, level):  # type: ignore[no-untyped-def]
    """Store a component as it was above ``level``, unless it began there; a new node of it begins at this level."""
    if state[root, HIGH] <= level:
        return count
    for column in range(8):
        nodes[count, column] = state[root, column]
    nodes[count, LOW] = level + 1
    state[root, HIGH] = level
    return count + 1


@njit(cache=True)
def _sweep(flat, width, order, around, parent, state, nodes):  # type: ignore[no-untyped-def]
    """Fill ``nodes``, return their number. In ``parent`` -1 is background; ``state`` of a root describes its component."""
    count = 0
    for p in order:
        level, y = flat[p] - 1, p // width
        x, root = p - y * width, -1
        for step in around:
            if parent[p + step] < 0:
                continue
            other = _find(parent, p + step)
            if other == root:
                continue
            count = _close(nodes, count, state, other, level)
            if root < 0:
                root = other
                continue
            parent[other] = root
            _widen(state, root, state[other, X0], state[other, Y0], state[other, X1], state[other, Y1], state[other, FIRST])
            state[root, AREA] += state[other, AREA]
        if root < 0:
            root = p
            state[p, HIGH], state[p, X0], state[p, Y0], state[p, X1], state[p, Y1], state[p, FIRST] = level, x, y, x, y, p
        else:
            _widen(state, root, x, y, x, y, p)
        parent[p] = root
        for corner in (p - width - 1, p - width, p - 1, p):
            four = (parent[corner] >= 0) + (parent[corner + 1] >= 0) + (parent[corner + width] >= 0) + (parent[corner + width + 1] >= 0)
            state[root, AREA] += four >= 3
    for p in order:
        if parent[p] == p:
            count = _close(nodes, count, state, p, -1)
    return count


@njit(cache=True)
def _widen(state, root, x0, y0, x1, y1, first):  # type: ignore[no-untyped-def]
    state[root, X0], state[root, Y0] = min(state[root, X0], x0), min(state[root, Y0], y0)
    state[root, X1], state[root, Y1] = max(state[root, X1], x1), max(state[root, Y1], y1)
    state[root, FIRST] = min(state[root, FIRST], first)


@njit(cache=True)
def _flood(flat, width, passed, first, following):  # type: ignore[no-untyped-def]
    """Fill ``passed`` (256: not reached yet), value by value; ``first`` and ``following`` chain the pixels that wait at each value."""
    around = (-1, 1, -width, width)
    for p in range(flat.size):
        if p < width or p >= flat.size - width or p % width == 0 or p % width == width - 1:
            passed[p] = flat[p]
            following[p], first[flat[p]] = first[flat[p]], p
    for level in range(256):
        while first[level] >= 0:
            p = first[level]
            first[level] = following[p]
            for step in around:
                q = p + step
                if 0 <= q < flat.size and passed[q] == 256:  # steps over the border end on the border, which is reached
                    passed[q] = max(level, flat[q])
                    following[q], first[passed[q]] = first[passed[q]], q


@njit(cache=True)
def _best(nodes, score, best):  # type: ignore[no-untyped-def]
    for i in range(len(nodes)):
        for level in range(nodes[i, LOW], nodes[i, HIGH] + 1):
            if best[level] < 0 or score[i] > score[best[level]]:
                best[level] = i
