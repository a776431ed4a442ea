/* Reads calls.bin, makes each call with CMSIS-NN's functions, and writes their outputs to outputs.bin.
 * The fields of struct call, in this order, are those of `Call` in benchmarks/cmsis_nn_calls.py. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arm_nnfunctions.h"

enum function { CONVOLVE, DEPTHWISE, FULLY_CONNECTED, MAX_POOL, AVERAGE_POOL, ADD, MULTIPLY, SOFTMAX };

struct call {
    int32_t function, is_wide, samples;
    int32_t height, width, channels, out_height, out_width, out_channels;
    int32_t kernel_height, kernel_width, kernel_channels;
    int32_t stride_height, stride_width, pad_top, pad_left, dilation_height, dilation_width;
    int32_t first_zero_point, second_zero_point, output_zero_point, lower, upper, left_shift, is_per_channel;
    int32_t first_bytes, second_bytes, bias_bytes, multiplier_bytes, shift_bytes, output_bytes;
};

struct arrays {
    char *first, *second, *bias, *output;
    int32_t *multiplier, *shift;
};

static char scratch[1 << 15];

static void need(int holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "%s\n", what);
        exit(1);
    }
}

static void *read_array(FILE *file, int32_t n_bytes)
{
    char *values = malloc((size_t)n_bytes + 1);
    need(values != NULL, "out of memory");
    need(fread(values, 1, (size_t)n_bytes, file) == (size_t)n_bytes, "calls.bin ends early");
    return values;
}

static cmsis_nn_context context_of(int32_t n_bytes)
{
    need(n_bytes <= (int32_t)sizeof scratch, "the scratch buffer is too small");
    return (cmsis_nn_context){scratch, n_bytes};
}

static cmsis_nn_dims input_of(const struct call *c)
{
    return (cmsis_nn_dims){1, c->height, c->width, c->channels};
}

static cmsis_nn_dims output_of(const struct call *c)
{
    return (cmsis_nn_dims){1, c->out_height, c->out_width, c->out_channels};
}

static int convolve(const struct call *c, const struct arrays *a)
{
    const cmsis_nn_dims in = input_of(c), out = output_of(c), bias = {1, 1, 1, c->out_channels};
    const cmsis_nn_dims filter = {c->out_channels, c->kernel_height, c->kernel_width, c->kernel_channels};
    const cmsis_nn_conv_params parameters = {-c->first_zero_point, c->output_zero_point,
        {c->stride_width, c->stride_height}, {c->pad_left, c->pad_top}, {c->dilation_width, c->dilation_height},
        {c->lower, c->upper}};
    const cmsis_nn_per_channel_quant_params scaling = {a->multiplier, a->shift};
    if (c->is_wide) {
        const cmsis_nn_context context =
            context_of(arm_convolve_wrapper_s16_get_buffer_size(&parameters, &in, &filter, &out));
        const cmsis_nn_bias_data values = {a->bias, false};
        return arm_convolve_wrapper_s16(&context, &parameters, &scaling, &in, (int16_t *)a->first, &filter,
            (int8_t *)a->second, &bias, &values, &out, (int16_t *)a->output);
    }
    const cmsis_nn_context context =
        context_of(arm_convolve_wrapper_s8_get_buffer_size(&parameters, &in, &filter, &out));
    return arm_convolve_wrapper_s8(&context, &parameters, &scaling, &in, (int8_t *)a->first, &filter,
        (int8_t *)a->second, &bias, (int32_t *)a->bias, &out, (int8_t *)a->output);
}

static int depthwise(const struct call *c, const struct arrays *a)
{
    const cmsis_nn_dims in = input_of(c), out = output_of(c), bias = {1, 1, 1, c->out_channels};
    const cmsis_nn_dims filter = {1, c->kernel_height, c->kernel_width, c->out_channels};
    const cmsis_nn_dw_conv_params parameters = {-c->first_zero_point, c->output_zero_point,
        c->out_channels / c->channels, {c->stride_width, c->stride_height}, {c->pad_left, c->pad_top},
        {c->dilation_width, c->dilation_height}, {c->lower, c->upper}};
    const cmsis_nn_per_channel_quant_params scaling = {a->multiplier, a->shift};
    if (c->is_wide) {
        const cmsis_nn_context context =
            context_of(arm_depthwise_conv_wrapper_s16_get_buffer_size(&parameters, &in, &filter, &out));
        return arm_depthwise_conv_wrapper_s16(&context, &parameters, &scaling, &in, (int16_t *)a->first, &filter,
            (int8_t *)a->second, &bias, (int64_t *)a->bias, &out, (int16_t *)a->output);
    }
    const cmsis_nn_context context =
        context_of(arm_depthwise_conv_wrapper_s8_get_buffer_size(&parameters, &in, &filter, &out));
    return arm_depthwise_conv_wrapper_s8(&context, &parameters, &scaling, &in, (int8_t *)a->first, &filter,
        (int8_t *)a->second, &bias, (int32_t *)a->bias, &out, (int8_t *)a->output);
}

/* On int16 there is one scale a call: each output with a scale of its own is a call. */
static int fully_connected_s16(const struct call *c, const struct arrays *a)
{
    const cmsis_nn_fc_params parameters = {0, 0, 0, {c->lower, c->upper}};
    const cmsis_nn_context context = {NULL, 0};
    const int32_t rows = c->is_per_channel ? 1 : c->out_channels;
    const cmsis_nn_dims in = {1, 1, 1, c->channels}, filter = {c->channels, 1, 1, rows}, out = {1, 1, 1, rows};
    int status = ARM_CMSIS_NN_SUCCESS;
    for (int32_t row = 0; row < c->out_channels && status == ARM_CMSIS_NN_SUCCESS; row += rows) {
        const cmsis_nn_per_tensor_quant_params scaling = {a->multiplier[row], a->shift[row]};
        status = arm_fully_connected_s16(&context, &parameters, &scaling, &in, (int16_t *)a->first, &filter,
            (int8_t *)a->second + row * c->channels, &out, (int64_t *)a->bias + row, &out, (int16_t *)a->output + row);
    }
    return status;
}

