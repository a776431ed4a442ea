/* nettrim_kernels.h: the int8 and int16 kernels that a generated model.h calls. C99, also valid C++.
 *
 * Integers only: sums in int32, of int16 in int64, then the requantisation of TFLite's reference kernels, so every
 * compiler and level gives the same bits. The zero point of the input is already part of the bias, and padding holds
 * that zero point: inner loops are accumulator += weight * input. The generator has proved, row by row, that no
 * accumulator can leave its type.
 *
 * Needs: two's complement and an arithmetic right shift, checked below. No allocation, recursion, stdio, function
 * pointers or arrays of variable length; every loop is bounded by the model's constants.
 */
#ifndef NETTRIM_KERNELS_H
#define NETTRIM_KERNELS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__GNUC__)
#define NT_ALIGN16 __attribute__((aligned(16)))
#elif defined(_MSC_VER)
#define NT_ALIGN16 __declspec(align(16))
#else
#error "nettrim: define NT_ALIGN16 for this compiler: it stands before a declaration and aligns it to 16 bytes"
#endif

/* Functions with an inner loop. A 32-bit Arm has 14 registers: inlined, the loop would spill into memory for the sake
 * of what is around it. Elsewhere inlining pays: it makes the counts constant. */
#if defined(__GNUC__) && defined(__arm__)
#define NT_LOOP static __attribute__((noinline, unused))
#elif defined(__GNUC__)
#define NT_LOOP static inline __attribute__((always_inline))
#else
#define NT_LOOP static inline
#endif

#if defined(__GNUC__) && !defined(__clang__) /* which unrolls no loop of unknown length unasked */
#define NT_UNROLL _Pragma("GCC unroll 4")
#else
#define NT_UNROLL
#endif

#ifdef __cplusplus
#define NT_RESTRICT __restrict
#else
#define NT_RESTRICT restrict
#endif

/* What nt_<name>_run and nt_<name>_selftest return. */
#define NT_OK 0
#define NT_ERROR_NULL 1       /* a null pointer was given */
#define NT_ERROR_MISALIGNED 2 /* the arena does not start at a multiple of 16: declare it with NT_ALIGN16 */
#define NT_ERROR_SELFTEST 3   /* the golden vector came out with other bits */

typedef char nt_right_shift_must_be_arithmetic[(((int32_t)-3 >> 1) == -2) ? 1 : -1];

enum {
    NT_BLOCK = 16,           /* channels that are summed side by side in registers */
    NT_AXES = 5,             /* nested loops of a move */
    NT_SUMS = 4,             /* outputs that share each load of an input, windows that share each load of a weight */
    NT_SATURATED = 256,      /* this far from the zero point every output is at the end of its range */
    NT_SUM_SHIFT = 12,       /* softmax: from Q0.31 exponentials to the Q12.19 sum */
    NT_PROBABILITY_BITS = 8, /* softmax: outputs are Q0.8 */
    NT_NEWTON_STEPS = 3,
    NT_SIGMOIDS = 256 /* entries of the table of sigmoids on int16 */
};

/* How an accumulator of an output channel becomes int8; all arrays are (n_outputs). */
typedef struct {
    const int32_t *bias;       /* the input's zero point is folded in */
    const int32_t *multiplier; /* Q0.31 */
    const int8_t *shift;       /* positive: left */
    int32_t zero_point;
    int32_t lower;
    int32_t upper;
} nt_output;

/* Kept weights, row after row; row i is values[indptr[i]] to values[indptr[i + 1] - 1]. */
typedef struct {
    const int8_t *values;
    const void *indices; /* unsigned, index_bytes (1, 2 or 4) each: what to add to the address of the row's inputs */
    const void *indptr;  /* unsigned, indptr_bytes (1, 2 or 4) each */
    int32_t index_bytes;
    int32_t indptr_bytes;
} nt_csr;

/* Steps are distances in the image (height, width, channels), which is padded where it has to be. */
typedef struct {
    int32_t out_height;
    int32_t out_width;
    int32_t n_outputs;
    int32_t kernel_height;
    int32_t kernel_width;
    int32_t group_outputs;  /* outputs of a group */
    int32_t group_channels; /* channels of a group */
    int32_t row_step;       /* from one row of windows to the next */
    int32_t column_step;    /* from one window to the next */
    int32_t tap_row_step;   /* from one row of a window to the next */
    int32_t tap_step;       /* from one pixel of a window to the next */
} nt_conv;

typedef struct {
    int32_t height;
    int32_t width;
    int32_t channels;
    int32_t out_height;
    int32_t out_width;
    int32_t kernel_height;
    int32_t kernel_width;
    int32_t stride_height;
    int32_t stride_width;
    int32_t pad_top;
    int32_t pad_left;
} nt_pool;

/* Runs of bytes to copy, in nested loops: how many turns, and bytes from one to the next where they are read and
 * written. */
typedef struct {
    int32_t count[NT_AXES];
    int32_t in_step[NT_AXES];
    int32_t out_step[NT_AXES];
    int32_t run;
} nt_runs;

/* A mean: nested loops over what is kept and, for each, over what is added up; steps in values. */
typedef struct {
    int32_t kept[2];
    int32_t kept_step[2];
    int32_t summed[2];
    int32_t summed_step[2];
    int32_t zero_sum; /* of as many zero points */
    int32_t multiplier;
    int32_t shift;
    int32_t zero_point;
} nt_reduction;

typedef struct {
    int32_t left_shift;
    int32_t first_zero_point;
    int32_t first_multiplier;
    int32_t first_shift;
    int32_t second_zero_point;
    int32_t second_multiplier;
    int32_t second_shift;
    int32_t multiplier;
    int32_t shift;
    int32_t zero_point;
    int32_t lower;
    int32_t upper;
} nt_addition;

typedef struct {
    int32_t first_zero_point;
    int32_t second_zero_point;
    int32_t multiplier;
    int32_t shift;
    int32_t zero_point;
    int32_t lower;
    int32_t upper;
} nt_product;

typedef struct {
    int32_t input_zero_point;
    int32_t multiplier;
    int32_t shift;
    int32_t slope_multiplier;
    int32_t slope_shift;
    int32_t zero_point;
} nt_prelu_scales;

/* From distances between inputs to Q5.26; beyond the farthest a log-softmax is at its end. */
typedef struct {
    int32_t multiplier;
    int32_t shift;
    int32_t farthest;
} nt_distance;

