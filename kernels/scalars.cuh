// What the host and the sums say of the gradients of a step: their scale, their norm, and whether they may be applied.
#pragma once

#include "tables.cuh"

// A number of mixed-precision training: at an address, or, where that is 0, the record's own.
__device__ inline double read_scalar(uint64 address, int32 is_double, double own) {
    if (address == 0) return own;
    return is_double ? *reinterpret_cast<const double*>(address)
                     : static_cast<double>(*reinterpret_cast<const float*>(address));
}

// What takes gradients back from the scale that the loss was multiplied by.
__device__ inline double inverse_scale(const Launch& launch) {
    const Scalars& scalars = *launch.scalars;
    return 1.0 / read_scalar(scalars.grad_scale_at, scalars.grad_scale_is_double, scalars.grad_scale);
}

// The one factor for unscaling and clipping; where the norm is NaN it is NaN too.
__device__ inline double gradient_factor(const Launch& launch, const Tensor& tensor, double clip_norm) {
    const double factor = inverse_scale(launch);
    if (tensor.scope == NO_SCOPE) return factor;
    const double norm = launch.norms[tensor.scope];
    return norm <= clip_norm ? factor : factor * (clip_norm / norm);
}

// Whether the gradients forbid this step.
__device__ inline bool must_skip(const Launch& launch) {
    const Scalars& scalars = *launch.scalars;
    if (read_scalar(scalars.found_inf_at, scalars.found_inf_is_double, scalars.found_inf) != 0.0) return true;
    return scalars.skips_nonfinite && launch.progress->nonfinite;
}
