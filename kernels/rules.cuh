// Rules: what one optimizer does to one element (twin of the modules *_rules.py: same names, same operations,
// same order).
//
// A rule is a struct of its coefficients, in the order in which Python lists them, and `update` for one element.
// Options (epsilon, decay, maximize, ...) are values of coefficients, never branches; a state that the options leave
// out has the type Absent, and a rule with less than three takes Absent in their place. Every literal would be a
// double, so there is none.
#pragma once

#include "formats.cuh"

// `size` with the sign of a value; a value that is 0 or NaN stays what it is.
template <typename T>
__device__ __forceinline__ T with_sign_of(T size, T value, T zero) {
    return value > zero ? size : (value < zero ? -size : value);
}

// Whether a rule is measured: its `direction` is what `update` goes along, and the norms of whole tensors of that and
// of the weights say how far. Then the second and the third coefficient are those of tables.cuh.
template <template <typename> class Rule>
constexpr bool is_measured = false;

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
struct qhadam {
    T grad_factor, l2, decay, weight1, weight2, square_share, exp_avg_sq_share, eps, grad_size, exp_avg_size;

    __device__ __forceinline__ void update(T& param, T grad, T& exp_avg, T& exp_avg_sq, Absent) const {
        grad = grad + l2 * param;
        param = param - decay * param;
        const T square = grad * grad;
        exp_avg = exp_avg + weight1 * (grad - exp_avg);
        exp_avg_sq = exp_avg_sq + weight2 * (square - exp_avg_sq);
        const T denominator = sqrt(square_share * square + exp_avg_sq_share * exp_avg_sq) + eps;
        param = param - (grad_size * grad + exp_avg_size * exp_avg) / denominator;
    }
};

template <typename T>
struct adamax {
    T grad_factor, l2, decay, weight1, beta2, eps_inside, eps_outside, step_size;

    __device__ __forceinline__ void update(T& param, T grad, T& exp_avg, T& exp_inf, Absent) const {
        grad = grad + l2 * param;
        param = param - decay * param;
        exp_avg = exp_avg + weight1 * (grad - exp_avg);
        const T size = fabs(grad) + eps_inside;
        exp_inf = exp_inf * beta2;
        exp_inf = exp_inf > size ? exp_inf : size;
        param = param - step_size * (exp_avg / (exp_inf + eps_outside));
    }
};

template <typename T>
struct adagrad {
    T grad_factor, l2, decay, eps_inside, eps_outside, step_size;

    __device__ __forceinline__ void update(T& param, T grad, T& square_sum, Absent, Absent) const {
        grad = grad + l2 * param;
        param = param - decay * param;
        square_sum = square_sum + grad * grad;
        param = param - step_size * (grad / (sqrt(square_sum + eps_inside) + eps_outside));
    }
};

template <typename T>
struct adadelta {
    T grad_factor, l2, decay, weight, eps, step_size;

    __device__ __forceinline__ void update(T& param, T grad, T& square_avg, T& acc_delta, Absent) const {
        grad = grad + l2 * param;
        param = param - decay * param;
        square_avg = square_avg + weight * (grad * grad - square_avg);
        const T delta = sqrt(acc_delta + eps) / sqrt(square_avg + eps) * grad;
        acc_delta = acc_delta + weight * (delta * delta - acc_delta);
        param = param - step_size * delta;
    }
};

template <typename T>
struct lion {
    T grad_factor, l2, decay, beta1, weight1, beta2, weight2, zero, step_size;

    __device__ __forceinline__ void update(T& param, T grad, T& exp_avg, Absent, Absent) const {
        grad = grad + l2 * param;
        param = param - decay * param;
        const T update = beta1 * exp_avg + weight1 * grad;
        exp_avg = beta2 * exp_avg + weight2 * grad;
        param = param - with_sign_of(step_size, update, zero);
    }
};

template <typename T>
struct adam_l1 : adam<T> {
    T l1, shrink, zero;

    template <typename Maximum>
    __device__ __forceinline__ void update(T& param, T grad, T& exp_avg, T& exp_avg_sq, Maximum& max_exp_avg_sq) const {
        const T shrunk = with_sign_of(shrink, param, zero);
        grad = grad + with_sign_of(l1, param, zero);
        adam<T>::update(param, grad, exp_avg, exp_avg_sq, max_exp_avg_sq);
        param = param - shrunk;
    }
};

template <typename T>
struct nadam_l1 : nadam<T> {
    T l1, shrink, zero;

    __device__ __forceinline__ void update(T& param, T grad, T& exp_avg, T& exp_avg_sq, Absent) const {
        const T shrunk = with_sign_of(shrink, param, zero);
        grad = grad + with_sign_of(l1, param, zero);
        nadam<T>::update(param, grad, exp_avg, exp_avg_sq, Absent{});
        param = param - shrunk;
    }
};

template <typename T>
struct sgd_l1 : sgd<T> {
    T l1, shrink, zero;

    template <typename Buffer>
    __device__ __forceinline__ void update(T& param, T grad, Buffer& momentum_buffer, Absent, Absent) const {
        const T shrunk = with_sign_of(shrink, param, zero);
        grad = grad + with_sign_of(l1, param, zero);
        sgd<T>::update(param, grad, momentum_buffer, Absent{}, Absent{});
        param = param - shrunk;
    }
};

template <typename T>
struct lamb {
    T grad_factor, step_size, trust_limit, weight1, weight2, mean_factor, denominator_factor, eps, weight_decay;

    __device__ __forceinline__ T direction(T param, T grad, T& exp_avg, T& exp_avg_sq, Absent) const {
        exp_avg = exp_avg + weight1 * (grad - exp_avg);
        exp_avg_sq = exp_avg_sq + weight2 * (grad * grad - exp_avg_sq);
        const T denominator = sqrt(exp_avg_sq) * denominator_factor + eps;
        return exp_avg * mean_factor / denominator + weight_decay * param;
    }
    __device__ __forceinline__ void update(T& param, T grad, T& exp_avg, T& exp_avg_sq, Absent) const {
        param = param - step_size * direction(param, grad, exp_avg, exp_avg_sq, Absent{});
    }
};
template <>
constexpr bool is_measured<lamb> = true;

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