static inline int32_t nt_min(int32_t first, int32_t second) { return first < second ? first : second; }

static inline int32_t nt_max(int32_t first, int32_t second) { return first > second ? first : second; }

static inline int8_t nt_clamp(int32_t value, int32_t lower, int32_t upper)
{
    return (int8_t)nt_min(nt_max(value, lower), upper);
}

/* a * b / 2^31, half up: the product of Q0.31 numbers, which are never both -1. */
static inline int32_t nt_high_product(int32_t a, int32_t b)
{
    return (int32_t)(((int64_t)a * b + ((int64_t)1 << 30)) >> 31);
}

/* value * multiplier * 2^(shift - 31), rounded twice: half up, then half away from zero. */
static inline int32_t nt_multiply_rounding_twice(int32_t value, int32_t multiplier, int32_t shift)
{
    const int32_t left = shift > 0 ? shift : 0;
    const int32_t right = shift > 0 ? 0 : -shift;
    const int32_t high = nt_high_product((int32_t)((uint32_t)value << left), multiplier);
    const int32_t mask = (int32_t)(((uint32_t)1 << right) - 1u);
    const int32_t threshold = (mask >> 1) + (high < 0 ? 1 : 0);
    return (high >> right) + ((high & mask) > threshold ? 1 : 0);
}

/* value * multiplier * 2^(shift - 31), rounded once, half away from zero, and cut off at NT_SATURATED; shift < 31. */
static inline int32_t nt_multiply_rounding_once(int32_t value, int32_t multiplier, int32_t shift)
{
    const int64_t magnitude = (int64_t)(value < 0 ? -value : value) * multiplier;
    const int64_t rounded = (magnitude + ((int64_t)1 << (30 - shift))) >> (31 - shift);
    const int32_t scaled = rounded > NT_SATURATED ? (int32_t)NT_SATURATED : (int32_t)rounded;
    return value < 0 ? -scaled : scaled;
}

/* Convolutions round twice, dense layers once, as their reference kernels do. */
static inline int8_t nt_requantize_conv(const nt_output *output, int32_t channel, int32_t accumulator)
{
    const int32_t scaled = nt_multiply_rounding_twice(accumulator, output->multiplier[channel], output->shift[channel]);
    return nt_clamp(scaled + output->zero_point, output->lower, output->upper);
}

static inline int8_t nt_requantize_dense(const nt_output *output, int32_t channel, int32_t accumulator)
{
    const int32_t scaled = nt_multiply_rounding_once(accumulator, output->multiplier[channel], output->shift[channel]);
    return nt_clamp(scaled + output->zero_point, output->lower, output->upper);
}

static inline int32_t nt_dot(int32_t accumulator, const int8_t *weight, const int8_t *in, int32_t n)
{
    for (int32_t i = 0; i < n; ++i) { /* the plain form is the one that becomes SDOT, SMLAL or PMULLW */
        accumulator += weight[i] * in[i];
    }
    return accumulator;
}

/* NT_SUMS outputs of one window of height rows, n values each; output_step lies between two outputs' weights. */
NT_LOOP void nt_dot_outputs(int32_t *NT_RESTRICT sums, const int8_t *weight, int32_t output_step, const int8_t *in,
                            int32_t height, int32_t row_step, int32_t n)
{
    int32_t sum0 = sums[0], sum1 = sums[1], sum2 = sums[2], sum3 = sums[3];
    for (int32_t i = 0; i < height; ++i, weight += n) {
        const int8_t *row = in + i * row_step;
        const int8_t *weight1 = weight + output_step;
        const int8_t *weight2 = weight1 + output_step;
        const int8_t *weight3 = weight2 + output_step;
        for (int32_t j = 0; j < n; ++j) {
            sum0 += weight[j] * row[j];
            sum1 += weight1[j] * row[j];
            sum2 += weight2[j] * row[j];
            sum3 += weight3[j] * row[j];
        }
    }
    sums[0] = sum0;
    sums[1] = sum1;
    sums[2] = sum2;
    sums[3] = sum3;
}

static inline uint32_t nt_row_start(const nt_csr *matrix, int32_t row)
{
    switch (matrix->indptr_bytes) {
    case 1:
        return ((const uint8_t *)matrix->indptr)[row];
    case 2:
        return ((const uint16_t *)matrix->indptr)[row];
    default:
        return ((const uint32_t *)matrix->indptr)[row];
    }
}

static inline uint32_t nt_index(const void *indices, int32_t k, int32_t index_bytes)
{
    switch (index_bytes) {
    case 1:
        return ((const uint8_t *)indices)[k];
    case 2:
        return ((const uint16_t *)indices)[k];
    default:
        return ((const uint32_t *)indices)[k];
    }
}

/* One row of n weights. index_bytes is a constant in every call: no switch is left in the loop. */
static inline int32_t nt_csr_sum(int32_t accumulator, const int8_t *values, const void *indices, int32_t n,
                                 const int8_t *in, int32_t index_bytes)
{
    NT_UNROLL
    for (int32_t k = 0; k < n; ++k) {
        accumulator += values[k] * in[nt_index(indices, k, index_bytes)];
    }
    return accumulator;
}

/* The same for NT_SUMS windows, step apart. */
static inline void nt_csr_sums(int32_t *NT_RESTRICT sums, const int8_t *values, const void *indices, int32_t n,
                               const int8_t *in, int32_t step, int32_t index_bytes)
{
    int32_t sum0 = sums[0], sum1 = sums[1], sum2 = sums[2], sum3 = sums[3];
    for (int32_t k = 0; k < n; ++k) {
        const int32_t weight = values[k];
        const int8_t *pixel = in + nt_index(indices, k, index_bytes);
        sum0 += weight * pixel[0];
        sum1 += weight * pixel[step];
        sum2 += weight * pixel[2 * step];
        sum3 += weight * pixel[3 * step];
    }
    sums[0] = sum0;
    sums[1] = sum1;
    sums[2] = sum2;
    sums[3] = sum3;
}

NT_LOOP int32_t nt_csr_dot(int32_t accumulator, const nt_csr *matrix, int32_t row, const int8_t *in)
{
    const uint32_t start = nt_row_start(matrix, row);
    const int32_t n = (int32_t)(nt_row_start(matrix, row + 1) - start);
    const int8_t *values = matrix->values + start;
    const void *indices = (const uint8_t *)matrix->indices + start * (uint32_t)matrix->index_bytes;
    switch (matrix->index_bytes) {
    case 1:
        return nt_csr_sum(accumulator, values, indices, n, in, 1);
    case 2:
        return nt_csr_sum(accumulator, values, indices, n, in, 2);
    default:
        return nt_csr_sum(accumulator, values, indices, n, in, 4);
    }
}

