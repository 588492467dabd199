"""Every operation of the product. A new one is one entry here."""

from operations import anchors, fields, gaussians, training
from operations._op import Inputs, Op, Outputs

__all__ = ["OPS", "Inputs", "Op", "Outputs"]

OPS = {
    "project": gaussians.PROJECT,
    "spherical_harmonics": gaussians.SPHERICAL_HARMONICS,
    "decode_anchors": anchors.DECODE_ANCHORS,
    "composite": gaussians.COMPOSITE,
    "contributions": gaussians.CONTRIBUTIONS,
    "photometric": training.PHOTOMETRIC,
    "adam_step": training.ADAM,
    "perturb_means": training.PERTURB_MEANS,
    "mean_activations": training.MEAN_ACTIVATIONS,
    "hash_grid": fields.HASH_GRID,
    "hash_grid_slopes": fields.HASH_GRID_SLOPES,
    "probed_hash_grid": fields.PROBED_HASH_GRID,
    "aggregate_neighbours": anchors.AGGREGATE_NEIGHBOURS,
    "composite_rays": fields.COMPOSITE_RAYS,
    "distortion": fields.DISTORTION,
    "mlp": fields.MLP,
    "adam_step_touched": training.ADAM_TOUCHED,
    "spherical_harmonics_basis": fields.DIRECTIONS,
}
