"""Runs on digits that take seconds, in the test's own process."""

from sws_jax import presets

IMAGES = 1257  # digits to train on


def epochs(steps, batch=64):
    """So many steps, as the epochs that a config takes."""
    return steps * batch / IMAGES


def tiny(steps=10, save_every=5, name="run", **groups):
    """A run on digits that takes seconds, through the fields of every config."""
    config = presets.run()
    presets.small(config)
    config.name = name
    config.model.update(depth=2, width=16, heads=2)
    config.schedule.update(total_epochs=epochs(steps), warmup_epochs=0.0, rate=1e-3)
    config.checkpoint.every_epochs = epochs(save_every)
    config.evaluation.update(batch_size=128, every_epochs=epochs(save_every))
    config.ema = 0.9
    for group, fields in groups.items():
        config[group].update(fields)
    return config