NT_LOOP void nt_csr_dot_windows(int32_t *sums, const nt_csr *matrix, int32_t row, const int8_t *in, int32_t step)
{
    const uint32_t start = nt_row_start(matrix, row);
    const int32_t n = (int32_t)(nt_row_start(matrix, row + 1) - start);
    const int8_t *values = matrix->values + start;
    const void *indices = (const uint8_t *)matrix->indices + start * (uint32_t)matrix->index_bytes;
    switch (matrix->index_bytes) {
    case 1:
        nt_csr_sums(sums, values, indices, n, in, step, 1);
        break;
    case 2:
        nt_csr_sums(sums, values, indices, n, in, step, 2);
        break;
    default:
        nt_csr_sums(sums, values, indices, n, in, step, 4);
        break;
    }
}

/* weight (n_outputs, n_inputs) */
static inline void nt_dense(int32_t n_outputs, int32_t n_inputs, const int8_t *weight, const nt_output *output,
                            const int8_t *in, int8_t *out)
{
    const int32_t whole = n_outputs - n_outputs % NT_SUMS;
    int32_t sums[NT_SUMS];
    for (int32_t o = 0; o < whole; o += NT_SUMS) {
        memcpy(sums, output->bias + o, sizeof sums);
        nt_dot_outputs(sums, weight + o * n_inputs, n_inputs, in, 1, 0, n_inputs);
        for (int32_t k = 0; k < NT_SUMS; ++k) {
            out[o + k] = nt_requantize_dense(output, o + k, sums[k]);
        }
    }
    for (int32_t o = whole; o < n_outputs; ++o) {
        out[o] = nt_requantize_dense(output, o, nt_dot(output->bias[o], weight + o * n_inputs, in, n_inputs));
    }
}

static inline void nt_dense_csr(int32_t n_outputs, const nt_csr *matrix, const nt_output *output, const int8_t *in,
                                int8_t *out)
{
    for (int32_t o = 0; o < n_outputs; ++o) {
        out[o] = nt_requantize_dense(output, o, nt_csr_dot(output->bias[o], matrix, o, in));
    }
}

/* Whatever the type: everything counts in bytes. */
static inline void nt_move(const nt_runs *runs, const int8_t *in, int8_t *out)
{
    const int32_t *count = runs->count, *in_step = runs->in_step, *out_step = runs->out_step;
    for (int32_t a = 0; a < count[0]; ++a) {
        for (int32_t b = 0; b < count[1]; ++b) {
            for (int32_t c = 0; c < count[2]; ++c) {
                for (int32_t d = 0; d < count[3]; ++d) {
                    const int8_t *from = in + a * in_step[0] + b * in_step[1] + c * in_step[2] + d * in_step[3];
                    int8_t *to = out + a * out_step[0] + b * out_step[1] + c * out_step[2] + d * out_step[3];
                    for (int32_t e = 0; e < count[4]; ++e, from += in_step[4], to += out_step[4]) {
                        if (runs->run == 1) {
                            *to = *from;
                        } else {
                            memcpy(to, from, (size_t)runs->run);
                        }
                    }
                }
            }
        }
    }
}

/* Each pixel of the new image is the one at (rows[y], columns[x]) of the old one, width pixels wide. */
static inline void nt_resize(int32_t new_height, int32_t new_width, const uint16_t *rows, const uint16_t *columns,
                             int32_t width, int32_t pixel_bytes, const int8_t *in, int8_t *out)
{
    for (int32_t y = 0; y < new_height; ++y) {
        for (int32_t x = 0; x < new_width; ++x, out += pixel_bytes) {
            memcpy(out, in + (rows[y] * width + columns[x]) * pixel_bytes, (size_t)pixel_bytes);
        }
    }
}

/* One group, no dilation: a row of a window is one run. weight (n_outputs, kernel_height, kernel_width, channels) */
static inline void nt_conv2d(const nt_conv *conv, const int8_t *weight, const nt_output *output, const int8_t *image,
                             int8_t *out)
{
    const int32_t run = conv->kernel_width * conv->group_channels;
    const int32_t size = conv->kernel_height * run;
    const int32_t whole = conv->n_outputs - conv->n_outputs % NT_SUMS;
    int32_t sums[NT_SUMS];
    for (int32_t y = 0; y < conv->out_height; ++y) {
        for (int32_t x = 0; x < conv->out_width; ++x) {
            const int8_t *window = image + y * conv->row_step + x * conv->column_step;
            for (int32_t o = 0; o < whole; o += NT_SUMS) {
                memcpy(sums, output->bias + o, sizeof sums);
                nt_dot_outputs(sums, weight + o * size, size, window, conv->kernel_height, conv->tap_row_step, run);
                for (int32_t k = 0; k < NT_SUMS; ++k) {
                    *out++ = nt_requantize_conv(output, o + k, sums[k]);
                }
            }
            for (int32_t o = whole; o < conv->n_outputs; ++o) {
                int32_t accumulator = output->bias[o];
                for (int32_t i = 0; i < conv->kernel_height; ++i) {
                    const int8_t *row = weight + o * size + i * run;
                    accumulator = nt_dot(accumulator, row, window + i * conv->tap_row_step, run);
                }
                *out++ = nt_requantize_conv(output, o, accumulator);
            }
        }
    }
}

/* Any groups and dilation. weight (n_outputs, kernel_height, kernel_width, group_channels) */
static inline void nt_conv2d_grouped(const nt_conv *conv, const int8_t *weight, const nt_output *output,
                                     const int8_t *image, int8_t *out)
{
    for (int32_t y = 0; y < conv->out_height; ++y) {
        for (int32_t x = 0; x < conv->out_width; ++x) {
            const int8_t *window = image + y * conv->row_step + x * conv->column_step;
            const int8_t *tap = weight;
            for (int32_t o = 0; o < conv->n_outputs; ++o) {
                const int8_t *group = window + (o / conv->group_outputs) * conv->group_channels;
                int32_t accumulator = output->bias[o];
                for (int32_t i = 0; i < conv->kernel_height; ++i) {
                    for (int32_t j = 0; j < conv->kernel_width; ++j, tap += conv->group_channels) {
                        const int8_t *pixel = group + i * conv->tap_row_step + j * conv->tap_step;
                        accumulator = nt_dot(accumulator, tap, pixel, conv->group_channels);
                    }
                }
                *out++ = nt_requantize_conv(output, o, accumulator);
            }
        }
    }
}

