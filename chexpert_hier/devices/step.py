"""One training step of a batch that is spread over devices, some of whose films may only fill it up.

Films that fill up (flag -1, see `training.microbatch`) count neither in the loss nor in a BatchNormalization's
statistics nor in the epoch's mean loss.
"""

import contextvars
import functools
import weakref
from typing import Any

import jax
import keras
from keras import ops

_TRAINED: weakref.WeakKeyDictionary[keras.Model, int] = weakref.WeakKeyDictionary()
# bool (films,) of the batch whose step is being traced; None outside.
_COUNTED: contextvars.ContextVar[Any] = contextvars.ContextVar("counted", default=None)


def adapt(network: keras.Model, everywhere: jax.sharding.Sharding) -> None:
    """Let a network train on batches with flags, and give its predictions to all processes.

    Args:
        network: compiled with `PieceLoss`, or only predicting; its layers' `call` is exchanged, nothing else of them.
        everywhere: the layout in which every device has the whole.
    """
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.call = functools.partial(_normalised, layer)
    network.train_step = functools.partial(_train_step, network)
    network.predict_step = functools.partial(_predict_step, network, everywhere)
    # Keras 3.15 keeps the function with the layouts of the weights that trained when it was made.
    trained = len(network.trainable_variables)
    if _TRAINED.setdefault(network, trained) != trained:
        _TRAINED[network], network.predict_function = trained, None


def _train_step(network: keras.Model, state: tuple, data: tuple) -> tuple[dict[str, Any], tuple]:
    """Keras' own step (its guide "Customizing what happens in `fit()` with JAX"), for counted films."""
    trainable, others, optimizer, metrics = state
    x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
    counted = y[:, -1] >= 0
    before = _COUNTED.set(counted)
    try:
        gradient = jax.value_and_grad(network.compute_loss_and_updates, has_aux=True)
        (_, (loss, _, others, metrics)), gradients = gradient(
            trainable, others, metrics, x, y, None, training=True, optimizer_variables=optimizer)
    finally:
        _COUNTED.reset(before)
    trainable, optimizer = network.optimizer.stateless_apply(optimizer, gradients, trainable)
    mean, = network.metrics
    films = ops.sum(ops.cast(counted, "float32"))
    metrics = mean.stateless_update_state(metrics, loss, sample_weight=films)
    return {"loss": mean.stateless_result(metrics)}, (trainable, others, optimizer, metrics)


def _predict_step(network: keras.Model, everywhere: jax.sharding.Sharding, state: tuple, data: Any) -> tuple:
    outputs, others = type(network).predict_step(network, state, data)
    return jax.lax.with_sharding_constraint(outputs, everywhere), others


def _normalised(layer: keras.layers.BatchNormalization, inputs: Any, training: bool | None = None, mask: Any = None
                ) -> Any:
    """Keras' BatchNormalization, whose statistics leave out the films that do not count: (films, ..., channels)."""
    counted = _COUNTED.get()
    if mask is None and counted is not None and training and layer.trainable:
        places = inputs.shape[:-1]
        mask = ops.broadcast_to(ops.reshape(counted, (-1, *(1 for _ in places[1:]))), places)
    return type(layer).call(layer, inputs, training=training, mask=mask)
