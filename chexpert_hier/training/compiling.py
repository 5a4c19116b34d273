"""How a stage's network is compiled: its loss, its optimizer, its first rate, its start where a run was stopped."""

import keras
import numpy as np

from ..network import kernels
from ..network.losses import MaskedLoss
from ..recipes import Recipe, Stage
from .callbacks import LearningRateDrop, plateau_rate
from .microbatch import PieceLoss, Pieces


def compile_for(network: keras.Model, recipe: Recipe, stage: Stage, loss: MaskedLoss, pieces: Pieces,
                cells: tuple[int, ...]) -> None:
    """Compile a network for a stage.

    One that is compiled for this loss already only gets its optimizer reset, for tracing a large network once more
    takes longer than many a small training (experiments train one network many times).

    Args:
        network: what is trained; its `trainable` flags are set.
        recipe: its precision decides on loss scaling.
        stage: its optimizer's numbers.
        loss: of the whole batch.
        pieces: how a batch is cut.
        cells: shape of one film's targets, e.g. (labels,).
    """
    if _compiled_already(network, recipe, stage, loss):
        for variable in network.optimizer.variables[:1] + network.optimizer.variables[2:]:  # all but the learning rate
            variable.assign(keras.ops.zeros_like(variable))
        return
    network.compile(optimizer=_optimizer(recipe, stage, pieces), jit_compile=_jit(),
                    loss=PieceLoss(loss, cells, pieces.count) if pieces.flagged else loss)
    # Its variables made within the first step would have TensorFlow trace that step twice.
    network.optimizer.build(network.trainable_variables)


def _compiled_already(network: keras.Model, recipe: Recipe, stage: Stage, loss: MaskedLoss) -> bool:
    return (network.compiled and recipe.precision == "float32" and isinstance(network.loss, MaskedLoss)
            and network.loss.get_config() == loss.get_config() and network.optimizer.built
            and network.optimizer.epsilon == stage.epsilon
            and len(network.optimizer.variables) == 2 * len(network.trainable_variables) + 2)


def _optimizer(recipe: Recipe, stage: Stage, pieces: Pieces) -> keras.optimizers.Optimizer:
    adam = kernels.adam(stage.learning_rate, beta_1=0.9, beta_2=0.999, epsilon=stage.epsilon,
                        gradient_accumulation_steps=pieces.count if pieces.count > 1 else None)
    return keras.optimizers.LossScaleOptimizer(adam) if recipe.precision == "mixed_float16" else adam


def _jit() -> str | bool:
    # XLA takes minutes to compile a DenseNet-121 for TensorFlow on the CPU; elsewhere Keras' own choice is good.
    return False if kernels.used() else "auto"


def schedule(stage: Stage, valid_losses: list[float]) -> LearningRateDrop:
    """The callback that sets an epoch's rate.

    Args:
        stage: names the schedule.
        valid_losses: one number per finished epoch of the stage.
    """
    if stage.schedule == "divide":
        return LearningRateDrop(stage.learning_rate, stage.learning_rate_drop, stage.drop_every)
    plateau = stage.schedule == "plateau"
    return LearningRateDrop(plateau_rate(stage, valid_losses) if plateau else stage.learning_rate, 1.0)


def stopped_early(stage: Stage, valid_losses: list[float]) -> bool:
    """Whether the validation loss has not fallen for `stage.stop_after` epochs."""
    if not stage.stop_after or not valid_losses:
        return False
    return len(valid_losses) - 1 - int(np.argmin(valid_losses)) >= stage.stop_after