static inline void nt_multiply_add(int32_t *NT_RESTRICT sums, const int8_t *NT_RESTRICT weight,
                                   const int8_t *NT_RESTRICT in, int32_t n)
{
    if (n == NT_BLOCK) { /* a constant count, so that compilers keep the sums in vector registers */
        for (int32_t k = 0; k < NT_BLOCK; ++k) {
            sums[k] += weight[k] * in[k];
        }
    } else {
        for (int32_t k = 0; k < n; ++k) {
            sums[k] += weight[k] * in[k];
        }
    }
}

/* One output a channel. weight (kernel_height, kernel_width, channels): channels lie side by side, as in the image */
static inline void nt_conv2d_depthwise(const nt_conv *conv, const int8_t *weight, const nt_output *output,
                                       const int8_t *image, int8_t *out)
{
    int32_t sums[NT_BLOCK];
    for (int32_t y = 0; y < conv->out_height; ++y) {
        for (int32_t x = 0; x < conv->out_width; ++x) {
            const int8_t *window = image + y * conv->row_step + x * conv->column_step;
            for (int32_t c = 0; c < conv->n_outputs; c += NT_BLOCK) {
                const int32_t n = nt_min(NT_BLOCK, conv->n_outputs - c);
                const int8_t *tap = weight + c;
                memcpy(sums, output->bias + c, (size_t)n * sizeof sums[0]);
                for (int32_t i = 0; i < conv->kernel_height; ++i) {
                    for (int32_t j = 0; j < conv->kernel_width; ++j, tap += conv->n_outputs) {
                        nt_multiply_add(sums, tap, window + c + i * conv->tap_row_step + j * conv->tap_step, n);
                    }
                }
                for (int32_t k = 0; k < n; ++k) {
                    *out++ = nt_requantize_conv(output, c + k, sums[k]);
                }
            }
        }
    }
}

/* Any groups and dilation: indices are distances from the first pixel of a window in the image. */
static inline void nt_conv2d_csr(const nt_conv *conv, const nt_csr *matrix, const nt_output *output,
                                 const int8_t *image, int8_t *out)
{
    const int32_t whole = conv->out_width - conv->out_width % NT_SUMS;
    int32_t sums[NT_SUMS];
    for (int32_t y = 0; y < conv->out_height; ++y) {
        for (int32_t x = 0; x < whole; x += NT_SUMS) {
            const int8_t *window = image + y * conv->row_step + x * conv->column_step;
            for (int32_t o = 0; o < conv->n_outputs; ++o) {
                sums[0] = sums[1] = sums[2] = sums[3] = output->bias[o];
                nt_csr_dot_windows(sums, matrix, o, window, conv->column_step);
                for (int32_t k = 0; k < NT_SUMS; ++k) {
                    out[k * conv->n_outputs + o] = nt_requantize_conv(output, o, sums[k]);
                }
            }
            out += NT_SUMS * conv->n_outputs;
        }
        for (int32_t x = whole; x < conv->out_width; ++x) {
            const int8_t *window = image + y * conv->row_step + x * conv->column_step;
            for (int32_t o = 0; o < conv->n_outputs; ++o) {
                *out++ = nt_requantize_conv(output, o, nt_csr_dot(output->bias[o], matrix, o, window));
            }
        }
    }
}

/* Every window holds at least one pixel of the image; padding never wins. */
static inline void nt_max_pool(const nt_pool *pool, const int8_t *NT_RESTRICT in, int8_t *NT_RESTRICT out)
{
    for (int32_t y = 0; y < pool->out_height; ++y) {
        const int32_t top = y * pool->stride_height - pool->pad_top;
        const int32_t bottom = nt_min(top + pool->kernel_height, pool->height);
        for (int32_t x = 0; x < pool->out_width; ++x, out += pool->channels) {
            const int32_t left = x * pool->stride_width - pool->pad_left;
            const int32_t right = nt_min(left + pool->kernel_width, pool->width);
            memset(out, INT8_MIN, (size_t)pool->channels);
            for (int32_t i = nt_max(top, 0); i < bottom; ++i) {
                for (int32_t j = nt_max(left, 0); j < right; ++j) {
                    const int8_t *pixel = in + (i * pool->width + j) * pool->channels;
                    for (int32_t c = 0; c < pool->channels; ++c) {
                        out[c] = pixel[c] > out[c] ? pixel[c] : out[c];
                    }
                }
            }
        }
    }
}

static inline int8_t nt_mean(int32_t sum, int32_t count)
{
    /* Half away from zero; the division truncates. */
    return (int8_t)((sum + (sum > 0 ? count / 2 : -(count / 2))) / count);
}

/* The mean of the pixels that are there: padding does not count. */
static inline void nt_average_pool(const nt_pool *pool, const int8_t *in, int8_t *out)
{
    int32_t sums[NT_BLOCK];
    for (int32_t y = 0; y < pool->out_height; ++y) {
        const int32_t top = nt_max(y * pool->stride_height - pool->pad_top, 0);
        const int32_t bottom = nt_min(y * pool->stride_height - pool->pad_top + pool->kernel_height, pool->height);
        for (int32_t x = 0; x < pool->out_width; ++x) {
            const int32_t left = nt_max(x * pool->stride_width - pool->pad_left, 0);
            const int32_t right = nt_min(x * pool->stride_width - pool->pad_left + pool->kernel_width, pool->width);
            for (int32_t c = 0; c < pool->channels; c += NT_BLOCK) {
                const int32_t n = nt_min(NT_BLOCK, pool->channels - c);
                memset(sums, 0, sizeof sums);
                for (int32_t i = top; i < bottom; ++i) {
                    for (int32_t j = left; j < right; ++j) {
                        const int8_t *pixel = in + (i * pool->width + j) * pool->channels + c;
                        for (int32_t k = 0; k < n; ++k) {
                            sums[k] += pixel[k];
                        }
                    }
                }
                for (int32_t k = 0; k < n; ++k) {
                    *out++ = nt_mean(sums[k], (bottom - top) * (right - left));
                }
            }
        }
    }
}

