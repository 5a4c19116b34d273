"""Three of TensorFlow's own kernels where Keras computes with many small operations, on the processor.

Batch normalisation is one kernel instead of some twenty passes over the maps; Adam one kernel a weight array instead of
fifteen; the gradient of a 1 x 1 convolution's weights in bfloat16 is a matrix product. Fewer operations are also traced
sooner. Layers, variables, saved files and numbers (but for rounding) stay Keras' own: only how a built layer's `call`
computes is exchanged, in this process. Keras' own way is kept on its other backends, and on a GPU, where XLA compiles
the network and nothing was measured.

Measured: experiments/benchmarks/kernels.py.
"""

import functools
from typing import Any

import keras

SMALLEST_EPSILON = 1e-5  # what cuDNN's batch normalisation takes: a graph that is exported here may run there
PRECISIONS = ("float32", "float16", "bfloat16")


def used() -> bool:
    """Whether TensorFlow trains and answers on the processor, which these kernels are for."""
    return keras.backend.backend() == "tensorflow" and not keras.distribution.list_devices("gpu")


def fuse(model: keras.Model) -> keras.Model:
    """Let a network's layers compute with these kernels, where they are of use.

    Args:
        model: a built functional model; its layers' `call` is exchanged, nothing else.

    Returns:
        the same model.
    """
    if used():
        for layer in model.layers:
            if isinstance(layer, keras.layers.BatchNormalization) and _normalises_maps(layer):
                layer.call = functools.partial(_batch_normalisation, layer)
            elif type(layer) is keras.layers.Conv2D and _is_product(layer):
                layer.call = functools.partial(_product, layer)
    return model


def _normalises_maps(layer: keras.layers.BatchNormalization) -> bool:
    """Whether the kernel computes what this layer does."""
    return (layer.built and layer.input_spec.ndim == 4 and layer.axis in (-1, 3) and layer.compute_dtype in PRECISIONS
            and layer.variable_dtype == "float32" and layer.epsilon >= SMALLEST_EPSILON
            and not layer.renorm and not layer.synchronized)


def _batch_normalisation(layer: keras.layers.BatchNormalization, inputs: Any, training: bool | None = None,
                         mask: Any = None) -> Any:
    """What Keras' `BatchNormalization.call` gives: maps (n, h, w, channels) -> the same shape and precision.

    Statistics are float32 under 16-bit policies too. The kernel gives the batch's variance with n - 1 in the
    denominator; Keras keeps the one with n.
    """
    import tensorflow as tf

    if mask is not None:
        return type(layer).call(layer, inputs, training=training, mask=mask)
    learns, channels, nothing = bool(training and layer.trainable), (inputs.shape[-1],), tf.zeros((0,))
    outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=inputs, is_training=learns, epsilon=layer.epsilon,
        scale=layer.gamma.value if layer.scale else tf.ones(channels),
        offset=layer.beta.value if layer.center else tf.zeros(channels),
        mean=nothing if learns else layer.moving_mean.value,
        variance=nothing if learns else layer.moving_variance.value)
    if learns:
        count = tf.cast(tf.size(inputs) // inputs.shape[-1], tf.float32)
        variance *= tf.maximum(count - 1.0, 1.0) / count
        for moving, value in ((layer.moving_mean, mean), (layer.moving_variance, variance)):
            moving.assign(moving.value * layer.momentum + value * (1.0 - layer.momentum))
    return outputs


def _is_product(layer: keras.layers.Conv2D) -> bool:
    """Whether this convolution is a matrix product of maps and weights, in the precision where that is faster."""
    return (layer.built and layer.compute_dtype == "bfloat16" and layer.kernel_size == (1, 1)
            and layer.strides == (1, 1) and layer.groups == 1 and layer.data_format == "channels_last"
            and not layer.use_bias and layer.activation is keras.activations.linear)


def _product(layer: keras.layers.Conv2D, inputs: Any) -> Any:
    """What Keras' `Conv2D.call` gives for a kernel of 1 x 1: (n, h, w, k) -> (n, h, w, channels)."""
    import tensorflow as tf

    kernel = tf.reshape(tf.cast(layer.kernel, inputs.dtype), (inputs.shape[-1], layer.filters))
    outputs = tf.matmul(tf.reshape(inputs, (-1, inputs.shape[-1])), kernel)
    return tf.reshape(outputs, (-1, *inputs.shape[1:-1], layer.filters))


def adam(learning_rate: float, **options: Any) -> keras.optimizers.Adam:
    """Keras' Adam, with TensorFlow's kernel where it is of use.

    Args:
        learning_rate: the first.
        options: as of keras.optimizers.Adam.
    """
    return (FusedAdam if used() else keras.optimizers.Adam)(learning_rate, **options)


class FusedAdam(keras.optimizers.Adam):
    """Keras' Adam with one kernel for an array of weights: the same variables, and the same formula (Kingma & Ba 2015,
    end of section 2)."""

    def apply(self, grads: list[Any], trainable_variables: list[Any] | None = None) -> None:
        """Calculate the step's powers of beta once for all arrays; then Keras' own."""
        import tensorflow as tf

        step = tf.cast(self.iterations + 1, tf.float32)
        self._powers = tf.pow(self.beta_1, step), tf.pow(self.beta_2, step)
        super().apply(grads, trainable_variables)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """One array's step; Keras gives TensorFlow's variable."""
        import tensorflow as tf

        place = self._get_variable_index(variable)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle, m=self._momentums[place].value.handle, v=self._velocities[place].value.handle,
            beta1_power=self._powers[0], beta2_power=self._powers[1], lr=tf.cast(learning_rate, tf.float32),
            beta1=self.beta_1, beta2=self.beta_2, epsilon=self.epsilon, grad=tf.cast(gradient, tf.float32))