static int fully_connected(const struct call *c, const struct arrays *a)
{
    if (c->is_wide)
        return fully_connected_s16(c, a);
    const cmsis_nn_dims in = {1, 1, 1, c->channels}, filter = {c->channels, 1, 1, c->out_channels};
    const cmsis_nn_dims out = {1, 1, 1, c->out_channels};
    const cmsis_nn_fc_params parameters = {-c->first_zero_point, 0, c->output_zero_point, {c->lower, c->upper}};
    const cmsis_nn_quant_params scaling = {a->multiplier, a->shift, c->is_per_channel};
    const cmsis_nn_context context = context_of(arm_fully_connected_s8_get_buffer_size(&filter));
    if (context.size > 0)
        arm_vector_sum_s8((int32_t *)scratch, c->channels, c->out_channels, (int8_t *)a->second,
            parameters.input_offset, 0, (int32_t *)a->bias);
    return arm_fully_connected_wrapper_s8(&context, &parameters, &scaling, &in, (int8_t *)a->first, &filter,
        (int8_t *)a->second, &out, (int32_t *)a->bias, &out, (int8_t *)a->output);
}

static int pool(const struct call *c, const struct arrays *a)
{
    const cmsis_nn_dims in = input_of(c), out = output_of(c), filter = {1, c->kernel_height, c->kernel_width, 1};
    const cmsis_nn_pool_params parameters = {{c->stride_width, c->stride_height}, {c->pad_left, c->pad_top},
        {c->lower, c->upper}};
    if (c->function == MAX_POOL) {
        const cmsis_nn_context context = {NULL, 0};
        return c->is_wide ? arm_max_pool_s16(&context, &parameters, &in, (int16_t *)a->first, &filter, &out,
                                (int16_t *)a->output)
                          : arm_max_pool_s8(&context, &parameters, &in, (int8_t *)a->first, &filter, &out,
                                (int8_t *)a->output);
    }
    if (c->is_wide) {
        const cmsis_nn_context context = context_of(arm_avgpool_s16_get_buffer_size(c->out_width, c->channels));
        return arm_avgpool_s16(&context, &parameters, &in, (int16_t *)a->first, &filter, &out, (int16_t *)a->output);
    }
    const cmsis_nn_context context = context_of(arm_avgpool_s8_get_buffer_size(c->out_width, c->channels));
    return arm_avgpool_s8(&context, &parameters, &in, (int8_t *)a->first, &filter, &out, (int8_t *)a->output);
}