/* Steps are 1, or 0 for one value that stands for all. A difference has a negative second multiplier. */
static inline void nt_add(const nt_addition *add, int32_t size, const int8_t *first, int32_t first_step,
                          const int8_t *second, int32_t second_step, int8_t *out)
{
    for (int32_t i = 0; i < size; ++i, first += first_step, second += second_step) {
        const int32_t wide_first = (*first - add->first_zero_point) * ((int32_t)1 << add->left_shift);
        const int32_t wide_second = (*second - add->second_zero_point) * ((int32_t)1 << add->left_shift);
        const int32_t sum = nt_multiply_rounding_twice(wide_first, add->first_multiplier, add->first_shift) +
                            nt_multiply_rounding_twice(wide_second, add->second_multiplier, add->second_shift);
        const int32_t scaled = nt_multiply_rounding_twice(sum, add->multiplier, add->shift);
        out[i] = nt_clamp(scaled + add->zero_point, add->lower, add->upper);
    }
}

static inline void nt_multiply(const nt_product *product, int32_t size, const int8_t *first, int32_t first_step,
                               const int8_t *second, int32_t second_step, int8_t *out)
{
    for (int32_t i = 0; i < size; ++i, first += first_step, second += second_step) {
        const int32_t value = (*first - product->first_zero_point) * (*second - product->second_zero_point);
        const int32_t scaled = nt_multiply_rounding_twice(value, product->multiplier, product->shift);
        out[i] = nt_clamp(scaled + product->zero_point, product->lower, product->upper);
    }
}

static inline void nt_reduce_mean(const nt_reduction *mean, const int8_t *in, int8_t *out)
{
    for (int32_t a = 0; a < mean->kept[0]; ++a) {
        for (int32_t b = 0; b < mean->kept[1]; ++b) {
            int32_t sum = -mean->zero_sum;
            for (int32_t c = 0; c < mean->summed[0]; ++c) {
                const int8_t *from = in + a * mean->kept_step[0] + b * mean->kept_step[1] + c * mean->summed_step[0];
                for (int32_t d = 0; d < mean->summed[1]; ++d) {
                    sum += from[d * mean->summed_step[1]];
                }
            }
            sum = nt_multiply_rounding_twice(sum, mean->multiplier, mean->shift);
            *out++ = nt_clamp(sum + mean->zero_point, INT8_MIN, INT8_MAX);
        }
    }
}

static inline void nt_activation(int32_t size, int32_t lower, int32_t upper, const int8_t *in, int8_t *out)
{
    for (int32_t i = 0; i < size; ++i) {
        out[i] = nt_clamp(in[i], lower, upper);
    }
}

/* A function of one value: table[x + 128]. */
static inline void nt_lookup(const int8_t *table, int32_t size, const int8_t *in, int8_t *out)
{
    for (int32_t i = 0; i < size; ++i) {
        out[i] = table[in[i] - INT8_MIN];
    }
}

/* slope (channels): what negative values are multiplied by. */
static inline void nt_prelu(const nt_prelu_scales *scales, const int8_t *slope, int32_t n_pixels, int32_t channels,
                            const int8_t *in, int8_t *out)
{
    for (int32_t i = 0; i < n_pixels; ++i) {
        for (int32_t c = 0; c < channels; ++c) {
            const int32_t value = *in++ - scales->input_zero_point;
            const int32_t scaled =
                value >= 0 ? nt_multiply_rounding_twice(value, scales->multiplier, scales->shift)
                           : nt_multiply_rounding_twice(value * slope[c], scales->slope_multiplier, scales->slope_shift);
            *out++ = nt_clamp(scaled + scales->zero_point, INT8_MIN, INT8_MAX);
        }
    }
}

/* 1 / half / 2 as a Q0.31 number, for half in [1/2, 1]: Newton's method from 48/17 - 32/17 * half; x is Q2.29. */
static inline int32_t nt_reciprocal_of_double(int32_t half)
{
    int32_t quotient = 1515870810 + nt_high_product(half, -1010580540);
    for (int32_t i = 0; i < NT_NEWTON_STEPS; ++i) {
        const int32_t error = ((int32_t)1 << 29) - nt_high_product(half, quotient);
        quotient += 4 * nt_high_product(quotient, error);
    }
    return quotient >= (int32_t)1 << 30 ? INT32_MAX : 2 * quotient;
}

/* 1 / total, as a Q0.31 number in [1/2, 1] times 2^-integer_bits, for a Q12.19 total of at least 1. */
static inline int32_t nt_reciprocal(uint32_t total, int32_t *integer_bits)
{
    int32_t headroom = 0;
    while (total < 0x80000000u) {
        total <<= 1;
        ++headroom;
    }
    *integer_bits = NT_SUM_SHIFT - headroom;
    return nt_reciprocal_of_double((int32_t)(total >> 1));
}

/* Each row of depth values by itself; table[d] is exp(-scale * d) in Q0.31 for a distance d to the row's largest value.
 * Outputs have scale 1/256 and zero point -128. */
static inline void nt_softmax(const int32_t *table, int32_t n_rows, int32_t depth, const int8_t *in, int8_t *out)
{
    for (int32_t row = 0; row < n_rows; ++row, in += depth, out += depth) {
        int32_t largest = INT8_MIN;
        uint32_t total = 0;
        int32_t integer_bits;
        for (int32_t i = 0; i < depth; ++i) {
            largest = nt_max(largest, in[i]);
        }
        for (int32_t i = 0; i < depth; ++i) {
            total += ((uint32_t)table[largest - in[i]] + (1u << (NT_SUM_SHIFT - 1))) >> NT_SUM_SHIFT;
        }
        const int32_t inverse = nt_reciprocal(total, &integer_bits);
        const int32_t right = integer_bits + 31 - NT_PROBABILITY_BITS;
        for (int32_t i = 0; i < depth; ++i) {
            const int64_t probability = nt_high_product(table[largest - in[i]], inverse);
            const int64_t rounded = (probability + ((int64_t)1 << (right - 1))) >> right;
            out[i] = nt_clamp((int32_t)rounded + INT8_MIN, INT8_MIN, INT8_MAX);
        }
    }
}

/* Leading zeros of a positive number, the sign's place not counted. */
static inline int32_t nt_headroom(int32_t value)
{
    int32_t headroom = 0;
    for (; value < (int32_t)1 << 30; value *= 2) {
        ++headroom;
    }
    return headroom;
}

/* The natural logarithm, Q5.26, of a Q12.19 total of at least 1: that of r around 2^(-1/4), and of a power of two from
 * which a square root is split off where that brings r nearer. */
