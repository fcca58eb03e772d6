"""The equations: pure functions of tensors and numbers, without modules or state."""

from lit_purify.functional.correlation import correlation
from lit_purify.functional.distances import (
    compression_rate,
    init_max_end,
    lp_distance,
    project,
    trajectory_distances,
)
from lit_purify.functional.filters import bilateral
from lit_purify.functional.first_order import (
    Linearised,
    margin,
    radius_along,
    standing_share,
    steepest,
)
from lit_purify.functional.frechet import (
    feature_moments,
    frechet_distance,
    merge_feature_moments,
)
from lit_purify.functional.frequencies import low_pass, project_low_frequency, rms
from lit_purify.functional.images import suspicious_range
from lit_purify.functional.jacobian import JacobianOperator, pull_back, push_forward
from lit_purify.functional.masking import (
    derivative_error,
    directional_derivative,
    first_to_last,
    growth_log10,
    l2_norm,
    zero_share,
)
from lit_purify.functional.moments import merge_moments, moments
from lit_purify.functional.quadrature import (
    density_above,
    density_below,
    frobenius_norm,
    lanczos,
    spectral_density,
)
from lit_purify.functional.robustness import correct, majority
from lit_purify.functional.similarity import similarity_gradient
from lit_purify.functional.smoothing import (
    ABSTAINED,
    Certificate,
    certificate,
    certified_radius,
    check_answers,
)
from lit_purify.functional.spectral import (
    largest_singular,
    share_above,
    share_below,
    singular_values,
)
from lit_purify.functional.variability import (
    CentroidDistances,
    DirectionAgreement,
    DirectionSums,
    Variability,
    add_directions,
    centroid_distance,
    centroid_distances,
    direction_agreement,
    mean_cosine,
    variability,
)
from lit_purify.functional.variance import (
    CrossedMoments,
    VarianceComponents,
    add_draw,
    variance_components,
)
from lit_purify.statistics import (
    SigmoidFit,
    clopper_pearson_lower,
    fit_sigmoid,
    normal_interval,
    paired_interval,
    wilson_interval,
)

__all__ = [
    "ABSTAINED",
    "CentroidDistances",
    "Certificate",
    "CrossedMoments",
    "DirectionAgreement",
    "DirectionSums",
    "JacobianOperator",
    "Linearised",
    "SigmoidFit",
    "Variability",
    "VarianceComponents",
    "add_directions",
    "add_draw",
    "bilateral",
    "centroid_distance",
    "centroid_distances",
    "certificate",
    "certified_radius",
    "check_answers",
    "clopper_pearson_lower",
    "compression_rate",
    "correct",
    "correlation",
    "density_above",
    "density_below",
    "derivative_error",
    "direction_agreement",
    "directional_derivative",
    "feature_moments",
    "first_to_last",
    "fit_sigmoid",
    "frechet_distance",
    "frobenius_norm",
    "growth_log10",
    "init_max_end",
    "l2_norm",
    "lanczos",
    "largest_singular",
    "low_pass",
    "lp_distance",
    "majority",
    "margin",
    "mean_cosine",
    "merge_feature_moments",
    "merge_moments",
    "moments",
    "normal_interval",
    "paired_interval",
    "project",
    "project_low_frequency",
    "pull_back",
    "push_forward",
    "radius_along",
    "rms",
    "share_above",
    "share_below",
    "similarity_gradient",
    "singular_values",
    "spectral_density",
    "standing_share",
    "steepest",
    "suspicious_range",
    "trajectory_distances",
    "variability",
    "variance_components",
    "wilson_interval",
    "zero_share",
]