static int add(const struct call *c, const struct arrays *a)
{
    const int32_t *m = a->multiplier, *s = a->shift, size = c->out_height * c->out_width * c->out_channels;
    if (c->is_wide)
        return arm_elementwise_add_s16((int16_t *)a->first, (int16_t *)a->second, 0, m[0], s[0], 0, m[1], s[1],
            c->left_shift, (int16_t *)a->output, 0, m[2], s[2], c->lower, c->upper, size);
    return arm_elementwise_add_s8((int8_t *)a->first, (int8_t *)a->second, -c->first_zero_point, m[0], s[0],
        -c->second_zero_point, m[1], s[1], c->left_shift, (int8_t *)a->output, c->output_zero_point, m[2], s[2],
        c->lower, c->upper, size);
}

static int multiply(const struct call *c, const struct arrays *a)
{
    if (c->is_wide)
        return arm_elementwise_mul_s16((int16_t *)a->first, (int16_t *)a->second, 0, 0, (int16_t *)a->output, 0,
            a->multiplier[0], a->shift[0], c->lower, c->upper, c->out_height * c->out_width * c->out_channels);
    return arm_elementwise_mul_s8((int8_t *)a->first, (int8_t *)a->second, -c->first_zero_point,
        -c->second_zero_point, (int8_t *)a->output, c->output_zero_point, a->multiplier[0], a->shift[0], c->lower,
        c->upper, c->out_height * c->out_width * c->out_channels);
}

static int softmax(const struct call *c, const struct arrays *a)
{
    if (c->is_wide) {
        const cmsis_nn_softmax_lut_s16 tables = {(int16_t *)a->second, (int16_t *)a->bias};
        return arm_softmax_s16((int16_t *)a->first, c->out_height * c->out_width, c->out_channels, a->multiplier[0],
            a->shift[0], &tables, (int16_t *)a->output);
    }
    arm_softmax_s8((int8_t *)a->first, c->out_height * c->out_width, c->out_channels, a->multiplier[0], a->shift[0],
        c->lower, (int8_t *)a->output);
    return ARM_CMSIS_NN_SUCCESS;
}

static int run_sample(const struct call *c, const struct arrays *a)
{
    switch (c->function) {
    case CONVOLVE:
        return convolve(c, a);
    case DEPTHWISE:
        return depthwise(c, a);
    case FULLY_CONNECTED:
        return fully_connected(c, a);
    case MAX_POOL:
    case AVERAGE_POOL:
        return pool(c, a);
    case ADD:
        return add(c, a);
    case MULTIPLY:
        return multiply(c, a);
    default:
        return softmax(c, a);
    }
}

static void run_call(const struct call *c, FILE *calls, FILE *outputs)
{
    const int has_two_inputs = c->function == ADD || c->function == MULTIPLY;
    struct arrays a;
    a.first = read_array(calls, c->first_bytes);
    a.second = read_array(calls, c->second_bytes);
    a.bias = read_array(calls, c->bias_bytes);
    a.multiplier = read_array(calls, c->multiplier_bytes);
    a.shift = read_array(calls, c->shift_bytes);
    a.output = calloc((size_t)c->output_bytes, 1);
    need(a.output != NULL, "out of memory");
    struct arrays sample = a;
    for (int32_t index = 0; index < c->samples; index++) {
        sample.first = a.first + index * (c->first_bytes / c->samples);
        sample.second = a.second + (has_two_inputs ? index * (c->second_bytes / c->samples) : 0);
        sample.output = a.output + index * (c->output_bytes / c->samples);
        need(run_sample(c, &sample) == ARM_CMSIS_NN_SUCCESS, "CMSIS-NN refuses a call");
    }
    fwrite(a.output, 1, (size_t)c->output_bytes, outputs);
    void *used[] = {a.first, a.second, a.bias, a.multiplier, a.shift, a.output};
    for (size_t i = 0; i < sizeof used / sizeof *used; i++)
        free(used[i]);
}

int main(void)
{
    FILE *calls = fopen("calls.bin", "rb"), *outputs = fopen("outputs.bin", "wb");
    struct call c;
    need(calls != NULL && outputs != NULL, "calls.bin or outputs.bin cannot be opened");
    while (fread(&c, sizeof c, 1, calls) == 1)
        run_call(&c, calls, outputs);
    need(fclose(outputs) == 0, "outputs.bin cannot be written");
    return 0;
}