static inline int32_t nt_logarithm(int32_t total)
{
    const int32_t sqrt_half = 1518500250, center = 1805811301, quarter = (int32_t)1 << 23, unit = (int32_t)1 << 25;
    const int32_t first = nt_headroom(total);
    const int32_t second = nt_headroom(nt_high_product(total, sqrt_half));
    const int64_t first_r = 2 * (int64_t)nt_high_product(total * ((int32_t)1 << first), sqrt_half);
    const int64_t second_r = (int64_t)total << second;
    const int32_t r = (int32_t)(first_r < second_r ? first_r : second_r);
    const int32_t power = nt_max((NT_SUM_SHIFT - 1 - first) * unit + quarter, (NT_SUM_SHIFT - second) * unit - quarter);
    const int32_t p = (int32_t)(((int64_t)r + center + 1) >> 1);
    const int32_t q = 2 * (r - center);
    const int32_t square = nt_high_product(q, q);
    const int32_t numerator = nt_high_product(q, r) + nt_high_product(nt_high_product(q, square), 117049297);
    const int32_t rest = nt_high_product(p, 1057819769 + q + nt_high_product(127690142, square)) +
                         nt_high_product(638450708, q);
    const int32_t inverse = nt_reciprocal_of_double((int32_t)(((int64_t)rest + ((int64_t)1 << 31)) >> 1));
    const int32_t narrow = numerator < 0 ? -((32 - numerator) >> 6) : (numerator + 32) >> 6;
    return 2 * (nt_high_product(power, 1488522236) + nt_high_product(narrow, inverse));
}

/* Each row by itself; table as of nt_softmax. Outputs have scale 1/16 and zero point 127. */
static inline void nt_log_softmax(const int32_t *table, const nt_distance *distance, int32_t n_rows, int32_t depth,
                                  const int8_t *in, int8_t *out)
{
    for (int32_t row = 0; row < n_rows; ++row, in += depth, out += depth) {
        int32_t largest = INT8_MIN;
        int32_t total = 0;
        for (int32_t i = 0; i < depth; ++i) {
            largest = nt_max(largest, in[i]);
        }
        for (int32_t i = 0; i < depth; ++i) {
            total += (int32_t)(((uint32_t)table[largest - in[i]] + (1u << (NT_SUM_SHIFT - 1))) >> NT_SUM_SHIFT);
        }
        const int64_t logarithm = nt_logarithm(total);
        for (int32_t i = 0; i < depth; ++i) {
            const int32_t steps = nt_min(largest - in[i], distance->farthest);
            const int32_t scaled = nt_high_product(-(steps * ((int32_t)1 << distance->shift)), distance->multiplier);
            const int64_t below = (logarithm - scaled + ((int64_t)1 << 21)) >> 22;
            out[i] = largest - in[i] > distance->farthest ? (int8_t)INT8_MIN
                                                          : nt_clamp((int32_t)(INT8_MAX - below), INT8_MIN, INT8_MAX);
        }
    }
}

/* ---- int16 activations: zero point 0, int64 sums, multipliers of 15 bits; names end in 16 ---- */

/* As nt_output. */
typedef struct {
    const int64_t *bias;
    const int16_t *multiplier; /* Q0.15 */
    const int8_t *shift;       /* positive: left */
    int32_t lower;
    int32_t upper;
} nt_output16;

static inline int16_t nt_clamp16(int64_t value, int32_t lower, int32_t upper)
{
    return (int16_t)(value < lower ? lower : value > upper ? upper : value);
}

/* value * multiplier * 2^(shift - 15), half up; the generator has proved that the product stays in int64. */
static inline int16_t nt_requantize_conv16(const nt_output16 *output, int32_t channel, int64_t value)
{
    const int32_t right = 15 - output->shift[channel];
    const int64_t scaled = (value * output->multiplier[channel] + ((int64_t)1 << (right - 1))) >> right;
    return nt_clamp16(scaled, output->lower, output->upper);
}

/* The same, half away from zero. */
static inline int16_t nt_requantize_dense16(const nt_output16 *output, int32_t channel, int64_t value)
{
    const int32_t right = 15 - output->shift[channel];
    const int64_t magnitude = (value < 0 ? -value : value) * output->multiplier[channel];
    const int64_t scaled = (magnitude + ((int64_t)1 << (right - 1))) >> right;
    return nt_clamp16(value < 0 ? -scaled : scaled, output->lower, output->upper);
}

NT_LOOP int64_t nt_dot16(int64_t accumulator, const int8_t *weight, const int16_t *in, int32_t n)
{
    for (int32_t i = 0; i < n; ++i) {
        accumulator += (int32_t)weight[i] * in[i];
    }
    return accumulator;
}

NT_LOOP int64_t nt_csr_dot16(int64_t accumulator, const nt_csr *matrix, int32_t row, const int16_t *in)
{
    const uint32_t end = nt_row_start(matrix, row + 1);
    for (uint32_t k = nt_row_start(matrix, row); k < end; ++k) {
        accumulator += (int32_t)matrix->values[k] * in[nt_index(matrix->indices, (int32_t)k, matrix->index_bytes)];
    }
    return accumulator;
}

static inline void nt_dense16(int32_t n_outputs, int32_t n_inputs, const int8_t *weight, const nt_output16 *output,
                              const int16_t *in, int16_t *out)
{
    for (int32_t o = 0; o < n_outputs; ++o) {
        const int64_t accumulator = nt_dot16(output->bias[o], weight + o * n_inputs, in, n_inputs);
        out[o] = nt_requantize_dense16(output, o, accumulator);
    }
}

static inline void nt_dense_csr16(int32_t n_outputs, const nt_csr *matrix, const nt_output16 *output,
                                  const int16_t *in, int16_t *out)
{
    for (int32_t o = 0; o < n_outputs; ++o) {
        out[o] = nt_requantize_dense16(output, o, nt_csr_dot16(output->bias[o], matrix, o, in));
    }
}

