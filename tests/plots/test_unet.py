"""The drawn U-Net shows each stage of a real forward pass, and a network of one's own."""

import numpy as np
import torch

from lungseg_utils import plots
from lungseg_utils.model import build_model, feature_maps
from lungseg_utils.plots.parts import alt_text


def titles(figure):
    figure.draw_without_rendering()
    return [ax.get_title() for ax in figure.axes if ax.get_title()]


def test_every_stage_is_named_with_its_maps_and_their_size():
    torch.manual_seed(0)
    maps = feature_maps(build_model("resnet18", "none"), torch.zeros(1, 1, 64, 64))
    figure = plots.plot_unet(maps)
    said = titles(figure)
    assert said[0] == "the slice" and "512 maps of 2 x 2" in said and "16 maps of 64 x 64" in said
    assert len([title for title in said if "maps of" in title]) == 5 + 5  # down and up
    assert sum("logit of" in title for title in said) == 4
    assert "level 6: 512 maps of 2 x 2" in alt_text(figure)


def test_a_network_written_by_hand_is_drawn_alike():
    rng = np.random.default_rng(0)
    sizes = {
        "encoder": [(1, 32), (8, 32), (16, 16), (32, 8)],
        "decoder": [(16, 16), (8, 32)],
        "head": [(4, 32)],
    }
    maps = {part: [rng.random((c, side, side)) for c, side in each] for part, each in sizes.items()}
    figure = plots.plot_unet(maps)
    stages = [title for title in titles(figure) if "of" in title and "logit" not in title]
    assert sorted(stages) == sorted(
        ["8 maps of 32 x 32"] * 2 + ["16 maps of 16 x 16"] * 2 + ["32 maps of 8 x 8"]
    )
    answer = next(ax for ax in figure.axes if "largest" in ax.get_title()).images[0].get_array()
    np.testing.assert_array_equal(answer, maps["head"][0].argmax(0))
