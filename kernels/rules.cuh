// Rules: what one optimizer does to one element (twin of adam_rules.py, momentum_rules.py and
// schedule_free_rules.py: same names, same operations, same order).
//
// A rule is a struct of its coefficients, in the order in which Python lists them, and `update` for one element.
// Options (epsilon, decay, maximize, ...) are values of coefficients, never branches; a state that the options leave
// out has the type Absent, and a rule with less than three takes Absent in their place. Every literal would be a
// double, so there is none.
#pragma once

#include "formats.cuh"

template <typename T>
struct adam {
    T grad_factor, l2, decay, weight1, weight2, candidate_factor, eps_inside, denominator_factor, eps_outside,
        step_size;

    template <typename Maximum>
    __device__ __forceinline__ void update(T& param, T grad, T& exp_avg, T& exp_avg_sq, Maximum& max_exp_avg_sq) const {
        grad = grad + l2 * param;
        param = param - decay * param;
        exp_avg = exp_avg + weight1 * (grad - exp_avg);
        exp_avg_sq = exp_avg_sq + weight2 * (grad * grad - exp_avg_sq);
        T second = exp_avg_sq;
        if constexpr (is_present<Maximum>) {
            const T candidate = second * candidate_factor;
            max_exp_avg_sq = max_exp_avg_sq > candidate ? max_exp_avg_sq : candidate;
            second = max_exp_avg_sq;
        }
        const T denominator = sqrt(second + eps_inside) * denominator_factor + eps_outside;
        param = param - step_size * (exp_avg / denominator);
    }
};

template <typename T>
struct nadam {
    T grad_factor, l2, decay, weight1, weight2, eps_inside, denominator_factor, eps_outside, grad_size, exp_avg_size;

    __device__ __forceinline__ void update(T& param, T grad, T& exp_avg, T& exp_avg_sq, Absent) const {
        grad = grad + l2 * param;
        param = param - decay * param;
        exp_avg = exp_avg + weight1 * (grad - exp_avg);
        exp_avg_sq = exp_avg_sq + weight2 * (grad * grad - exp_avg_sq);
        const T denominator = sqrt(exp_avg_sq + eps_inside) * denominator_factor + eps_outside;
        param = param - (grad_size * grad + exp_avg_size * exp_avg) / denominator;
    }
};

template <typename T>
struct sgd {
    T grad_factor, l2, decay, lr_inside, momentum, undamped, grad_share, buffer_share, lr_outside;

    template <typename Buffer>
    __device__ __forceinline__ void update(T& param, T grad, Buffer& momentum_buffer, Absent, Absent) const {
        grad = grad + l2 * param;
        param = param - decay * param;
        T update = lr_inside * grad;
        if constexpr (is_present<Buffer>) {
            momentum_buffer = momentum * momentum_buffer + undamped * update;
            update = grad_share * update + buffer_share * momentum_buffer;
        }
        param = param - lr_outside * update;
    }
};

template <typename T>
struct rmsprop {
    T grad_factor, l2, decay, weight, second_factor, mean_factor, zero, eps_inside, eps_outside, momentum, lr_inside,
        lr_outside;

    template <typename Mean, typename Buffer>
    __device__ __forceinline__ void update(T& param, T grad, T& square_avg, Mean& grad_avg,
                                           Buffer& momentum_buffer) const {
        grad = grad + l2 * param;
        param = param - decay * param;
        square_avg = square_avg + weight * (grad * grad - square_avg);
        T second = square_avg * second_factor;
        if constexpr (is_present<Mean>) {
            grad_avg = grad_avg + weight * (grad - grad_avg);
            const T mean = grad_avg * mean_factor;
            second = second - mean * mean;
            second = second < zero ? zero : second;
        }
        T update = lr_inside * (grad / (sqrt(second + eps_inside) + eps_outside));
        if constexpr (is_present<Buffer>) {
            momentum_buffer = momentum * momentum_buffer + update;
            update = momentum_buffer;
        }
        param = param - lr_outside * update;
    }
};

template <typename T>
struct adamw_schedule_free {
    T grad_factor, start, average, y_size, y_decay, lr, decay, weight2, denominator_factor, eps;

    __device__ __forceinline__ void update(T& param, T grad, T& z, T& exp_avg_sq, Absent) const {
        z = z + start * (param - z);
        exp_avg_sq = exp_avg_sq + weight2 * (grad * grad - exp_avg_sq);
        const T update = grad / (sqrt(exp_avg_sq) * denominator_factor + eps);
        const T new_z = z - (lr * update + decay * param);
        param = param + average * (z - param) - (y_size * update + y_decay * param);
        z = new_z;
    }
};

template <typename T>
struct sgd_schedule_free {
    T grad_factor, start, average, y_size, y_decay, lr, decay;

    __device__ __forceinline__ void update(T& param, T grad, T& z, Absent, Absent) const {
        z = z + start * (param - z);
        const T new_z = z - (lr * grad + decay * param);
        param = param + average * (z - param) - (y_size * grad + y_decay * param);
        z = new_z;
    }
};