/* Any groups and dilation. weight (n_outputs, kernel_height, kernel_width, group_channels) */
static inline void nt_conv2d16(const nt_conv *conv, const int8_t *weight, const nt_output16 *output,
                               const int16_t *image, int16_t *out)
{
    for (int32_t y = 0; y < conv->out_height; ++y) {
        for (int32_t x = 0; x < conv->out_width; ++x) {
            const int16_t *window = image + y * conv->row_step + x * conv->column_step;
            const int8_t *tap = weight;
            for (int32_t o = 0; o < conv->n_outputs; ++o) {
                const int16_t *group = window + (o / conv->group_outputs) * conv->group_channels;
                int64_t accumulator = output->bias[o];
                for (int32_t i = 0; i < conv->kernel_height; ++i) {
                    for (int32_t j = 0; j < conv->kernel_width; ++j, tap += conv->group_channels) {
                        const int16_t *pixel = group + i * conv->tap_row_step + j * conv->tap_step;
                        accumulator = nt_dot16(accumulator, tap, pixel, conv->group_channels);
                    }
                }
                *out++ = nt_requantize_conv16(output, o, accumulator);
            }
        }
    }
}

static inline void nt_conv2d_csr16(const nt_conv *conv, const nt_csr *matrix, const nt_output16 *output,
                                   const int16_t *image, int16_t *out)
{
    for (int32_t y = 0; y < conv->out_height; ++y) {
        for (int32_t x = 0; x < conv->out_width; ++x) {
            const int16_t *window = image + y * conv->row_step + x * conv->column_step;
            for (int32_t o = 0; o < conv->n_outputs; ++o) {
                *out++ = nt_requantize_conv16(output, o, nt_csr_dot16(output->bias[o], matrix, o, window));
            }
        }
    }
}

static inline void nt_max_pool16(const nt_pool *pool, const int16_t *NT_RESTRICT in, int16_t *NT_RESTRICT out)
{
    for (int32_t y = 0; y < pool->out_height; ++y) {
        const int32_t top = y * pool->stride_height - pool->pad_top;
        const int32_t bottom = nt_min(top + pool->kernel_height, pool->height);
        for (int32_t x = 0; x < pool->out_width; ++x, out += pool->channels) {
            const int32_t left = x * pool->stride_width - pool->pad_left;
            const int32_t right = nt_min(left + pool->kernel_width, pool->width);
            for (int32_t c = 0; c < pool->channels; ++c) {
                out[c] = INT16_MIN;
            }
            for (int32_t i = nt_max(top, 0); i < bottom; ++i) {
                for (int32_t j = nt_max(left, 0); j < right; ++j) {
                    const int16_t *pixel = in + (i * pool->width + j) * pool->channels;
                    for (int32_t c = 0; c < pool->channels; ++c) {
                        out[c] = pixel[c] > out[c] ? pixel[c] : out[c];
                    }
                }
            }
        }
    }
}

static inline void nt_average_pool16(const nt_pool *pool, const int16_t *in, int16_t *out)
{
    for (int32_t y = 0; y < pool->out_height; ++y) {
        const int32_t top = nt_max(y * pool->stride_height - pool->pad_top, 0);
        const int32_t bottom = nt_min(y * pool->stride_height - pool->pad_top + pool->kernel_height, pool->height);
        for (int32_t x = 0; x < pool->out_width; ++x) {
            const int32_t left = nt_max(x * pool->stride_width - pool->pad_left, 0);
            const int32_t right = nt_min(x * pool->stride_width - pool->pad_left + pool->kernel_width, pool->width);
            const int64_t count = (int64_t)(bottom - top) * (right - left);
            for (int32_t c = 0; c < pool->channels; ++c) {
                int64_t sum = 0;
                for (int32_t i = top; i < bottom; ++i) {
                    for (int32_t j = left; j < right; ++j) {
                        sum += in[(i * pool->width + j) * pool->channels + c];
                    }
                }
                *out++ = (int16_t)((sum + (sum > 0 ? count / 2 : -(count / 2))) / count);
            }
        }
    }
}

static inline void nt_add16(const nt_addition *add, int32_t size, const int16_t *first, int32_t first_step,
                            const int16_t *second, int32_t second_step, int16_t *out)
{
    for (int32_t i = 0; i < size; ++i, first += first_step, second += second_step) {
        const int32_t wide_first = *first * ((int32_t)1 << add->left_shift);
        const int32_t wide_second = *second * ((int32_t)1 << add->left_shift);
        const int32_t sum = nt_multiply_rounding_twice(wide_first, add->first_multiplier, add->first_shift) +
                            nt_multiply_rounding_twice(wide_second, add->second_multiplier, add->second_shift);
        out[i] = nt_clamp16(nt_multiply_rounding_twice(sum, add->multiplier, add->shift), add->lower, add->upper);
    }
}

static inline void nt_multiply16(const nt_product *product, int32_t size, const int16_t *first, int32_t first_step,
                                 const int16_t *second, int32_t second_step, int16_t *out)
{
    for (int32_t i = 0; i < size; ++i, first += first_step, second += second_step) {
        const int32_t scaled = nt_multiply_rounding_twice((int32_t)*first * *second, product->multiplier, product->shift);
        out[i] = nt_clamp16(scaled, product->lower, product->upper);
    }
}

static inline void nt_reduce_mean16(const nt_reduction *mean, const int16_t *in, int16_t *out)
{
    for (int32_t a = 0; a < mean->kept[0]; ++a) {
        for (int32_t b = 0; b < mean->kept[1]; ++b) {
            int32_t sum = 0;
            for (int32_t c = 0; c < mean->summed[0]; ++c) {
                const int16_t *from = in + a * mean->kept_step[0] + b * mean->kept_step[1] + c * mean->summed_step[0];
                for (int32_t d = 0; d < mean->summed[1]; ++d) {
                    sum += from[d * mean->summed_step[1]];
                }
            }
            sum = nt_multiply_rounding_twice(sum, mean->multiplier, mean->shift);
            *out++ = nt_clamp16(sum, INT16_MIN, INT16_MAX);
        }
    }
}

static inline void nt_activation16(int32_t size, int32_t lower, int32_t upper, const int16_t *in, int16_t *out)
{
    for (int32_t i = 0; i < size; ++i) {
        out[i] = nt_clamp16(in[i], lower, upper);
    }
}

static inline int16_t nt_slope16(const nt_prelu_scales *scales, int32_t value, int32_t slope)
{
    const int32_t scaled =
        value >= 0 ? nt_multiply_rounding_twice(value, scales->multiplier, scales->shift)
                   : nt_multiply_rounding_twice(value * slope, scales->slope_multiplier, scales->slope_shift);
    return nt_clamp16(scaled, INT16_MIN, INT16_MAX);
}

static inline void nt_leaky_relu16(const nt_prelu_scales *scales, int32_t size, const int16_t *in, int16_t *out)
{
    for (int32_t i = 0; i < size; ++i) {
        out[i] = nt_slope16(scales, in[i], 1);
    }
}

