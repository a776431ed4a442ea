"""Writes the models of this folder and what Keras computes with them; run by hand with tensorflow-cpu 2.21, Keras 3.15.

They are in the repository because TensorFlow takes 1.6 GB, which the tests would need for nothing else.
"""

from pathlib import Path

import keras
import numpy as np
from keras import layers

FOLDER = Path(__file__).parent


def make_branches() -> keras.Model:
    """Every kind of layer that works on images, with branches and a layer that is used twice."""
    image = keras.Input((8, 10, 3))
    x = layers.ZeroPadding2D(((1, 0), (2, 1)))(image)
    x = layers.Conv2D(4, (3, 2), strides=2, activation="relu")(x)
    y = layers.SeparableConv2D(4, 3, padding="same", depth_multiplier=2)(x)
    shared = layers.Conv2D(4, 3, padding="same", dilation_rate=2)
    x = layers.Concatenate()([layers.Add()([x, y]), shared(x), shared(y)])
    x = layers.BatchNormalization(center=False)(x)
    x = layers.ReLU(max_value=6)(x)
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
    x = layers.BatchNormalization(scale=False)(x)
    x = layers.SpatialDropout2D(0.5)(x)
    x = layers.MaxPooling2D(2, strides=1, padding="same")(x)
    x = layers.Conv2D(6, 1, groups=2, activation="relu6")(x)
    x = layers.AveragePooling2D(2, strides=2, padding="same")(x)
    x = layers.Dense(5)(x) + layers.Conv2D(5, 1)(x)
    a = layers.Flatten()(x)
    b = layers.Dropout(0.5)(layers.GlobalMaxPooling2D()(x))
    c = layers.Flatten()(layers.GlobalAveragePooling2D(keepdims=True)(x))
    x = layers.Concatenate()([layers.Dense(7, activation="relu")(a), b, c])
    return keras.Model(image, layers.Softmax()(layers.Dense(4)(x)))


def make_stack() -> keras.Sequential:
    """Layers one after the other on features that become an image and features again."""
    return keras.Sequential(
        [
            keras.Input((24,)),
            layers.Dense(24, use_bias=False),
            layers.BatchNormalization(),
            layers.Activation("relu"),
            layers.Reshape((4, 3, -1)),
            layers.Conv2D(3, 2),
            layers.Reshape((-1,)),
            layers.Dense(5),
            layers.Activation("softmax"),
        ]
    )


def make_nested() -> keras.Model:
    """Models within models, one of them twice as deep, behind what only training does and a Rescaling."""
    augment = keras.Sequential([layers.RandomFlip(), layers.RandomRotation(0.1)])
    block = keras.Sequential([layers.Conv2D(4, 3), layers.BatchNormalization(), layers.ReLU()])
    image = keras.Input((7, 7, 3))
    x = layers.Conv2D(3, 3)(block(image))
    features = keras.Model(image, layers.Add()([x, layers.Conv2D(3, 1)(x)]))
    image = keras.Input((7, 7, 3))
    x = layers.Rescaling(1 / 127.5, offset=[-1.0, -0.5, -0.25])(augment(image))
    x = layers.GlobalAveragePooling2D()(features(x))
    return keras.Model(image, layers.Dense(4, activation="softmax")(x))


def make_arithmetic() -> keras.Model:
    """Operators between tensors and numbers, a gate a channel, constants a channel."""
    image = keras.Input((5, 4, 3))
    x = layers.Normalization()(image)
    x = layers.Conv2D(4, 2)(layers.Rescaling(0.5, offset=0.25)(x))
    x = layers.PReLU(shared_axes=[1, 2])(x)
    gate = layers.Reshape((1, 1, 4))(layers.GlobalAveragePooling2D()(x))
    x = layers.Multiply()([x, layers.Conv2D(4, 1, activation="sigmoid")(gate)])
    x = x * keras.ops.relu6(x + 3.0) * (1 / 6)
    x = layers.Conv2D(4, 1)(keras.ops.tanh(2 - x) - keras.ops.silu(x) / 3)
    return keras.Model(image, layers.Flatten()(layers.Rescaling(2.0)(x)))


def make_activations() -> keras.Model:
    """Every activation function that can be carried over, side by side."""
    features = keras.Input((9,))
    functions = ("relu", "relu6", "sigmoid", "tanh", "silu", "gelu", "hard_sigmoid", "hard_silu")
    functions += ("leaky_relu", "linear", "softmax")
    own = (layers.LeakyReLU(0.15), layers.ReLU(negative_slope=0.1), layers.ReLU(1.5), layers.LeakyReLU())
    parts = [layers.Activation(name)(features) for name in functions] + [layer(features) for layer in own]
    return keras.Model(features, layers.Concatenate()(parts))


def randomise(model: keras.Model, rng: np.random.Generator) -> None:
    """Give batch normalisations and biases values that a wrong order would show."""
    for weight in model.weights:
        if weight.dtype == "float32":
            weight.assign(weight + rng.uniform(0.1, 0.5, weight.shape))


def main() -> None:
    """Write the files."""
    keras.utils.set_random_seed(0)
    rng, arrays = np.random.default_rng(0), {}
    makers = {"branches": make_branches, "stack": make_stack, "nested": make_nested}
    makers |= {"activations": make_activations, "arithmetic": make_arithmetic}
    for name, make in makers.items():
        model = make()
        randomise(model, rng)
        samples = rng.normal(size=(3, *model.input_shape[1:])).astype(np.float32)
        model.save(FOLDER / f"{name}.keras")
        model.save(FOLDER / f"{name}.h5")
        loaded = keras.saving.load_model(FOLDER / f"{name}.keras")  # Normalization keeps its old statistics in memory
        arrays |= {f"{name}_inputs": samples, f"{name}_outputs": np.asarray(loaded(samples, training=False))}
    np.savez(FOLDER / "samples.npz", **arrays)


if __name__ == "__main__":
    main()