static inline void nt_prelu16(const nt_prelu_scales *scales, const int8_t *slope, int32_t n_pixels, int32_t channels,
                              const int16_t *in, int16_t *out)
{
    for (int32_t i = 0; i < n_pixels; ++i) {
        for (int32_t c = 0; c < channels; ++c) {
            *out++ = nt_slope16(scales, *in++, slope[c]);
        }
    }
}

/* A sigmoid of steps >= 0, 2^bits of them to an entry of the table, as Q0.(16 + bits); end is what is beyond it. */
static inline int32_t nt_sigmoid_of_steps(const uint16_t *table, int32_t steps, int32_t bits, int32_t end)
{
    const int32_t place = steps >> bits;
    const int32_t rest = steps & (((int32_t)1 << bits) - 1);
    if (place >= NT_SIGMOIDS - 1) {
        return end;
    }
    return table[place] * ((int32_t)1 << bits) + rest * (table[place + 1] - table[place]);
}

static inline int32_t nt_table_steps(int32_t value, int32_t multiplier, int32_t right)
{
    return (value * multiplier + (right > 0 ? (int32_t)1 << (right - 1) : 0)) >> right;
}

/* multiplier and right lead to steps of 1 / 12288; table[i] is sigmoid(i / 24) in Q0.16. */
static inline void nt_sigmoid16(const uint16_t *table, int32_t multiplier, int32_t right, int32_t size,
                                const int16_t *in, int16_t *out)
{
    for (int32_t i = 0; i < size; ++i) {
        const int32_t steps = nt_table_steps(in[i], multiplier, right);
        const int32_t found = nt_sigmoid_of_steps(table, steps < 0 ? -steps : steps, 9, 0x7FFF * 1024);
        out[i] = (int16_t)((steps < 0 ? ((int32_t)1 << 25) - found + 511 : found + 512) >> 10);
    }
}

/* The same with tanh(x) = 2 * sigmoid(2 * x) - 1. */
static inline void nt_tanh16(const uint16_t *table, int32_t multiplier, int32_t right, int32_t size, const int16_t *in,
                             int16_t *out)
{
    for (int32_t i = 0; i < size; ++i) {
        const int32_t steps = nt_table_steps(in[i], multiplier, right);
        const int32_t found = nt_sigmoid_of_steps(table, steps < 0 ? -steps : steps, 8, 0xFFFF * 256) - ((int32_t)1 << 23);
        out[i] = (int16_t)((steps < 0 ? 127 - found : found + 128) >> 8);
    }
}

/* A function of int16 values: 513 entries, straight lines between them. */
static inline int32_t nt_interpolate16(const int16_t *table, int32_t value)
{
    const int16_t *entry = table + 256 + (value >> 7);
    return entry[0] + (((entry[1] - entry[0]) * (value & 127) + 64) >> 7);
}

/* exp(scale * (value - largest)) in Q0.15; multiplier and shift lead to the table's steps. */
static inline int32_t nt_exponential16(const int16_t *table, int32_t multiplier, int32_t shift, int32_t distance)
{
    const int32_t scaled = nt_multiply_rounding_twice(distance, multiplier, shift);
    return nt_interpolate16(table, nt_max(scaled + INT16_MAX, INT16_MIN));
}

/* Each row of depth values by itself. Outputs have scale 1/32768. */
static inline void nt_softmax16(const int16_t *exponentials, const int16_t *reciprocals, int32_t multiplier,
                                int32_t shift, int32_t n_rows, int32_t depth, const int16_t *in, int16_t *out)
{
    for (int32_t row = 0; row < n_rows; ++row, in += depth, out += depth) {
        int32_t largest = INT16_MIN;
        int32_t total = 0;
        for (int32_t i = 0; i < depth; ++i) {
            largest = nt_max(largest, in[i]);
        }
        for (int32_t i = 0; i < depth; ++i) {
            out[i] = (int16_t)nt_exponential16(exponentials, multiplier, shift, in[i] - largest);
            total += out[i];
        }
        const int32_t headroom = nt_headroom(total);
        const int64_t sum = (((int64_t)total << headroom) + ((int64_t)1 << 13)) >> 14;
        const int32_t fraction = nt_min((int32_t)sum - ((int32_t)3 << 15), INT16_MAX);
        const int32_t inverse = nt_interpolate16(reciprocals, fraction);
        const int32_t right = 30 - headroom;
        for (int32_t i = 0; i < depth; ++i) {
            out[i] = nt_clamp16((out[i] * inverse + ((int32_t)1 << (right - 1))) >> right, 0, INT16_MAX);
        }
    }
}

/* From int8 to int16 and back, and from int16 of one scale to int16 of another. */
static inline void nt_widen(int32_t size, int32_t zero_point, int32_t multiplier, int32_t shift, const int8_t *in,
                            int16_t *out)
{
    for (int32_t i = 0; i < size; ++i) {
        out[i] = nt_clamp16(nt_multiply_rounding_twice(in[i] - zero_point, multiplier, shift), INT16_MIN, INT16_MAX);
    }
}

static inline void nt_narrow(int32_t size, int32_t zero_point, int32_t multiplier, int32_t shift, const int16_t *in,
                             int8_t *out)
{
    for (int32_t i = 0; i < size; ++i) {
        const int32_t scaled = nt_multiply_rounding_twice(in[i], multiplier, shift);
        out[i] = nt_clamp(scaled + zero_point, INT8_MIN, INT8_MAX);
    }
}

static inline void nt_rescale16(int32_t size, int32_t multiplier, int32_t shift, const int16_t *in, int16_t *out)
{
    for (int32_t i = 0; i < size; ++i) {
        out[i] = nt_clamp16(nt_multiply_rounding_twice(in[i], multiplier, shift), INT16_MIN, INT16_MAX);
    }
}

/* From int8 of one scale to int8 of another. */
static inline void nt_rescale(int32_t size, int32_t in_zero_point, int32_t zero_point, int32_t multiplier, int32_t shift,
                              const int8_t *in, int8_t *out)
{
    for (int32_t i = 0; i < size; ++i) {
        const int32_t scaled = nt_multiply_rounding_twice(in[i] - in_zero_point, multiplier, shift);
        out[i] = nt_clamp(scaled + zero_point, INT8_MIN, INT8_MAX);
    }
}

#endif /* NETTRIM_KERNELS_H */
